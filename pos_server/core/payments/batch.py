"""One batch at work: what its decisions share, and how each of them leaves a payment behind."""

from dataclasses import dataclass

from msgspec.structs import replace

from ..credentials.device_keys import Keyring
from .operations import Cancel, Confirm, Decided, Expire, MoveCash, Reject, Scan
from .payment import PENDING, DeclineCode, Payment, Status
from .rules import Rules, pin_tries_left
from .snapshot import Book, Entries


@dataclass(frozen=True, slots=True)
class Desk:
    """The rows of a batch as its decisions leave them (`book`), the time and the rules. Times are Unix milliseconds."""

    book: Book
    entries: Entries
    keyring: Keyring
    now_ms: int
    rules: Rules
    day_start_ms: int


def moved(
    desk: Desk,
    operation: Confirm | Reject | Cancel | Expire,
    payment: Payment,
    status: Status,
    decline: DeclineCode | None = None,
) -> Decided:
    """The next version of a payment: stored, and the outcome of the operation."""
    payment = replace(
        payment,
        status=status,
        decline_code=decline,
        version=payment.version + 1,
        changed_at_ms=desk.now_ms,
    )
    desk.entries.put_payment(payment)
    return decided(desk, operation, payment)


def unchanged(desk: Desk, operation: Scan | MoveCash | Confirm | Reject | Cancel | Expire, payment: Payment) -> Decided:
    """A payment that the operation leaves as it is: the outcome says so."""
    return replace(decided(desk, operation, payment), replayed=True)


def decided(desk: Desk, operation: Scan | MoveCash | Confirm | Reject | Cancel | Expire, payment: Payment) -> Decided:
    """The outcome that shows a payment as it is now, with its till and its wallet."""
    wallet = None if payment.wallet_number is None else desk.book.wallets.get(payment.wallet_number)
    tries_left = 0
    if payment.status is PENDING and wallet is not None:
        tries_left = pin_tries_left(payment, wallet, desk.rules, desk.now_ms)
    return Decided(operation, payment, desk.entries.till_of(payment), wallet, pin_tries_left=tries_left)
