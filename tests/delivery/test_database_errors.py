"""Database errors between servers, in the revocation check and at the leader: the work goes on at a new connection."""

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from pos_server.delivery.connections import Connections
from pos_server.delivery.peers import Peers
from pos_server.delivery.revocation import watch_revocations
from pos_server.ledger import leadership
from pos_server.ledger.failures import NotConnected, Phase, classify
from pos_server.limits import OutboxLimits

pytestmark = pytest.mark.asyncio

ERRORS = [
    asyncpg.InternalClientError("cannot switch to state 11; another operation is in progress"),
    asyncpg.InterfaceError("connection is closed"),
    asyncpg.TargetServerAttributeNotMatched("none of the hosts match"),
    asyncpg.ConnectionDoesNotExistError("gone"),
    asyncpg.AdminShutdownError("terminating connection"),
    asyncpg.CrashShutdownError("crash"),
    asyncpg.CannotConnectNowError("starting up"),
    asyncpg.ReadOnlySQLTransactionError("a standby"),
    asyncpg.QueryCanceledError("canceled"),
    asyncpg.DeadlockDetectedError("deadlock"),
    asyncpg.DiskFullError("full"),
    asyncpg.PostgresIOError("input/output error"),
    asyncpg.InsufficientPrivilegeError("no right"),
    asyncpg.UnknownPostgresError("a new code"),
    asyncpg.InvalidPasswordError("wrong"),
    NotConnected("no connection"),
    ConnectionResetError("reset"),
    TimeoutError(),
]
NAMES = [type(error).__name__ for error in ERRORS]
TIMEOUT_S = 10


class FakeConnection:
    """A connection to Postgres. Its first query fails with `error`; further ones too, unless the table keeps it."""

    def __init__(self, error: Exception | None, done: asyncio.Event) -> None:
        self._error = error
        self._done = done
        self._closed = False

    def is_closed(self) -> bool:
        return self._closed

    def terminate(self) -> None:
        self._closed = True

    async def close(self) -> None:
        self._closed = True

    async def add_listener(self, channel: str, listener: object) -> None:
        await self.execute("listen")

    async def execute(self, *_: object) -> None:
        await asyncio.sleep(0)
        error = self._error
        if error is not None:
            if classify(error, Phase.READ).keeps_connection:
                self._error = None
            raise error
        self._done.set()

    async def fetchval(self, *_: object) -> bool:
        await self.execute()
        return True


class FakePostgres:
    """Fails with `error`: at the connect, or in every query of its first connection. Then it works."""

    def __init__(self, error: Exception, *, at_connect: bool) -> None:
        self._errors: list[Exception] = [error]
        self._at_connect = at_connect
        self.works = asyncio.Event()

    async def connect(self, *_: object, **__: object) -> FakeConnection:
        error = self._errors.pop() if self._errors else None
        if error is not None and self._at_connect:
            raise error
        return FakeConnection(error, self.works)


async def until_it_works(work: Callable[[], Any], works: asyncio.Event) -> None:
    """Run `work` until the database has worked, and check that nothing was logged with a traceback."""
    with capture_logs() as logs:
        task = asyncio.create_task(work())
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await works.wait()
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert not [log for log in logs if "exc_info" in log]
    assert {log["event"] for log in logs} & {"database_away", "database_error"}


@pytest.mark.parametrize("at_connect", [True, False], ids=["at the connect", "while listening"])
@pytest.mark.parametrize("error", ERRORS, ids=NAMES)
async def test_peers(error: Exception, at_connect: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    postgres = FakePostgres(error, at_connect=at_connect)
    monkeypatch.setattr("pos_server.delivery.peers.connect", postgres.connect)
    peers = Peers(
        "", Connections(OutboxLimits(1, 1)), now_ms=lambda: 0, alive_s=0.01, queue_max=10, timeout_s=TIMEOUT_S
    )
    await until_it_works(peers.run, postgres.works)


@pytest.mark.parametrize("at_connect", [True, False], ids=["at the connect", "in a query"])
@pytest.mark.parametrize("error", ERRORS, ids=NAMES)
async def test_the_leader(error: Exception, at_connect: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    postgres = FakePostgres(error, at_connect=at_connect)
    monkeypatch.setattr("pos_server.ledger.leadership.connect", postgres.connect)
    await until_it_works(lambda: leadership.lead("", [], every_s=0.01, timeout_s=TIMEOUT_S), postgres.works)


@pytest.mark.parametrize("error", ERRORS, ids=NAMES)
async def test_the_revocation_check(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    works, errors = asyncio.Event(), [error]

    async def close_revoked(*_: object) -> None:
        if errors:
            raise errors.pop()
        works.set()

    monkeypatch.setattr("pos_server.delivery.revocation.close_revoked", close_revoked)
    pool: Any = None
    await until_it_works(lambda: watch_revocations(pool, Connections(OutboxLimits(1, 1)), 0.01), works)
