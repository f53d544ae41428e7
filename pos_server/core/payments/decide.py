"""Decide a batch of operations: rows and a time go in, outcomes and changes come out.

A batch is decided in order, and each decision sees the ones before it. Two payments of one wallet in one batch cannot
spend the same money, two scans of one code cannot both succeed, and a cancel finds the scan that came before it.
"""

from collections.abc import Sequence

from ..credentials.device_keys import Keyring
from .batch import Batch
from .confirmations import decide_confirm, decide_expire, decide_reject
from .operations import Cancel, Confirm, CreateRefund, Expire, MoveCash, Operation, Outcome, Reject, Scan
from .reversals import decide_cancel, decide_refund
from .rules import Rules
from .scans import decide_move_cash, decide_scan
from .snapshot import Changeset, Snapshot


def decide(
    operations: Sequence[Operation],
    snapshot: Snapshot,
    keyring: Keyring,
    now_ms: int,
    rules: Rules,
    *,
    day_start_ms: int,
) -> tuple[list[Outcome], Changeset]:
    """Decide operations in order against `snapshot`, at the time `now_ms`.

    `day_start_ms` is the start of the business day; both are Unix milliseconds. Returns one outcome per operation, in
    the same order, and the changes to write for them. A scan's terminal must be in `snapshot.terminals`. No input from
    a customer or a terminal raises an exception.
    """
    batch = Batch(snapshot, keyring, now_ms, rules, day_start_ms)
    return [_decide(batch, operation) for operation in operations], batch.changes


def _decide(batch: Batch, operation: Operation) -> Outcome:
    match operation:
        case Scan():
            return decide_scan(batch, operation)
        case MoveCash():
            return decide_move_cash(batch, operation)
        case Confirm():
            return decide_confirm(batch, operation)
        case Reject():
            return decide_reject(batch, operation)
        case Cancel():
            return decide_cancel(batch, operation)
        case CreateRefund():
            return decide_refund(batch, operation)
        case Expire():
            return decide_expire(batch, operation)
