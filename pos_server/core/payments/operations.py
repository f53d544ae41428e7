"""What somebody wants done to a payment, and what came of it. Each is plain data: the engine batches them."""

from enum import StrEnum
from hashlib import sha256
from typing import Final
from uuid import UUID

from msgspec import Struct
from msgspec.structs import force_setattr

from ..credentials.device_keys import TERMINAL, WALLET, DeviceKind
from ..credentials.payment_code import PaymentCode, parse
from ..errors import ErrorCode
from ..records import repr_without
from .payment import SALE, Payment, Purpose, Refund
from .snapshot import Acceptor, Wallet


class Entry(StrEnum):
    """How a code got into the till. A typed one may have been coaxed out by phone, so it always needs the PIN."""

    SCANNED = "scanned"
    TYPED = "typed"


SCANNED: Final = Entry.SCANNED  # as in payments.py
TYPED: Final = Entry.TYPED


class Scan(Struct, frozen=True, gc=False):
    """A till's refund_request to be paid: one scanned code and one amount. `payment_id` is the idempotency key.

    `parsed_code` follows from `code`: None when that is none.
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
        """16 bytes that are equal for equal bodies: what tells a repeat from another payment with the same id."""
        # What is as ever is left out, so that what was stored before there was a choice is found again.
        unusual = "" if self.entry is SCANNED else f"{self.entry}\x1f"
        if self.purpose is not SALE:
            unusual += f"{self.purpose}\x1f"
        return _fingerprint(
            f"{unusual}{self.terminal_number}\x1f{self.merchant_id}\x1f{self.reference}\x1f{self.amount_minor}"
            f"\x1f{self.currency}\x1f{self.code}"
        )


class MoveCash(Struct, frozen=True, gc=False):
    """A back office tops a wallet up or pays it out, on its own word: no code, no PIN. `payment_id` as in a scan."""

    payment_id: UUID
    merchant_id: int
    wallet_number: int
    reference: str
    amount_minor: int
    currency: str
    purpose: Purpose

    @property
    def fingerprint(self) -> bytes:
        """As in a scan."""
        return _fingerprint(
            f"cash\x1f{self.merchant_id}\x1f{self.wallet_number}\x1f{self.reference}\x1f{self.amount_minor}"
            f"\x1f{self.currency}\x1f{self.purpose}"
        )


def _fingerprint(body: str) -> bytes:
    return sha256(body.encode()).digest()[:16]


class Confirm(Struct, frozen=True, gc=False):
    """A customer's PIN for a pending payment, already checked against the PIN of generation `pin_generation`.

    `version` is that of the payment which the customer saw. The payment has moved on when it is another one, so the
    same message sent twice counts a wrong PIN once.
    """

    payment_id: UUID
    wallet_number: int
    slot: int
    version: int
    pin_correct: bool
    pin_generation: int


class Reject(Struct, frozen=True, gc=False):
    """A customer does not want to pay."""

    payment_id: UUID
    wallet_number: int
    slot: int


class Cancel(Struct, frozen=True, gc=False):
    """A payment is taken back, by its id or else by its reference. One of the two is None.

    `terminal_number` is None for the API. `tombstone_id` names the tombstone of a reference that was never seen.
    """

    terminal_number: int | None
    merchant_id: int
    currency: str
    payment_id: UUID | None
    reference: str | None
    tombstone_id: UUID


class CreateRefund(Struct, frozen=True, gc=False):
    """Give some of a payment back. `terminal_number` is None for the API. `refund_id` is the idempotency key."""

    refund_id: UUID
    payment_id: UUID
    merchant_id: int
    terminal_number: int | None
    amount_minor: int


class Expire(Struct, frozen=True, gc=False):
    """The time for a PIN is over."""

    payment_id: UUID


Operation = Scan | MoveCash | Confirm | Reject | Cancel | CreateRefund | Expire


def named_by(operation: Operation) -> list[tuple[DeviceKind, int]]:
    """The till and the wallet that an operation names. Two that have one in common are decided one after the other."""
    match operation:
        case Scan():
            till, code = (TERMINAL, operation.terminal_number), operation.parsed_code
            return [till] if code is None else [till, (WALLET, code.wallet_number)]
        case MoveCash() | Confirm() | Reject():
            return [(WALLET, operation.wallet_number)]
        case Cancel(terminal_number=int(number)) | CreateRefund(terminal_number=int(number)):
            return [(TERMINAL, number)]
    return []


class Decided(Struct, frozen=True, gc=False):
    """What the payment is after the operation; `replayed` when it had been so before, and nothing was written.

    `wallet` is None when nobody's code was proved. `pin_tries_left` counts down while the payment is pending.
    """

    operation: Scan | MoveCash | Confirm | Reject | Cancel | Expire
    payment: Payment
    acceptor: Acceptor
    wallet: Wallet | None
    replayed: bool = False
    pin_tries_left: int = 0


class Refunded(Struct, frozen=True, gc=False):
    """A refund was made now, or had been before (`replayed`)."""

    operation: CreateRefund
    refund: Refund
    payment: Payment
    acceptor: Acceptor
    wallet: Wallet
    replayed: bool = False


class Refused(Struct, frozen=True, gc=False):
    """The operation was not carried out and nothing was stored; with UNKNOWN_OUTCOME it may have been."""

    operation: Operation
    code: ErrorCode


Outcome = Decided | Refunded | Refused
