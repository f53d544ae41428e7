"""What an operator did at a till: a shift, its sums by kind, and the report that is printed from them.

An X-report shows a shift that is open, as often as one likes; the Z-report is that of the shift when it was closed.
The cash that is expected in the drawer:

    opening cash + top-ups - top-ups taken back - withdrawals + withdrawals taken back

Sales are paid from wallets, so they bring no cash. What was done to a payment counts in the shift that is open at the
till that did it: a refund of yesterday's sale belongs to today's shift.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from ..money import format_amount
from ..texts import shift_text
from .receipt_layout import fitted, spread

REPORT_COLUMNS = 42


class TotalKind(StrEnum):
    """What is counted: payments by their purpose and what was taken back of them, then those that were not paid."""

    SALE = "sale"
    SALE_CANCEL = "sale_cancel"
    REFUND = "refund"
    TOP_UP = "top_up"
    TOP_UP_CANCEL = "top_up_cancel"
    WITHDRAWAL = "withdrawal"
    WITHDRAWAL_CANCEL = "withdrawal_cancel"
    DECLINED = "declined"
    EXPIRED = "expired"
    # Before it was approved.
    CANCELED = "canceled"
    PENDING = "pending"


_NOT_PAID = (TotalKind.DECLINED, TotalKind.EXPIRED, TotalKind.CANCELED, TotalKind.PENDING)
_OF_SALES = {TotalKind.SALE: 1, TotalKind.SALE_CANCEL: -1, TotalKind.REFUND: -1}
_OF_CASH = {
    TotalKind.TOP_UP: 1,
    TotalKind.TOP_UP_CANCEL: -1,
    TotalKind.WITHDRAWAL: -1,
    TotalKind.WITHDRAWAL_CANCEL: 1,
}


@dataclass(frozen=True, slots=True)
class Total:
    """How many, and how much in minor units."""

    count: int
    amount_minor: int


_NONE = Total(0, 0)


@dataclass(frozen=True, slots=True)
class Shift:
    """A shift as it is. `number` counts those of the terminal; amounts are minor units of `currency`.

    Times are Unix milliseconds, and the `…_local` ones as people at the till read them. `totals` leaves out what did
    not happen.
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
        """Whether its report is final."""
        return self.closed_at_ms is not None

    @property
    def net_sales_minor(self) -> int:
        """Sales less what was taken back and refunded."""
        return self._sum(_OF_SALES)

    @property
    def expected_cash_minor(self) -> int:
        """What should be in the drawer."""
        return self.opening_cash_minor + self._sum(_OF_CASH)

    @property
    def cash_difference_minor(self) -> int | None:
        """What was counted less what was expected; None when nobody counted."""
        return None if self.counted_cash_minor is None else self.counted_cash_minor - self.expected_cash_minor

    def total(self, kind: TotalKind) -> Total:
        """Of one kind."""
        return self.totals.get(kind, _NONE)

    def _sum(self, signs: Mapping[TotalKind, int]) -> int:
        return sum(sign * self.total(kind).amount_minor for kind, sign in signs.items())


def report_text(shift: Shift, language: str) -> str:
    """The report for a receipt printer: lines of at most REPORT_COLUMNS columns, where a CJK character takes two."""

    def label(key: str) -> str:
        return shift_text(language, key)

    def amount(amount_minor: int) -> str:
        return format_amount(amount_minor, shift.currency).partition(" ")[0]

    def counted(kind: TotalKind, sign: int) -> list[str]:
        total = shift.total(kind)
        return spread(f"{total.count:>5} {label(kind)}", amount(sign * total.amount_minor), REPORT_COLUMNS)

    rule = "-" * REPORT_COLUMNS
    title = label("z_report" if shift.is_closed else "x_report")
    lines = [
        *fitted(shift.merchant_name, REPORT_COLUMNS),
        *fitted(shift.store_name, REPORT_COLUMNS),
        rule,
        *spread(f"{title} {shift.number}", f"{label('terminal')} {shift.terminal_number}", REPORT_COLUMNS),
        *spread(label("operator"), shift.operator, REPORT_COLUMNS),
        *spread(label("opened"), shift.opened_local, REPORT_COLUMNS),
        *spread(label("closed" if shift.is_closed else "as_of"), shift.made_local, REPORT_COLUMNS),
        *spread(label("currency"), shift.currency, REPORT_COLUMNS),
        rule,
        *(line for kind, sign in _OF_SALES.items() for line in counted(kind, sign)),
        *spread(label("net_sales"), amount(shift.net_sales_minor), REPORT_COLUMNS),
        rule,
        *spread(label("opening_cash"), amount(shift.opening_cash_minor), REPORT_COLUMNS),
        *(line for kind, sign in _OF_CASH.items() for line in counted(kind, sign)),
        *spread(label("expected_cash"), amount(shift.expected_cash_minor), REPORT_COLUMNS),
    ]
    if shift.counted_cash_minor is not None:
        lines += spread(label("counted_cash"), amount(shift.counted_cash_minor), REPORT_COLUMNS)
    if shift.cash_difference_minor is not None:
        lines += spread(label("difference"), amount(shift.cash_difference_minor), REPORT_COLUMNS)
    lines += [rule, label("not_paid")]
    lines += [line for kind in _NOT_PAID for line in counted(kind, 1)]
    return "\n".join(lines)
