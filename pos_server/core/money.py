"""Amounts of money: an integer number of minor units (cents, or the smallest unit in ISO 4217) and a currency code.

No amount is ever a float. The largest amount is 2^53 - 1, so that clients whose numbers are doubles, such as
JavaScript, hold every amount exactly.
"""

import re
from typing import Annotated

from pydantic import Field

MAX_AMOUNT_MINOR = 2**53 - 1

Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="Currency, as an ISO 4217 code.")]
PositiveMinor = Annotated[
    int, Field(strict=True, ge=1, le=MAX_AMOUNT_MINOR, description="Amount in minor units of the currency.")
]

# Currencies whose minor unit is not a hundredth (ISO 4217).
_EXPONENTS = {
    **dict.fromkeys(
        ("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF"), 0
    ),
    **dict.fromkeys(("XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}
_DECIMAL = re.compile(r"(\d{1,16})(?:\.(\d{1,4}))?", re.ASCII)


def exponent(currency: str) -> int:
    """Return the number of decimals of a currency (ISO 4217): 2 for EUR, 0 for JPY, 3 for KWD."""
    return _EXPONENTS.get(currency, 2)


def format_amount(amount_minor: int, currency: str) -> str:
    """Return an amount as text for people: `format_amount(1250, "EUR") == "12.50 EUR"`."""
    digits = exponent(currency)
    if not digits:
        return f"{amount_minor} {currency}"
    if amount_minor < 0:
        return f"-{format_amount(-amount_minor, currency)}"
    figures = str(amount_minor).rjust(digits + 1, "0")
    return f"{figures[:-digits]}.{figures[-digits:]} {currency}"


def parse_amount(text: str, currency: str, *, least_minor: int = 1) -> int:
    """Return the minor units of a typed decimal: `parse_amount("12.5", "EUR") == 1250`.

    Raises ValueError if `text` is not a plain decimal, has more decimals than the currency, or is outside the range
    from `least_minor` to MAX_AMOUNT_MINOR.
    """
    match = _DECIMAL.fullmatch(text.strip())
    if match is None:
        raise ValueError("that is not an amount: write it as 12.50")
    digits = exponent(currency)
    part = match[2] or ""
    if len(part) > digits:
        raise ValueError(f"{currency} has {digits} decimals, not {len(part)}")
    amount_minor = int(match[1] + part.ljust(digits, "0"))
    if not least_minor <= amount_minor <= MAX_AMOUNT_MINOR:
        raise ValueError(f"an amount is between {least_minor} and {MAX_AMOUNT_MINOR} minor units")
    return amount_minor
