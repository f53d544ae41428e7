"""Money is an integer count of minor units (cents, or whatever ISO 4217 calls the smallest unit) and a currency code.

Floats appear nowhere. The largest amount is 2^53 - 1, so that a client whose numbers are doubles
(JavaScript among them) can hold every amount exactly.
"""

import re
from typing import Annotated

from pydantic import Field

MAX_AMOUNT_MINOR = 2**53 - 1

Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="ISO 4217 alphabetic code")]
PositiveMinor = Annotated[
    int, Field(strict=True, ge=1, le=MAX_AMOUNT_MINOR, description="amount in minor units of the currency")
]

# ISO 4217: the currencies whose minor unit is not a hundredth.
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
    """Digits after the decimal point in `currency` (ISO 4217): 2 for EUR, 0 for JPY, 3 for KWD."""
    return _EXPONENTS.get(currency, 2)


def format_amount(amount_minor: int, currency: str) -> str:
    """Text for people: `format_amount(1250, "EUR") == "12.50 EUR"`."""
    digits = exponent(currency)
    if not digits:
        return f"{amount_minor} {currency}"
    if amount_minor < 0:
        return f"-{format_amount(-amount_minor, currency)}"
    figures = str(amount_minor).rjust(digits + 1, "0")
    return f"{figures[:-digits]}.{figures[-digits:]} {currency}"


def parse_amount(text: str, currency: str, *, least_minor: int = 1) -> int:
    """Minor units from a decimal that a person typed: `parse_amount("12.5", "EUR") == 1250`.

    Raises ValueError when `text` is not a plain decimal, has more decimals than the currency, or is out of range, which
    begins at `least_minor`.
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
