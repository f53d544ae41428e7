"""Shifts at a terminal: totals by kind, expected cash, and the printed X-report and Z-report.

An X-report shows an open shift and can be repeated. The Z-report shows the shift at its close. The cash expected in the
drawer is

    opening cash + top-ups - canceled top-ups - withdrawals + canceled withdrawals

Sales are paid from wallets and bring no cash. An operation counts in the shift that is open at the terminal that
performs it: a refund of yesterday's sale belongs to today's shift.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from ..codes import DescribedCode
from ..money import format_amount
from ..texts import shift_text
from .receipt_layout import center_lines, justify_lines

REPORT_COLUMNS = 42


class TotalKind(DescribedCode):
    """Kinds of totals: payments and their reversals by purpose, then payments that were not approved."""

    SALE = "sale", "Approved sales."
    SALE_CANCEL = "sale_cancel", "Approved sales that this till canceled."
    REFUND = "refund", "Refunds that this till made."
    TOP_UP = "top_up", "Approved top-ups: cash in."
    TOP_UP_CANCEL = "top_up_cancel", "Approved top-ups that this till canceled: cash out."
    WITHDRAWAL = "withdrawal", "Approved withdrawals: cash out."
    WITHDRAWAL_CANCEL = "withdrawal_cancel", "Approved withdrawals that this till canceled: cash in."
    DECLINED = "declined", "Declined payments."
    EXPIRED = "expired", "Payments that expired."
    CANCELED = "canceled", "Payments that were canceled before approval."
    PENDING = "pending", "Payments that wait for a PIN. Never in a Z-report."


_NOT_PAID = (TotalKind.DECLINED, TotalKind.EXPIRED, TotalKind.CANCELED, TotalKind.PENDING)
_SALES_SIGNS = {TotalKind.SALE: 1, TotalKind.SALE_CANCEL: -1, TotalKind.REFUND: -1}
_CASH_SIGNS = {
    TotalKind.TOP_UP: 1,
    TotalKind.TOP_UP_CANCEL: -1,
    TotalKind.WITHDRAWAL: -1,
    TotalKind.WITHDRAWAL_CANCEL: 1,
}


@dataclass(frozen=True, slots=True)
class Total:
    """A number of operations and their sum in minor units."""

    count: int
    amount_minor: int


_ZERO = Total(0, 0)


@dataclass(frozen=True, slots=True)
class Shift:
    """A shift and its totals. `number` counts the shifts of the terminal; amounts are minor units of `currency`.

    Times are Unix milliseconds; `…_local` are the same times as text in the merchant's time zone. `totals` omits kinds
    that did not occur.
    """

    shift_id: UUID
    number: int
    terminal_number: int
    merchant_name: str
    store_name: str
    operator: str
    currency: str
    opening_cash_minor: int
    opened_at_ms: int
    closed_at_ms: int | None
    counted_cash_minor: int | None
    made_at_ms: int
    opened_local: str
    made_local: str
    totals: Mapping[TotalKind, Total] = field(default_factory=dict)

    @property
    def is_closed(self) -> bool:
        """True if the shift is closed and its report is final."""
        return self.closed_at_ms is not None

    @property
    def net_sales_minor(self) -> int:
        """Sales minus cancels and refunds."""
        return self._sum(_SALES_SIGNS)

    @property
    def expected_cash_minor(self) -> int:
        """The cash that should be in the drawer."""
        return self.opening_cash_minor + self._sum(_CASH_SIGNS)

    @property
    def cash_difference_minor(self) -> int | None:
        """Counted cash minus expected cash; None if no cash was counted."""
        return None if self.counted_cash_minor is None else self.counted_cash_minor - self.expected_cash_minor

    def total(self, kind: TotalKind) -> Total:
        """Return the total of one kind."""
        return self.totals.get(kind, _ZERO)

    def _sum(self, signs: Mapping[TotalKind, int]) -> int:
        return sum(sign * self.total(kind).amount_minor for kind, sign in signs.items())


def report_text(shift: Shift, language: str) -> str:
    """Return the report for a receipt printer, in lines of REPORT_COLUMNS columns; a CJK character takes two."""

    def label(key: str) -> str:
        return shift_text(language, key)

    def amount(amount_minor: int) -> str:
        return format_amount(amount_minor, shift.currency).partition(" ")[0]

    def total_lines(kind: TotalKind, sign: int) -> list[str]:
        total = shift.total(kind)
        return justify_lines(f"{total.count:>5} {label(kind)}", amount(sign * total.amount_minor), REPORT_COLUMNS)

    rule = "-" * REPORT_COLUMNS
    title = label("z_report" if shift.is_closed else "x_report")
    lines = [
        *center_lines(shift.merchant_name, REPORT_COLUMNS),
        *center_lines(shift.store_name, REPORT_COLUMNS),
        rule,
        *justify_lines(f"{title} {shift.number}", f"{label('terminal')} {shift.terminal_number}", REPORT_COLUMNS),
        *justify_lines(label("operator"), shift.operator, REPORT_COLUMNS),
        *justify_lines(label("opened"), shift.opened_local, REPORT_COLUMNS),
        *justify_lines(label("closed" if shift.is_closed else "as_of"), shift.made_local, REPORT_COLUMNS),
        *justify_lines(label("currency"), shift.currency, REPORT_COLUMNS),
        rule,
        *(line for kind, sign in _SALES_SIGNS.items() for line in total_lines(kind, sign)),
        *justify_lines(label("net_sales"), amount(shift.net_sales_minor), REPORT_COLUMNS),
        rule,
        *justify_lines(label("opening_cash"), amount(shift.opening_cash_minor), REPORT_COLUMNS),
        *(line for kind, sign in _CASH_SIGNS.items() for line in total_lines(kind, sign)),
        *justify_lines(label("expected_cash"), amount(shift.expected_cash_minor), REPORT_COLUMNS),
    ]
    if shift.counted_cash_minor is not None:
        lines += justify_lines(label("counted_cash"), amount(shift.counted_cash_minor), REPORT_COLUMNS)
    if shift.cash_difference_minor is not None:
        lines += justify_lines(label("difference"), amount(shift.cash_difference_minor), REPORT_COLUMNS)
    lines += [rule, label("not_paid")]
    lines += [line for kind in _NOT_PAID for line in total_lines(kind, 1)]
    return "\n".join(lines)
