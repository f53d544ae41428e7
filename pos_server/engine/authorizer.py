"""The queue and the lanes of the batch engine. How they work together: see the docstring of the package."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import asyncpg
import structlog
from msgspec import Struct

from ..core.credentials.device_keys import DeviceKind, Keyring
from ..core.errors import ErrorCode, PosError
from ..core.payments.decide import decide
from ..core.payments.operations import Decided, Operation, Outcome, Refunded, Refused, involved_parties
from ..core.payments.rules import Rules
from ..core.protocol.notices import asker_of
from ..ledger.durability import confirm_durable
from ..ledger.failures import DATABASE_ERRORS, Action, Failure, Phase, classify, report
from ..ledger.payments import HouseAccounts, apply_changes, load_snapshot, warm_up
from ..limits import AuthorizerLimits
from .batch_record import BatchRecord, Watch
from .lane import Lane

log = structlog.get_logger(__name__)

_RETRY_PAUSE_S = 0.05
# With fewer waiting operations, splitting them between the lanes costs more than one lane waiting for the other.
_WORTH_A_BATCH = 50
# Longest pause of a lane after a failure: while all lanes pause, no payment moves.
LANE_PAUSE_S_MAX = 1.0


class Submission(Struct):
    """An operation in the queue.

    - `reply_to`: `message_id` of the request, returned with the outcome.
    - `deadline_s`: time of `time.monotonic` at which the operation expires in the queue.
    - `device`: terminal or wallet whose share of the queue it takes; None for the API and the sweeper.
    - `named`: till and wallet about which no other lane may decide at the same time.
    - `waiting`: future of a caller that awaits the outcome.
    - `is_answered`: it has its outcome. The other fields never change.
    """

    operation: Operation
    reply_to: str | None
    deadline_s: float
    device: tuple[DeviceKind, int] | None
    named: list[tuple[DeviceKind, int]]
    waiting: "asyncio.Future[Outcome] | None"
    is_answered: bool = False


class NotAccepted(PosError):
    """The engine did not accept an operation, and nothing has happened. `code` is BUSY or DRAINING."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code)
        self.code = code


class Authorizer:
    """The engine. `publish` receives each outcome and its `reply_to`, after the commit; it must not block.

    `day_start_ms` returns the start of the business day that contains a time, both in Unix milliseconds. `watch`
    receives a record of every batch. `rejected` counts operations that were refused because the queue was full, or that
    expired in it.
    """

    def __init__(
        self,
        dsn: str,
        keyring: Keyring,
        rules: Rules,
        limits: AuthorizerLimits,
        publish: Callable[[Outcome, str | None], None],
        *,
        day_start_ms: Callable[[int], int],
        clock: Callable[[], float] = time.time,
        watch: Watch | None = None,
    ) -> None:
        self.rejected = 0
        self._watch = watch
        self._lanes = [Lane(dsn, limits.connect_timeout_s) for _ in range(limits.lanes)]
        self._keyring = keyring
        self._rules = rules
        self._limits = limits
        self._publish = publish
        self._day_start_ms = day_start_ms
        self._clock = clock
        self._queue: deque[Submission] = deque()
        self._open: dict[tuple[DeviceKind, int], int] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._house = HouseAccounts()
        self._in_lanes: set[tuple[DeviceKind, int]] = set()
        self._lanes_at_work = 0
        self._turn = asyncio.Lock()
        self._turn_of: Lane | None = None

    async def warm_up(self) -> None:
        """Connect and make Postgres plan the statements, so that the first operation waits for neither."""
        for lane in self._lanes:
            await warm_up(await lane.connected())

    def submit(self, operation: Operation, reply_to: str | None = None) -> None:
        """Accept an operation. Raises NotAccepted: the queue or the device's share is full, or `close` was called."""
        self._accept(operation, reply_to, None)

    async def submit_and_wait(self, operation: Operation) -> Outcome:
        """Accept an operation and wait for its outcome, which is published too. Raises NotAccepted."""
        waiting: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._accept(operation, None, waiting)
        return await waiting

    @property
    def is_closed(self) -> bool:
        """True once `close` was called."""
        return self._closed

    @property
    def is_full(self) -> bool:
        """True if the queue takes no further operation from anybody."""
        return len(self._queue) >= self._limits.queue_operations_max

    def refuse_busy(self) -> NotAccepted:
        """Count an operation as rejected, and return the exception that says so."""
        self.rejected += 1
        return NotAccepted(ErrorCode.BUSY)

    @property
    def queued(self) -> int:
        """The number of operations that wait in the queue."""
        return len(self._queue)

    def _accept(self, operation: Operation, reply_to: str | None, waiting: "asyncio.Future[Outcome] | None") -> None:
        # Not the loop's clock: uvloop's has whole milliseconds.
        deadline_s = time.monotonic() + self._limits.operation_deadline_s
        asker = asker_of(operation)
        device = None if asker is None else (asker.kind, asker.number)
        if self._closed:
            raise NotAccepted(ErrorCode.DRAINING)
        if self.is_full:
            raise self.refuse_busy()
        if device is not None:
            already_open = self._open.get(device, 0)
            if already_open >= self._limits.device_operations_max:
                raise self.refuse_busy()
            self._open[device] = already_open + 1
        self._queue.append(Submission(operation, reply_to, deadline_s, device, involved_parties(operation), waiting))
        self._idle.clear()
        self._wake.set()

    def lanes(self) -> list[Callable[[], Awaitable[None]]]:
        """Return the work of each lane: it runs until canceled, and can be started again after a failure.

        If it fails, its batch is answered, and its tills, wallets and turn are free for the other lanes.
        """
        return [partial(self._work, lane) for lane in self._lanes]

    async def _work(self, lane: Lane) -> None:
        try:
            while True:
                await self._turn.acquire()
                self._turn_of = lane
                batch: list[Submission] = []
                try:
                    while not (batch := self._take()):
                        self._wake.clear()
                        await self._wake.wait()
                    await self._authorize(lane, batch)
                finally:
                    self._end_turn(lane)
                    self._end_batch(batch)
        finally:
            lane.drop()

    def _end_batch(self, batch: list[Submission]) -> None:
        """Let others have the tills and wallets of a batch. After a failure, its commit may have happened."""
        for submission in batch:
            if not submission.is_answered:
                self._answer(submission, Refused(submission.operation, ErrorCode.UNKNOWN_OUTCOME))
            self._in_lanes.difference_update(submission.named)
        self._lanes_at_work -= bool(batch)
        if self._queue:
            self._wake.set()  # for operations that waited for a till or a wallet of this batch
        elif not self._lanes_at_work:
            self._idle.set()

    def _end_turn(self, lane: Lane) -> None:
        """Let the next lane take a batch, unless that was done already."""
        if self._turn_of is lane:
            self._turn_of = None
            self._turn.release()

    def close(self) -> None:
        """Accept nothing more. Accepted operations still get their outcomes."""
        self._closed = True

    async def drained(self) -> None:
        """Wait until every accepted operation has its outcome."""
        await self._idle.wait()

    def _take(self) -> list[Submission]:
        """Take the next batch in order of arrival, without operations on tills and wallets that are in another lane."""
        taken: list[Submission] = []
        left: list[Submission] = []
        named: set[tuple[DeviceKind, int]] = set()
        busy = self._in_lanes
        share = max(len(self._queue) // len(self._lanes), _WORTH_A_BATCH)
        size = min(share, self._limits.batch_operations_max)
        while self._queue and len(taken) < size and len(left) < self._limits.batch_operations_max:
            submission = self._queue.popleft()
            if busy.isdisjoint(submission.named):
                taken.append(submission)
                named.update(submission.named)
            else:
                # A later operation on the same till or wallet must not overtake this one.
                if not left:
                    busy = set(busy)
                busy.update(submission.named)
                left.append(submission)
        self._queue.extendleft(reversed(left))
        self._in_lanes |= named
        self._lanes_at_work += bool(taken)
        return taken

    async def _authorize(self, lane: Lane, submissions: list[Submission], *, may_have_committed: bool = False) -> None:
        now_s = time.monotonic()
        batch = [submission for submission in submissions if submission.deadline_s > now_s]
        late = [submission for submission in submissions if submission.deadline_s <= now_s]
        self.rejected += len(late)
        self._answer_all(late, _refused(late, ErrorCode.UNKNOWN_OUTCOME if may_have_committed else ErrorCode.BUSY))
        if not batch:
            return
        record = BatchRecord(may_have_committed=may_have_committed)
        try:
            outcomes = await self._decide_and_commit(lane, [submission.operation for submission in batch], record)
        except _Failed as failed:
            self._answer_and_record(batch, _refused(batch, failed.code), record)
        except Exception as fault:
            # A bug that one operation triggers must not fail its whole batch.
            about = _about(batch[0].operation) if len(batch) == 1 else {}
            code = ErrorCode.UNKNOWN_OUTCOME
            if isinstance(fault, _StatementFailed):
                # Logged already. Postgres has rolled it back.
                log.error("batch_failed", operations=len(batch), cause=fault.failure.code, **about)
                code = ErrorCode.UNKNOWN_OUTCOME if record.may_have_committed else ErrorCode.BUSY
            else:
                log.exception("batch_failed", operations=len(batch), **about)
                lane.drop()  # its state is not known
            if len(batch) == 1:
                self._answer_and_record(batch, _refused(batch, code), record)
            else:
                for submission in batch:
                    await self._authorize(lane, [submission], may_have_committed=record.may_have_committed)
        else:
            self._answer_and_record(batch, outcomes, record)

    async def _decide_and_commit(
        self, lane: Lane, operations: Sequence[Operation], record: BatchRecord
    ) -> list[Outcome]:
        for attempt in range(self._limits.batch_attempts_max):
            if attempt:
                await asyncio.sleep(_RETRY_PAUSE_S * attempt)
            phase = Phase.CONNECT
            try:
                async with asyncio.timeout(self._limits.batch_timeout_s):
                    connection = await lane.connected()
                    phase = Phase.READ
                    record.loading_s = time.monotonic()
                    snapshot = await load_snapshot(connection, operations, self._house)
                    record.deciding_s = time.monotonic()
                    now_ms = int(self._clock() * 1000)
                    outcomes, changes = decide(
                        operations,
                        snapshot,
                        self._keyring,
                        now_ms,
                        self._rules,
                        day_start_ms=self._day_start_ms(now_ms),
                    )
                    self._end_turn(lane)
                    record.applying_s = time.monotonic()
                    if changes:
                        phase = Phase.WRITE
                        await apply_changes(connection, changes, now_ms)
                    elif any(map(_is_replay, outcomes)):
                        # A write covers the replays of its batch. Without one, no commit has waited for the standby.
                        await self._confirm(connection, record)
                    record.publishing_s = time.monotonic()
                    return outcomes
            except DATABASE_ERRORS as error:
                failure = classify(error, phase)
                # The statement may have committed before its response was lost: the next attempt reads the rows.
                record.may_have_committed |= failure.may_have_committed
                if not failure.keeps_connection:
                    lane.drop()
                if failure.action is Action.DECIDE_AGAIN:
                    record.conflicts += 1
                    log.info("batch_conflict", attempt=attempt + 1, cause=type(error).__name__)
                    continue
                record.database_failures += 1
                report(error, phase, during=phase.value, attempt=attempt + 1)
                if failure.action is Action.GIVE_UP:
                    raise _StatementFailed(failure) from None
        raise _Failed(ErrorCode.UNKNOWN_OUTCOME if record.may_have_committed else ErrorCode.BUSY)

    async def _confirm(self, connection: asyncpg.Connection, record: BatchRecord) -> None:
        """Make sure that stored outcomes are as durable as promised. Without that, they are not known."""
        may_have_committed, record.may_have_committed = record.may_have_committed, True
        await confirm_durable(connection)
        record.may_have_committed = may_have_committed

    def _answer_all(self, submissions: Sequence[Submission], outcomes: Sequence[Outcome]) -> None:
        for submission, outcome in zip(submissions, outcomes, strict=True):
            self._answer(submission, outcome)

    def _answer_and_record(
        self, submissions: Sequence[Submission], outcomes: Sequence[Outcome], record: BatchRecord
    ) -> None:
        if self._watch is None:
            self._answer_all(submissions, outcomes)
            return
        queue_s = self._limits.operation_deadline_s
        record.outcomes = outcomes
        record.accepted_s = [submission.deadline_s - queue_s for submission in submissions]
        for submission, outcome in zip(submissions, outcomes, strict=True):
            self._answer(submission, outcome)
            record.handed_s.append(time.monotonic())
        try:
            self._watch(record)
        except Exception:
            log.exception("watch_failed")

    def _answer(self, submission: Submission, outcome: Outcome) -> None:
        submission.is_answered = True
        device = submission.device
        if device is not None:
            still_open = self._open.pop(device) - 1
            if still_open:
                self._open[device] = still_open
        try:
            self._publish(outcome, submission.reply_to)
        except Exception:
            operation = submission.operation
            log.exception("publish_failed", operation=type(operation).__name__, **_about(operation))
        if submission.waiting is not None and not submission.waiting.done():
            submission.waiting.set_result(outcome)


def _about(operation: Operation) -> dict[str, str | int | None]:
    """Return the ids for the log; a cancel may name only an order."""
    payment_id = None if operation.payment_id is None else str(operation.payment_id)
    return {"merchant_id": operation.merchant_id, "payment_id": payment_id}


def _is_replay(outcome: Outcome) -> bool:
    return isinstance(outcome, Decided | Refunded) and outcome.replayed


def _refused(submissions: Sequence[Submission], code: ErrorCode) -> list[Outcome]:
    return [Refused(submission.operation, code) for submission in submissions]


class _Failed(Exception):
    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code)
        self.code = code


class _StatementFailed(Exception):
    """A statement that would fail again. Postgres answered with the error, so this attempt has committed nothing."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.code)
        self.failure = failure
