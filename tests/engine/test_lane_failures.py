"""A lane of the engine fails at each of its steps: its batch is answered, the other lane works, and it comes back."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from pos_server.core.errors import ErrorCode
from pos_server.core.payments.operations import Outcome, Scan
from pos_server.engine import authorizer as authorizer_module
from pos_server.engine import lane as lane_module
from pos_server.engine.authorizer import Authorizer
from pos_server.ledger.audit import audit
from tests.engine.test_authorizer import LIMITS, Engine, once, payments, status, warm
from tests.proxy import proxied
from tests.support import KEYRING, RULES, Shop, working

pytestmark = pytest.mark.asyncio

WAIT_S = 15
ERRORS = [RuntimeError("a bug"), asyncpg.InternalClientError("a bug of asyncpg"), asyncio.CancelledError("from inside")]


class Failing:
    """Stands for a function: raises `error` once, on the first call after `arm`, instead of the call or after it."""

    def __init__(self, function: Callable[..., Awaitable[Any]], error: BaseException, *, after: bool = False) -> None:
        self.failed = asyncio.Event()
        self._function = function
        self._error: BaseException | None = None
        self._armed_error = error
        self._after = after

    def arm(self) -> None:
        self._error = self._armed_error

    async def __call__(self, *arguments: Any, **options: Any) -> Any:
        error, self._error = self._error, None
        if error is not None and not self._after:
            self.failed.set()
            raise error
        result = await self._function(*arguments, **options)
        if error is not None:
            self.failed.set()
            raise error
        return result


async def submitted(engine: Engine, scans: list[Scan], prefix: str) -> list[Outcome]:
    """Submit scans and return their outcomes, in order. Raises TimeoutError if one has none."""
    for index, scan in enumerate(scans):
        engine.authorizer.submit(scan, f"{prefix}{index}")
    async with asyncio.timeout(WAIT_S):
        await engine.authorizer.drained()
    return [engine.outcomes[f"{prefix}{index}"] for index in range(len(scans))]


async def works(engine: Engine, shop: Shop, prefix: str) -> None:
    """Check that a till and a wallet of every failed batch are free, and that both lanes take work."""
    scans = [shop.scan(index % 3, terminal=index % 2, amount_minor=1) for index in range(6)]
    assert {status(outcome) for outcome in await submitted(engine, scans, prefix)} == {"approved"}
    await both_lanes_wait(engine.authorizer)
    assert (engine.authorizer._in_lanes, engine.authorizer._lanes_at_work, engine.authorizer._open) == (set(), 0, {})


async def both_lanes_wait(authorizer: Authorizer) -> None:
    """Wait until one lane waits for work and the other one for the turn."""
    async with asyncio.timeout(WAIT_S):
        while not (authorizer._turn_of is not None and authorizer._turn._waiters):  # noqa: ASYNC110 - no event for tests
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("step", ["the turn", "work"])
async def test_a_lane_that_fails_while_it_waits(
    step: str, error: BaseException, dsn: str, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(dsn, LIMITS)
    owner, name = (engine.authorizer._turn, "acquire") if step == "the turn" else (engine.authorizer._wake, "wait")
    failing = Failing(getattr(owner, name), error)
    monkeypatch.setattr(owner, name, failing)
    with capture_logs() as logs:
        async with working(engine.authorizer) as supervisor:
            failing.arm()
            await works(engine, shop, "first")
            await works(engine, shop, "second")
            assert failing.failed.is_set()
            assert sum(state.restarts for state in supervisor.states.values()) == 1
    is_database = isinstance(error, asyncpg.InternalClientError)
    assert [log["event"] for log in logs] == ["database_away" if is_database else "task_failed"]


STEPS = {
    "connect": ("connect", False),
    "load": ("load_snapshot", False),
    "loaded": ("load_snapshot", True),
    "write": ("apply_changes", False),
    "committed": ("apply_changes", True),
}


@pytest.mark.parametrize("step", STEPS)
async def test_a_lane_that_fails_with_a_batch(
    step: str, dsn: str, shop: Shop, admin: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a cancellation from inside ends the lane here: other errors are answered batch by batch already."""
    name, after = STEPS[step]
    module = lane_module if step == "connect" else authorizer_module
    failing = Failing(getattr(module, name), asyncio.CancelledError("from inside"), after=after)
    monkeypatch.setattr(module, name, failing)
    engine = Engine(dsn, LIMITS)
    scans = [shop.scan(index, amount_minor=100) for index in range(3)]
    failing.arm()
    with capture_logs() as logs:
        async with working(engine.authorizer) as supervisor:
            outcomes = await submitted(engine, scans, "failed")
            assert {status(outcome) for outcome in outcomes} == {ErrorCode.UNKNOWN_OUTCOME}
            assert sum(state.restarts for state in supervisor.states.values()) == 1
            # The repeats find what is committed.
            repeats = await submitted(engine, scans, "repeat")
            assert {status(outcome) for outcome in repeats} == {"approved"}
            await works(engine, shop, "after")
    assert [log["event"] for log in logs] == ["task_failed"]
    assert await payments(admin) == 9
    assert (await audit(admin)).ok


async def test_a_lane_that_fails_in_the_pause_before_a_retry(
    dsn: str, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asyncio:
        """asyncio for the engine, whose `sleep` fails."""

        sleep = Failing(asyncio.sleep, asyncio.CancelledError("from inside"))

        def __getattr__(self, name: str) -> Any:
            return getattr(asyncio, name)

    async with proxied(dsn) as proxy:
        engine = Engine(proxy.dsn, LIMITS)
        with capture_logs():
            async with working(engine.authorizer):
                await warm(engine, shop)
                monkeypatch.setattr(authorizer_module, "asyncio", Asyncio())
                Asyncio.sleep.arm()
                scan = shop.scan()
                proxy.cut_requests = once(lambda chunk: scan.fingerprint in chunk)
                (outcome,) = await submitted(engine, [scan], "failed")
                assert status(outcome) == ErrorCode.UNKNOWN_OUTCOME
                await works(engine, shop, "after")


async def test_a_lane_that_fails_between_two_answers_answers_the_rest(
    dsn: str, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decision with too few outcomes stands for any bug after the commit."""
    decide = authorizer_module.decide
    scans = [shop.scan(index, amount_minor=100) for index in range(3)]

    def loses_one(operations: list[Scan], *arguments: Any, **options: Any) -> Any:
        outcomes, changes = decide(operations, *arguments, **options)
        return outcomes[: 2 if scans[0] in operations else None], changes

    monkeypatch.setattr(authorizer_module, "decide", loses_one)
    engine = Engine(dsn, LIMITS)
    with capture_logs() as logs:
        async with working(engine.authorizer):
            outcomes = await submitted(engine, scans, "failed")
            monkeypatch.undo()
            repeats = await submitted(engine, scans, "repeat")
            await works(engine, shop, "after")
    assert [status(outcome) for outcome in outcomes] == ["approved", "approved", ErrorCode.UNKNOWN_OUTCOME]
    assert {status(outcome) for outcome in repeats} == {"approved"}
    assert [log["event"] for log in logs] == ["task_failed"]


async def test_a_caller_that_waits_is_answered(dsn: str, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Failing(authorizer_module.apply_changes, asyncio.CancelledError("from inside"), after=True)
    monkeypatch.setattr(authorizer_module, "apply_changes", failing)
    engine = Authorizer(dsn, KEYRING, RULES, LIMITS, lambda *_: None, day_start_ms=lambda _: 0)
    failing.arm()
    with capture_logs():
        async with working(engine), asyncio.timeout(WAIT_S):
            assert status(await engine.submit_and_wait(shop.scan())) == ErrorCode.UNKNOWN_OUTCOME


async def test_the_other_lane_works_while_one_is_down(dsn: str, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """One lane fails each time that it is started. Tills and wallets of its batch go on in the other lane."""
    engine = Engine(dsn, LIMITS)
    broken, _ = engine.authorizer._lanes

    async def fails() -> asyncpg.Connection:
        raise asyncio.CancelledError("from inside")

    monkeypatch.setattr(broken, "connected", fails)
    with capture_logs():
        async with working(engine.authorizer) as supervisor:
            (first,) = await submitted(engine, [shop.scan()], "first")
            assert status(first) == ErrorCode.UNKNOWN_OUTCOME
            assert supervisor.needed_and_down() == ["lane-1"]
            (second,) = await submitted(engine, [shop.scan()], "second")
            assert status(second) == "approved"


async def test_a_stopped_engine_answers_its_batch(
    dsn: str, shop: Shop, connection: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    """A drain has timed out: what is at the database is unknown, and not lost."""
    engine = Engine(dsn, LIMITS)
    with capture_logs() as logs:
        async with admin.transaction():
            async with working(engine.authorizer):
                await admin.execute("select 1 from wallet where number = $1 for update", shop.wallets[0].device.number)
                engine.authorizer.submit(shop.scan(), "stuck")
                async with asyncio.timeout(WAIT_S):
                    while not await connection.fetchval("select count(*) from pg_locks where not granted"):
                        pass
            assert status(engine.outcomes["stuck"]) == ErrorCode.UNKNOWN_OUTCOME
    assert logs == []
