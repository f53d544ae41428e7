"""A payment and its life: what it may become, why it may be declined, and what hangs on it.

    (none) ──► pending ──► approved ──► canceled
      ├──► approved ├──► declined
      ├──► declined ├──► canceled
      └──► canceled └──► expired        a tombstone is `canceled` before it was ever scanned; a scan that comes late
                                        turns it into `declined`

docs/payments.md draws the same; a test holds it against TRANSITIONS.
"""

from enum import StrEnum
from typing import Final
from uuid import UUID

from msgspec import Struct

from ..records import repr_without


class Status(StrEnum):
    """`pending` waits for the customer's PIN; every other status is an outcome."""

    PENDING = "pending"
    APPROVED = "approved"
    DECLINED = "declined"
    CANCELED = "canceled"
    EXPIRED = "expired"


TRANSITIONS: dict[Status | None, frozenset[Status]] = {
    None: frozenset({Status.PENDING, Status.APPROVED, Status.DECLINED, Status.CANCELED}),
    Status.PENDING: frozenset({Status.APPROVED, Status.DECLINED, Status.CANCELED, Status.EXPIRED}),
    Status.APPROVED: frozenset({Status.CANCELED}),
    Status.DECLINED: frozenset(),
    # Only of a tombstone: see Payment.is_tombstone.
    Status.CANCELED: frozenset({Status.DECLINED}),
    Status.EXPIRED: frozenset(),
}


class Purpose(StrEnum):
    """What the money is for. At the till the customer pays, or hands over cash, or takes cash out."""

    SALE = "sale"
    TOP_UP = "top_up"
    WITHDRAWAL = "withdrawal"


# The members by themselves, for what asks every payment dozens of times: Python 3.11 takes 600 instructions to find one
# as its class's attribute, and 20 to find it here.
PENDING: Final = Status.PENDING
APPROVED: Final = Status.APPROVED
DECLINED: Final = Status.DECLINED
CANCELED: Final = Status.CANCELED
EXPIRED: Final = Status.EXPIRED
SALE: Final = Purpose.SALE
TOP_UP: Final = Purpose.TOP_UP
WITHDRAWAL: Final = Purpose.WITHDRAWAL

# At most one payment of a merchant's reference may be in one of these: a paid, pending or canceled order is closed.
OCCUPYING = frozenset({Status.PENDING, Status.APPROVED, Status.CANCELED})


class DeclineCode(StrEnum):
    """Why a payment was declined, in order of precedence: the first that applies is given."""

    TERMINAL_DISABLED = "terminal_disabled"
    MERCHANT_INACTIVE = "merchant_inactive"
    CODE_MALFORMED = "code_malformed"
    CODE_INVALID = "code_invalid"
    CODE_EXPIRED = "code_expired"
    CODE_USED = "code_used"
    CANCELED = "canceled"
    ALREADY_PAID = "already_paid"
    ALREADY_PENDING = "already_pending"
    WALLET_FROZEN = "wallet_frozen"
    WALLET_CLOSED = "wallet_closed"
    CURRENCY_MISMATCH = "currency_mismatch"
    AMOUNT_OVER_LIMIT = "amount_over_limit"
    DAILY_LIMIT = "daily_limit"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    BALANCE_LIMIT = "balance_limit"
    RISK_REJECTED = "risk_rejected"
    # After a PIN step.
    PIN_WRONG = "pin_wrong"
    PIN_LOCKED = "pin_locked"
    CUSTOMER_REJECTED = "customer_rejected"


class Payment(Struct, frozen=True, gc=False):
    """A payment as it is stored. Times are Unix milliseconds; amounts minor units of `currency`.

    `terminal_number` is None for what a back office did through the API. `fee_minor` is what the merchant pays for it.
    A tombstone stands for a payment that was canceled before it was scanned: it has no fingerprint, amount 0, and a
    reference only if it was canceled by it. `wallet_number` is None until a code has proved whose it is.
    `pin_failures` counts wrong PINs for this payment. `shift_id` is the shift that was open at its till when it was
    scanned, `canceled_shift_id` the one at the till that canceled it after it was approved; None where none was.
    """

    payment_id: UUID
    fingerprint: bytes | None
    terminal_number: int | None
    merchant_id: int
    wallet_number: int | None
    reference: str | None
    amount_minor: int
    currency: str
    status: Status
    decline_code: DeclineCode | None
    paid_by: UUID | None
    version: int
    changed_at_ms: int
    approved_at_ms: int | None = None
    expires_at_ms: int | None = None
    pin_failures: int = 0
    refunded_minor: int = 0
    refunds: int = 0
    purpose: Purpose = Purpose.SALE
    fee_minor: int = 0
    shift_id: UUID | None = None
    canceled_shift_id: UUID | None = None

    __repr__ = repr_without("fingerprint")

    @property
    def is_tombstone(self) -> bool:
        """Whether it was canceled before it was scanned."""
        return self.fingerprint is None

    @property
    def refundable_minor(self) -> int:
        """What may still be refunded."""
        is_refundable = self.status is Status.APPROVED and self.purpose is Purpose.SALE
        return self.amount_minor - self.refunded_minor if is_refundable else 0


class Refund(Struct, frozen=True, gc=False):
    """Money given back on an approved payment. `terminal_number` is None when it came through the API.

    `shift_id` is the shift that was open at the till which asked for it.
    """

    refund_id: UUID
    payment_id: UUID
    merchant_id: int
    terminal_number: int | None
    wallet_number: int
    amount_minor: int
    currency: str
    created_at_ms: int
    shift_id: UUID | None = None
