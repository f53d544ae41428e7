"""A shift's totals and its printed report."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pos_server.core.accounting.receipt_layout import center_lines, columns, justify_lines
from pos_server.core.accounting.shifts import REPORT_COLUMNS, Shift, Total, TotalKind, report_text
from pos_server.core.texts import LANGUAGES, shift_text
from tests.copies import replace

SHIFT = Shift(
    shift_id=UUID(int=1),
    number=17,
    terminal_number=1001,
    merchant_name="Corner Canteen",
    store_name="Main hall",
    operator="Alice",
    currency="EUR",
    opening_cash_minor=10_000,
    opened_at_ms=1_800_000_000_000,
    closed_at_ms=None,
    counted_cash_minor=None,
    made_at_ms=1_800_000_100_000,
    opened_local="2027-01-15 09:00",
    made_local="2027-01-15 09:02",
)
ONE_OF_EACH = {kind: Total(1, 10**position) for position, kind in enumerate(TotalKind)}


def test_an_empty_shift() -> None:
    assert (SHIFT.net_sales_minor, SHIFT.expected_cash_minor, SHIFT.cash_difference_minor) == (0, 10_000, None)
    assert SHIFT.total(TotalKind.SALE) == Total(0, 0)


def test_totals_by_kind() -> None:
    shift = replace(SHIFT, totals=ONE_OF_EACH, counted_cash_minor=0)
    assert shift.net_sales_minor == 1 - 10 - 100
    assert shift.expected_cash_minor == 10_000 + 1_000 - 10_000 - 100_000 + 1_000_000
    assert shift.cash_difference_minor == -shift.expected_cash_minor


def test_an_open_shift_prints_its_report_time_and_no_count() -> None:
    text = report_text(SHIFT, "en")
    assert "X-REPORT 17                  Terminal 1001" in text
    assert "As of                     2027-01-15 09:02" in text
    assert "Counted cash" not in text
    assert "DIFFERENCE" not in text
    closed = report_text(replace(SHIFT, closed_at_ms=1, counted_cash_minor=9_950), "en")
    assert "Z-REPORT 17                  Terminal 1001" in closed
    assert "DIFFERENCE                           -0.50" in closed


def test_a_currency_without_decimals() -> None:
    totals = {TotalKind.SALE: Total(2, 1_500), TotalKind.SALE_CANCEL: Total(1, 50)}
    shift = replace(SHIFT, currency="JPY", totals=totals)
    lines = report_text(shift, "en").split("\n")
    assert f"{'    2 Sales':<38}1500" in lines
    assert f"{'    1 Canceled sales':<39}-50" in lines


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_label_has_a_text(language: str) -> None:
    lines = report_text(replace(SHIFT, closed_at_ms=1, counted_cash_minor=1), language)
    for kind in TotalKind:
        assert shift_text(language, kind) in lines


@given(
    language=st.sampled_from(sorted(LANGUAGES)),
    names=st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=80), min_size=3, max_size=3),
    amount=st.integers(0, 2**63),
)
def test_no_line_is_too_wide(language: str, names: list[str], amount: int) -> None:
    merchant, store, operator = names
    shift = replace(
        SHIFT,
        merchant_name=merchant,
        store_name=store,
        operator=operator or "A",
        opening_cash_minor=amount,
        totals={kind: Total(amount, amount) for kind in TotalKind},
    )
    for line in report_text(shift, language).split("\n"):
        assert columns(line) <= REPORT_COLUMNS


@pytest.mark.parametrize(
    ("left", "right", "lines"),
    [
        ("Sales", "9.00", ["Sales 9.00"]),
        ("Sales", "19.00", ["Sales", "     19.00"]),
        ("\u9500\u552e", "9.00", ["\u9500\u552e  9.00"]),
        ("", "", [" " * 10]),
        ("a" * 12, "b", ["a" * 10, "aa", "         b"]),
    ],
)
def test_justify_lines(left: str, right: str, lines: list[str]) -> None:
    assert justify_lines(left, right, 10) == lines


def test_center_lines() -> None:
    assert center_lines("abcd", 10) == ["   abcd"]
    assert center_lines("\u5e97\u5e97", 10) == ["   \u5e97\u5e97"]
    assert center_lines("", 10) == []
    assert center_lines("a" * 12, 10) == ["a" * 10, "    aa"]
