"""Which operations leave a batch after another server's commit has undone its write.

The others are decided at once. Those that leave are decided apart from them, so that one wallet that two servers fight
over delays nobody else.
"""

from collections.abc import Hashable, Sequence

from ..credentials.device_keys import TERMINAL, WALLET
from .operations import Operation, involved_parties
from .payment import OCCUPYING
from .snapshot import Changeset, Snapshot


def contested(operations: Sequence[Operation], lost: Changeset, fresh: Snapshot) -> list[int]:
    """Return the positions of the operations that leave: those on rows that have changed, and all that depend on them.

    `lost` are the changes that were not written, and `fresh` the rows loaded afterwards. A later operation that shares
    a terminal, a wallet, a payment or an order with one that leaves must not overtake it, so it leaves too.
    """
    changed = _changed_rows(lost, fresh)
    leaving = []
    for position, operation in enumerate(operations):
        rows = _rows(operation, lost, fresh)
        if not changed.isdisjoint(rows):
            changed |= rows
            leaving.append(position)
    return leaving


def _changed_rows(lost: Changeset, fresh: Snapshot) -> set[Hashable]:
    changed: set[Hashable] = set()
    for number, version in lost.wallet_versions.items():
        wallet = fresh.wallets.get(number)
        if wallet is None or wallet.version != version:
            changed.add((WALLET, number))
    for key, version in lost.payment_versions.items():
        stored = fresh.payments.get(key)
        if key in fresh.archived or (0 if stored is None else stored.version) != version:
            changed.add(("payment", key))
        payment = lost.payments[key]
        occupant = fresh.open_payments.get((payment.merchant_id, payment.reference or ""))
        if payment.status in OCCUPYING and occupant is not None and occupant.payment_id != payment.payment_id:
            changed.add(("order", payment.merchant_id, payment.reference))
    for refund in lost.refunds:
        if refund.key in fresh.refunds or refund.key in fresh.archived_refunds:
            changed.add(("refund", refund.key))
    for number, shift_id in lost.shifts.items():
        terminal = fresh.terminals.get(number)
        if terminal is None or terminal.shift_id != shift_id:
            changed.add((TERMINAL, number))
    return changed


def _rows(operation: Operation, lost: Changeset, fresh: Snapshot) -> set[Hashable]:
    """Return the rows that an operation depends on, as the changeset and the snapshot tell."""
    rows: set[Hashable] = set(involved_parties(operation))
    reference = getattr(operation, "reference", None)
    payment_id = operation.payment_id
    if reference is not None:
        rows.add(("order", operation.merchant_id, reference))
        occupant = fresh.open_payments.get((operation.merchant_id, reference))
        if payment_id is None and occupant is not None:
            payment_id = occupant.payment_id
    refund_id = getattr(operation, "refund_id", None)
    if refund_id is not None:
        rows.add(("refund", (operation.merchant_id, refund_id)))
    if payment_id is not None:
        key = operation.merchant_id, payment_id
        rows.add(("payment", key))
        for payment in (fresh.payments.get(key), lost.payments.get(key)):
            if payment is not None:
                rows.add((WALLET, payment.wallet_number))
                if payment.reference is not None:
                    rows.add(("order", payment.merchant_id, payment.reference))
    return rows
