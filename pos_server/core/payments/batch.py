"""A batch during its decision, and the steps that decisions share."""

from dataclasses import dataclass, field
from uuid import UUID

from msgspec.structs import replace

from ..credentials.device_keys import Keyring
from .declines import DeclineCode
from .operations import Cancel, Confirm, Decided, Expire, MoveCash, Reject, Scan
from .payment import OCCUPYING, PENDING, Payment, Refund, Status
from .rules import Rules, pin_tries_left
from .snapshot import Acceptor, Changeset, OpenPayment, Snapshot, Transfer, Wallet, WalletDevice


@dataclass(slots=True)
class Batch:
    """A batch during its decision: the rows as the decisions so far leave them, and the changes to write.

    Each `put_…` writes to both `snapshot` and `changes`, so that they always agree. Times are Unix milliseconds.
    """

    snapshot: Snapshot
    keyring: Keyring
    now_ms: int
    rules: Rules
    day_start_ms: int
    changes: Changeset = field(default_factory=Changeset)

    def put_payment(self, payment: Payment) -> None:
        """Store a new payment, or the next version of one."""
        key = payment.key
        previous = self.snapshot.payments.get(key)
        self.changes.payment_versions.setdefault(key, previous.version if previous else 0)
        self.snapshot.payments[key] = self.changes.payments[key] = payment
        if payment.reference is None:
            return
        order = (payment.merchant_id, payment.reference)
        occupant = self.snapshot.open_payments.get(order)
        if payment.status in OCCUPYING:
            self.snapshot.open_payments[order] = OpenPayment(payment.payment_id, payment.status)
        elif occupant is not None and occupant.payment_id == payment.payment_id:
            del self.snapshot.open_payments[order]

    def acceptor_of(self, payment: Payment) -> Acceptor:
        """Return the terminal or back office that made a payment."""
        if payment.terminal_number is None:
            return self.snapshot.back_offices[payment.merchant_id]
        return self.snapshot.terminals[payment.terminal_number]

    def join_shift(self, terminal_number: int | None) -> UUID | None:
        """Add the current operation to the terminal's open shift and return the shift's id.

        Returns None for a back office and for a terminal without an open shift.
        """
        shift_id = None if terminal_number is None else self.snapshot.terminals[terminal_number].shift_id
        if terminal_number is not None and shift_id is not None:
            self.changes.shifts[terminal_number] = shift_id
        return shift_id

    def put_wallet(self, wallet: Wallet) -> None:
        """Store the next version of a wallet."""
        self.changes.wallet_versions.setdefault(wallet.number, self.snapshot.wallets[wallet.number].version)
        self.snapshot.wallets[wallet.number] = self.changes.wallets[wallet.number] = wallet

    def put_device(self, device: WalletDevice) -> None:
        """Store a device whose code was spent."""
        key = (device.wallet_number, device.slot)
        self.snapshot.devices[key] = self.changes.devices[key] = device

    def put_refund(self, refund: Refund) -> None:
        """Store a new refund."""
        self.snapshot.refunds[refund.key] = refund
        self.changes.refunds.append(refund)

    def post(self, transfer: Transfer) -> None:
        """Store a new transfer."""
        self.changes.transfers.append(transfer)


def change_status(
    batch: Batch,
    operation: Confirm | Reject | Cancel | Expire,
    payment: Payment,
    status: Status,
    decline: DeclineCode | None = None,
) -> Decided:
    """Store the next version of a payment, with a new status; return the operation's outcome."""
    payment = replace(
        payment,
        status=status,
        decline_code=decline,
        version=payment.version + 1,
        changed_at_ms=batch.now_ms,
    )
    batch.put_payment(payment)
    return decided_outcome(batch, operation, payment)


def replayed_outcome(
    batch: Batch, operation: Scan | MoveCash | Confirm | Reject | Cancel | Expire, payment: Payment
) -> Decided:
    """Return the outcome of an operation that leaves the payment unchanged."""
    return replace(decided_outcome(batch, operation, payment), replayed=True)


def decided_outcome(
    batch: Batch, operation: Scan | MoveCash | Confirm | Reject | Cancel | Expire, payment: Payment
) -> Decided:
    """Return an outcome with the payment's current state, its acceptor and its wallet."""
    wallet = None if payment.wallet_number is None else batch.snapshot.wallets.get(payment.wallet_number)
    tries_left = 0
    if payment.status is PENDING and wallet is not None:
        tries_left = pin_tries_left(payment, wallet, batch.rules, batch.now_ms)
    return Decided(operation, payment, batch.acceptor_of(payment), wallet, pin_tries_left=tries_left)
