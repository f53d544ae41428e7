"""A batch while it is decided, and how a decision stores the next version of a payment."""

from dataclasses import dataclass, field
from uuid import UUID

from msgspec.structs import replace

from ..credentials.device_keys import Keyring
from .operations import Cancel, Confirm, Decided, Expire, MoveCash, Reject, Scan
from .payment import OCCUPYING, PENDING, DeclineCode, Payment, Refund, Status
from .rules import Rules, pin_tries_left
from .snapshot import Acceptor, Changeset, OpenPayment, Snapshot, Transfer, Wallet, WalletDevice


@dataclass(slots=True)
class Batch:
    """A batch while it is decided: the rows as its decisions leave them, and all that has to be written for it.

    Every `put_…` writes to `snapshot` and to `changes`, so that both always say the same. Times are Unix milliseconds.
    """

    snapshot: Snapshot
    keyring: Keyring
    now_ms: int
    rules: Rules
    day_start_ms: int
    changes: Changeset = field(default_factory=Changeset)

    def put_payment(self, payment: Payment) -> None:
        """A new payment, or the next version of one."""
        before = self.snapshot.payments.get(payment.payment_id)
        self.changes.payment_versions.setdefault(payment.payment_id, before.version if before else 0)
        self.snapshot.payments[payment.payment_id] = self.changes.payments[payment.payment_id] = payment
        if payment.reference is None:
            return
        order = (payment.merchant_id, payment.reference)
        occupant = self.snapshot.open_payments.get(order)
        if payment.status in OCCUPYING:
            self.snapshot.open_payments[order] = OpenPayment(payment.payment_id, payment.status)
        elif occupant is not None and occupant.payment_id == payment.payment_id:
            del self.snapshot.open_payments[order]

    def acceptor_of(self, payment: Payment) -> Acceptor:
        """Where a payment was made."""
        if payment.terminal_number is None:
            return self.snapshot.back_offices[payment.merchant_id]
        return self.snapshot.terminals[payment.terminal_number]

    def join_shift(self, terminal_number: int | None) -> UUID | None:
        """The shift that is open at a till, for what is about to be added to it; None for a back office."""
        shift_id = None if terminal_number is None else self.snapshot.terminals[terminal_number].shift_id
        if terminal_number is not None and shift_id is not None:
            self.changes.shifts[terminal_number] = shift_id
        return shift_id

    def put_wallet(self, wallet: Wallet) -> None:
        """The next version of a wallet."""
        self.changes.wallet_versions.setdefault(wallet.number, self.snapshot.wallets[wallet.number].version)
        self.snapshot.wallets[wallet.number] = self.changes.wallets[wallet.number] = wallet

    def put_device(self, device: WalletDevice) -> None:
        """A device with a code spent."""
        key = (device.wallet_number, device.slot)
        self.snapshot.devices[key] = self.changes.devices[key] = device

    def put_refund(self, refund: Refund) -> None:
        """A new refund."""
        self.snapshot.refunds[refund.refund_id] = refund
        self.changes.refunds.append(refund)

    def post(self, transfer: Transfer) -> None:
        """Money moves."""
        self.changes.transfers.append(transfer)


def moved(
    batch: Batch,
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
        changed_at_ms=batch.now_ms,
    )
    batch.put_payment(payment)
    return decided(batch, operation, payment)


def unchanged(
    batch: Batch, operation: Scan | MoveCash | Confirm | Reject | Cancel | Expire, payment: Payment
) -> Decided:
    """A payment that the operation leaves as it is: the outcome says so."""
    return replace(decided(batch, operation, payment), replayed=True)


def decided(batch: Batch, operation: Scan | MoveCash | Confirm | Reject | Cancel | Expire, payment: Payment) -> Decided:
    """The outcome that shows a payment as it is now, with its till and its wallet."""
    wallet = None if payment.wallet_number is None else batch.snapshot.wallets.get(payment.wallet_number)
    tries_left = 0
    if payment.status is PENDING and wallet is not None:
        tries_left = pin_tries_left(payment, wallet, batch.rules, batch.now_ms)
    return Decided(operation, payment, batch.acceptor_of(payment), wallet, pin_tries_left=tries_left)
