"""Operations on payments, and their outcomes. Both are plain data; the engine collects operations into batches."""

from enum import StrEnum
from hashlib import sha256
from typing import Final
from uuid import UUID

from msgspec import Struct
from msgspec.structs import force_setattr

from ..credentials.device_keys import TERMINAL, WALLET, DeviceKind
from ..credentials.payment_code import PaymentCode, parse
from ..errors import ErrorCode
from ..hidden_fields import repr_without
from .payment import SALE, Payment, Purpose, Refund
from .snapshot import Acceptor, Wallet


class Entry(StrEnum):
    """Entry method of a code. A typed code always needs the PIN: a fraudster may have obtained it by phone."""

    SCANNED = "scanned"
    TYPED = "typed"


# Module-level aliases are faster to look up than enum attributes (see payment.py).
SCANNED: Final = Entry.SCANNED
TYPED: Final = Entry.TYPED


class Scan(Struct, frozen=True, gc=False):
    """A payment request from a terminal: a scanned code and an amount. `payment_id` is the idempotency key.

    Ids of payments and refunds are unique per merchant, so every operation names the merchant.
    `parsed_code` is derived from `code`; None if the code is malformed.
    """

    payment_id: UUID
    terminal_number: int
    merchant_id: int
    reference: str
    amount_minor: int
    currency: str
    code: str
    entry: Entry = Entry.SCANNED
    purpose: Purpose = SALE
    parsed_code: PaymentCode | None = None

    __repr__ = repr_without("code", "parsed_code")

    def __post_init__(self) -> None:
        force_setattr(self, "parsed_code", parse(self.code))

    @property
    def fingerprint(self) -> bytes:
        """16 bytes that are equal for equal requests: they distinguish a repeat from a reused `payment_id`."""
        # Default values are omitted, so that fingerprints stored before these fields existed still match.
        non_defaults = "" if self.entry is SCANNED else f"{self.entry}\x1f"
        if self.purpose is not SALE:
            non_defaults += f"{self.purpose}\x1f"
        return _fingerprint(
            f"{non_defaults}{self.terminal_number}\x1f{self.merchant_id}\x1f{self.reference}\x1f{self.amount_minor}"
            f"\x1f{self.currency}\x1f{self.code}"
        )


class MoveCash(Struct, frozen=True, gc=False):
    """A top-up or withdrawal by a back office, without code and PIN. `payment_id` is the idempotency key."""

    payment_id: UUID
    merchant_id: int
    wallet_number: int
    reference: str
    amount_minor: int
    currency: str
    purpose: Purpose

    @property
    def fingerprint(self) -> bytes:
        """16 bytes that are equal for equal requests, as for a scan."""
        return _fingerprint(
            f"cash\x1f{self.merchant_id}\x1f{self.wallet_number}\x1f{self.reference}\x1f{self.amount_minor}"
            f"\x1f{self.currency}\x1f{self.purpose}"
        )


def _fingerprint(body: str) -> bytes:
    return sha256(body.encode()).digest()[:16]


class Confirm(Struct, frozen=True, gc=False):
    """A customer's PIN for a pending payment, already checked against the PIN of generation `pin_generation`.

    `merchant_id` is the payment's merchant. `version` is the payment's version that the customer saw. A confirmation of
    another version changes nothing, so the same message sent twice counts a wrong PIN only once.
    """

    payment_id: UUID
    merchant_id: int
    wallet_number: int
    slot: int
    version: int
    pin_correct: bool
    pin_generation: int


class Reject(Struct, frozen=True, gc=False):
    """A customer's rejection of a pending payment."""

    payment_id: UUID
    merchant_id: int
    wallet_number: int
    slot: int


class Cancel(Struct, frozen=True, gc=False):
    """A request to cancel a payment, identified by `payment_id` or by `reference`; the other is None.

    `terminal_number` is None for a back office. `tombstone_id` is the id for the tombstone of an unknown reference.
    """

    terminal_number: int | None
    merchant_id: int
    currency: str
    payment_id: UUID | None
    reference: str | None
    tombstone_id: UUID


class CreateRefund(Struct, frozen=True, gc=False):
    """A request to refund part of a payment. `refund_id` is the idempotency key.

    `terminal_number` is None for a back office.
    """

    refund_id: UUID
    payment_id: UUID
    merchant_id: int
    terminal_number: int | None
    amount_minor: int


class Expire(Struct, frozen=True, gc=False):
    """The end of a payment's time for the PIN."""

    payment_id: UUID
    merchant_id: int


Operation = Scan | MoveCash | Confirm | Reject | Cancel | CreateRefund | Expire


def involved_parties(operation: Operation) -> list[tuple[DeviceKind, int]]:
    """Return the terminal and the wallet of an operation. Operations that share one are decided one after another."""
    match operation:
        case Scan():
            terminal, code = (TERMINAL, operation.terminal_number), operation.parsed_code
            return [terminal] if code is None else [terminal, (WALLET, code.wallet_number)]
        case MoveCash() | Confirm() | Reject():
            return [(WALLET, operation.wallet_number)]
        case Cancel(terminal_number=int(number)) | CreateRefund(terminal_number=int(number)):
            return [(TERMINAL, number)]
    return []


class Decided(Struct, frozen=True, gc=False):
    """The payment's state after an operation; `replayed` if the operation changed nothing.

    `wallet` is None if no code was verified. `pin_tries_left` counts down while the payment is pending.
    """

    operation: Scan | MoveCash | Confirm | Reject | Cancel | Expire
    payment: Payment
    acceptor: Acceptor
    wallet: Wallet | None
    replayed: bool = False
    pin_tries_left: int = 0


class Refunded(Struct, frozen=True, gc=False):
    """A refund, made by this operation or by an earlier one with the same id (`replayed`)."""

    operation: CreateRefund
    refund: Refund
    payment: Payment
    acceptor: Acceptor
    wallet: Wallet
    replayed: bool = False


class Refused(Struct, frozen=True, gc=False):
    """A rejected operation: nothing was stored. With UNKNOWN_OUTCOME the operation may have taken effect."""

    operation: Operation
    code: ErrorCode


Outcome = Decided | Refunded | Refused
