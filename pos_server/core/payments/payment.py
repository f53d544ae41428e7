"""Payments and refunds: records, statuses and transitions.

    (none) ──► pending ──► approved ──► canceled
      ├──► approved ├──► declined
      ├──► declined ├──► canceled
      └──► canceled └──► expired        a tombstone is a payment canceled before its scan; the late scan
                                        changes it to `declined`

docs/payments.md has the same diagram; a test compares it with TRANSITIONS.
"""

from enum import StrEnum
from typing import Final
from uuid import UUID

from msgspec import Struct

from ..hidden_fields import repr_without
from .declines import DeclineCode


class Status(StrEnum):
    """Status of a payment. A pending payment waits for the customer's PIN; every other status is an outcome."""

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
    Status.CANCELED: frozenset({Status.DECLINED}),  # only for a tombstone, see Payment.is_tombstone
    Status.EXPIRED: frozenset(),
}


class Purpose(StrEnum):
    """Purpose of a payment: a sale, cash paid into a wallet, or cash paid out of it."""

    SALE = "sale"
    TOP_UP = "top_up"
    WITHDRAWAL = "withdrawal"


# Module-level aliases for code that runs dozens of times per payment: Python 3.11 takes 600 CPU instructions to look up
# an enum member as a class attribute, and 20 to look up a module global.
PENDING: Final = Status.PENDING
APPROVED: Final = Status.APPROVED
DECLINED: Final = Status.DECLINED
CANCELED: Final = Status.CANCELED
EXPIRED: Final = Status.EXPIRED
SALE: Final = Purpose.SALE
TOP_UP: Final = Purpose.TOP_UP
WITHDRAWAL: Final = Purpose.WITHDRAWAL

# At most one payment per merchant and reference may have one of these statuses, which close the order.
OCCUPYING = frozenset({Status.PENDING, Status.APPROVED, Status.CANCELED})

MerchantKey = tuple[int, UUID]
"""The key of a payment or a refund: merchant_id and id. Two merchants may use the same id for two payments."""


class Payment(Struct, frozen=True, gc=False):
    """A stored payment. Times are Unix milliseconds; amounts are minor units of `currency`.

    - `payment_id`: unique per merchant.
    - `terminal_number`: None for a payment by a back office.
    - `wallet_number`: None until a verified code identifies the wallet.
    - `paid_by`: after a decline ALREADY_PAID or ALREADY_PENDING, the merchant's payment that occupies the reference.
    - `fee_minor`: fee paid by the merchant.
    - `pin_failures`: wrong PINs for this payment.
    - `shift_id`: shift that was open at the terminal during the scan; None without a shift.
    - `canceled_shift_id`: shift that was open at the terminal which canceled the approved payment.

    A tombstone stands for a payment that was canceled before its scan. It has no fingerprint, the amount 0, and a
    reference only if it was canceled by reference.
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
    def key(self) -> MerchantKey:
        """The payment's key among the payments of all merchants."""
        return self.merchant_id, self.payment_id

    @property
    def is_tombstone(self) -> bool:
        """True if the payment was canceled before its scan."""
        return self.fingerprint is None

    @property
    def refundable_minor(self) -> int:
        """The amount that can still be refunded."""
        is_refundable = self.status is Status.APPROVED and self.purpose is Purpose.SALE
        return self.amount_minor - self.refunded_minor if is_refundable else 0


class Refund(Struct, frozen=True, gc=False):
    """A refund of part of an approved payment. `terminal_number` is None for a refund by a back office.

    `refund_id` is unique per merchant. `shift_id` is the shift that was open at the terminal which requested it.
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

    @property
    def key(self) -> MerchantKey:
        """The refund's key among the refunds of all merchants."""
        return self.merchant_id, self.refund_id
