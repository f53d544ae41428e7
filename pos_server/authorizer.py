"""The batch engine: bounded queue → load → decide → commit → outcomes.

There is no timer. While one batch is at the database, arrivals queue; the next batch takes what is there, up to a
bound. Alone, a scan waits for nothing; under load batches grow by themselves.

Every scan that was accepted gets exactly one outcome: decided, or BUSY when nothing has happened, or UNKNOWN_OUTCOME
when a commit may have happened and could not be confirmed. Running a batch again is always safe: decisions start from
committed rows, and a payment that is stored already is found, not made again.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import asyncpg
import structlog

from .core.device_keys import Keyring
from .core.errors import ErrorCode, PosError
from .core.notices import NotDecided, Outcome
from .core.payments import Changes, Decision, Scan, decide
from .ledger.database import DATABASE_AWAY, connect
from .ledger.ledger import LEDGER_CONFLICT, apply_changes, load_book

log = structlog.get_logger(__name__)

_RETRY_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizerLimits:
    """Named in settings. `scan_deadline_s`: a scan that waited longer in the queue is answered BUSY.

    `terminal_scans_max` bounds what one terminal may have open, so that it can neither fill the queue alone nor try
    more forged codes at once than the limit on them allows for.
    """

    queue_scans_max: int
    terminal_scans_max: int
    batch_scans_max: int
    batch_attempts_max: int
    batch_timeout_s: float
    scan_deadline_s: float
    connect_timeout_s: float
    code_expired_steps: int


@dataclass(frozen=True, slots=True)
class Submission:
    """A scan in the queue. `reply_to` goes back with its outcome; `deadline_s` is on the loop's clock."""

    scan: Scan
    reply_to: str
    deadline_s: float


class QueueFull(PosError):
    """The scan was not accepted and nothing has happened."""


class Authorizer:
    """One lane with a connection of its own. `publish` is called once per scan, after its commit; it must not block."""

    def __init__(
        self,
        dsn: str,
        keyring: Keyring,
        limits: AuthorizerLimits,
        publish: Callable[[Outcome, str], None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._dsn = dsn
        self._keyring = keyring
        self._limits = limits
        self._publish = publish
        self._clock = clock
        self._queue: deque[Submission] = deque()
        self._open_scans: Counter[int] = Counter()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._connection: asyncpg.Connection | None = None

    async def warm_up(self) -> None:
        """Connect and let Postgres prepare both statements, so that the first scan waits for neither."""
        connection = await self._connected()
        await load_book(connection, [])
        await apply_changes(connection, Changes(), 0)

    def submit(self, scan: Scan, reply_to: str) -> None:
        """Accept a scan for decision. Raises QueueFull, also for one terminal alone, and once `close` was called."""
        if self._closed or len(self._queue) >= self._limits.queue_scans_max:
            raise QueueFull
        if self._open_scans[scan.terminal_number] >= self._limits.terminal_scans_max:
            raise QueueFull
        self._open_scans[scan.terminal_number] += 1
        deadline_s = asyncio.get_running_loop().time() + self._limits.scan_deadline_s
        self._queue.append(Submission(scan, reply_to, deadline_s))
        self._idle.clear()
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                await self._wake.wait()
                while self._queue:
                    await self._authorize(self._take())
                self._wake.clear()
                self._idle.set()
        finally:
            if self._connection is not None:
                self._connection.terminate()

    def close(self) -> None:
        """Accept nothing more; what was accepted still gets its outcome."""
        self._closed = True

    async def drained(self) -> None:
        """Wait until every accepted scan has its outcome."""
        await self._idle.wait()

    def _take(self) -> list[Submission]:
        return [self._queue.popleft() for _ in range(min(len(self._queue), self._limits.batch_scans_max))]

    async def _authorize(self, submissions: list[Submission]) -> None:
        now_s = asyncio.get_running_loop().time()
        batch = [submission for submission in submissions if submission.deadline_s > now_s]
        self._answer_all([late for late in submissions if late.deadline_s <= now_s], ErrorCode.BUSY)
        if not batch:
            return
        try:
            outcomes = await self._decide_and_commit([submission.scan for submission in batch])
        except _Failed as failed:
            self._answer_all(batch, failed.code)
        except Exception:
            # A fault of ours in one scan must not take its whole batch along.
            log.exception("batch_failed", scans=len(batch))
            if len(batch) == 1:
                self._answer_all(batch, ErrorCode.UNKNOWN_OUTCOME)
            else:
                for submission in batch:
                    await self._authorize([submission])
        else:
            for submission, outcome in zip(batch, outcomes, strict=True):
                self._answer(submission, outcome)

    async def _decide_and_commit(self, scans: Sequence[Scan]) -> list[Decision]:
        may_have_happened = False
        for attempt in range(self._limits.batch_attempts_max):
            if attempt:
                await asyncio.sleep(_RETRY_PAUSE_S * attempt)
            applying = False
            try:
                async with asyncio.timeout(self._limits.batch_timeout_s):
                    connection = await self._connected()
                    book = await load_book(connection, scans)
                    now_ms = int(self._clock() * 1000)
                    decisions, changes = decide(
                        scans, book, self._keyring, now_ms, code_expired_steps=self._limits.code_expired_steps
                    )
                    if changes:
                        applying = True
                        await apply_changes(connection, changes, now_ms)
                    return decisions
            except LEDGER_CONFLICT as conflict:
                log.info("batch_conflict", attempt=attempt + 1, cause=type(conflict).__name__)
            except DATABASE_AWAY as away:
                # The statement may have committed before its answer was lost: only rows can tell, on the next attempt.
                may_have_happened = may_have_happened or applying
                self._drop_connection()
                log.warning("database_away", attempt=attempt + 1, cause=type(away).__name__, applying=applying)
        raise _Failed(ErrorCode.UNKNOWN_OUTCOME if may_have_happened else ErrorCode.BUSY)

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._dsn, timeout_s=self._limits.connect_timeout_s)
        return self._connection

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    def _answer_all(self, submissions: Sequence[Submission], code: ErrorCode) -> None:
        for submission in submissions:
            self._answer(submission, NotDecided(submission.scan, code))

    def _answer(self, submission: Submission, outcome: Outcome) -> None:
        terminal_number = submission.scan.terminal_number
        self._open_scans[terminal_number] -= 1
        if not self._open_scans[terminal_number]:
            del self._open_scans[terminal_number]
        try:
            self._publish(outcome, submission.reply_to)
        except Exception:
            log.exception("publish_failed", payment_id=str(submission.scan.payment_id))


class _Failed(Exception):
    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code)
        self.code = code
