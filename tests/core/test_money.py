"""Amounts: exponents, formatting, parsing, and the wire types."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from pos_server.core.money import MAX_AMOUNT_MINOR, Currency, PositiveMinor, exponent, format_amount, parse_amount

QUICK = settings(max_examples=50)
CURRENCIES = ("EUR", "JPY", "KWD", "CLF")
_currency: TypeAdapter[str] = TypeAdapter(Currency)
_positive_minor: TypeAdapter[int] = TypeAdapter(PositiveMinor)


def test_the_largest_amount_is_exact_in_a_double() -> None:
    assert MAX_AMOUNT_MINOR == 9_007_199_254_740_991
    assert int(float(MAX_AMOUNT_MINOR)) == MAX_AMOUNT_MINOR


@pytest.mark.parametrize(
    ("currency", "digits"),
    [
        ("EUR", 2),
        ("USD", 2),
        ("CNY", 2),
        ("GBP", 2),
        ("MRU", 2),
        ("HUF", 2),
        ("JPY", 0),
        ("KRW", 0),
        ("CLP", 0),
        ("ISK", 0),
        ("XAF", 0),
        ("XOF", 0),
        ("XPF", 0),
        ("BHD", 3),
        ("KWD", 3),
        ("TND", 3),
        ("CLF", 4),
        ("UYW", 4),
    ],
)
def test_exponent(currency: str, digits: int) -> None:
    assert exponent(currency) == digits


@pytest.mark.parametrize(
    ("amount_minor", "currency", "text"),
    [
        (1250, "EUR", "12.50 EUR"),
        (0, "EUR", "0.00 EUR"),
        (1, "EUR", "0.01 EUR"),
        (99, "EUR", "0.99 EUR"),
        (100, "EUR", "1.00 EUR"),
        (-1, "EUR", "-0.01 EUR"),
        (-1250, "EUR", "-12.50 EUR"),
        (0, "JPY", "0 JPY"),
        (1250, "JPY", "1250 JPY"),
        (-5, "JPY", "-5 JPY"),
        (1250, "KWD", "1.250 KWD"),
        (1, "KWD", "0.001 KWD"),
        (1250, "CLF", "0.1250 CLF"),
        (MAX_AMOUNT_MINOR, "EUR", "90071992547409.91 EUR"),
        (MAX_AMOUNT_MINOR, "JPY", "9007199254740991 JPY"),
    ],
)
def test_format_amount(amount_minor: int, currency: str, text: str) -> None:
    assert format_amount(amount_minor, currency) == text


@pytest.mark.parametrize(
    ("text", "currency", "amount_minor"),
    [
        ("12.5", "EUR", 1250),
        ("12.50", "EUR", 1250),
        ("12", "EUR", 1200),
        ("0.01", "EUR", 1),
        ("007.10", "EUR", 710),
        ("  3.20\n", "EUR", 320),
        ("12", "JPY", 12),
        ("1.25", "KWD", 1250),
        ("0.001", "KWD", 1),
        ("0.1250", "CLF", 1250),
        ("90071992547409.91", "EUR", MAX_AMOUNT_MINOR),
        ("9007199254740991", "JPY", MAX_AMOUNT_MINOR),
    ],
)
def test_parse_amount(text: str, currency: str, amount_minor: int) -> None:
    assert parse_amount(text, currency) == amount_minor


def test_zero_is_parsed_where_allowed() -> None:
    assert parse_amount("0.00", "EUR", least_minor=0) == 0
    with pytest.raises(ValueError, match="between 0 and"):
        parse_amount("90071992547409.92", "EUR", least_minor=0)


@pytest.mark.parametrize(
    ("text", "currency", "message"),
    [
        ("", "EUR", "that is not an amount: write it as 12.50"),
        (".", "EUR", "that is not an amount: write it as 12.50"),
        ("12.", "EUR", "that is not an amount: write it as 12.50"),
        (".50", "EUR", "that is not an amount: write it as 12.50"),
        ("12,50", "EUR", "that is not an amount: write it as 12.50"),
        ("1 000", "EUR", "that is not an amount: write it as 12.50"),
        ("-1", "EUR", "that is not an amount: write it as 12.50"),
        ("+1", "EUR", "that is not an amount: write it as 12.50"),
        ("1e2", "EUR", "that is not an amount: write it as 12.50"),
        ("1_000", "EUR", "that is not an amount: write it as 12.50"),
        ("0x10", "EUR", "that is not an amount: write it as 12.50"),
        ("nan", "EUR", "that is not an amount: write it as 12.50"),
        ("\u0661\u0662", "EUR", "that is not an amount: write it as 12.50"),
        ("12.5\u0660", "EUR", "that is not an amount: write it as 12.50"),
        ("1.00001", "CLF", "that is not an amount: write it as 12.50"),
        ("12345678901234567", "EUR", "that is not an amount: write it as 12.50"),
        ("0.001", "EUR", "EUR has 2 decimals, not 3"),
        ("0.010", "EUR", "EUR has 2 decimals, not 3"),
        ("12.0", "JPY", "JPY has 0 decimals, not 1"),
        ("0", "EUR", "an amount is between 1 and 9007199254740991 minor units"),
        ("0.00", "EUR", "an amount is between 1 and 9007199254740991 minor units"),
        ("90071992547409.92", "EUR", "an amount is between 1 and 9007199254740991 minor units"),
        ("9007199254740992", "JPY", "an amount is between 1 and 9007199254740991 minor units"),
    ],
)
def test_parse_amount_rejects(text: str, currency: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        parse_amount(text, currency)


@QUICK
@given(st.integers(1, MAX_AMOUNT_MINOR), st.sampled_from(CURRENCIES))
def test_formatted_amounts_are_parsed_back(amount_minor: int, currency: str) -> None:
    number, _, unit = format_amount(amount_minor, currency).partition(" ")
    assert unit == currency
    assert parse_amount(number, currency) == amount_minor


@QUICK
@given(st.text(alphabet="0123456789.,-+e \u0661", max_size=20), st.sampled_from(CURRENCIES))
def test_any_text_is_an_amount_in_range_or_rejected(text: str, currency: str) -> None:
    try:
        amount_minor = parse_amount(text, currency)
    except ValueError:
        return
    assert 1 <= amount_minor <= MAX_AMOUNT_MINOR


@pytest.mark.parametrize("currency", ["EUR", "JPY", "XXX"])
def test_currencies_have_three_capital_letters(currency: str) -> None:
    assert _currency.validate_python(currency) == currency


@pytest.mark.parametrize("currency", ["", "EU", "EURO", "eur", "Eur", "E1R", " EUR", "EUR\n", "\u0395UR", "ÄÖÜ"])
def test_other_currencies_are_rejected(currency: str) -> None:
    with pytest.raises(ValidationError):
        _currency.validate_python(currency)


@pytest.mark.parametrize("amount", [1, 1000, MAX_AMOUNT_MINOR])
def test_amounts_are_positive_integers(amount: int) -> None:
    assert _positive_minor.validate_python(amount) == amount


@pytest.mark.parametrize("amount", [0, -1, MAX_AMOUNT_MINOR + 1, 1.0, 1.5, "1", True, None, float("nan")])
def test_other_amounts_are_rejected(amount: object) -> None:
    with pytest.raises(ValidationError):
        _positive_minor.validate_python(amount)
