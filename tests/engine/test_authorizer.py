"""The batch engine with a real Postgres: every accepted scan has exactly one outcome, despite faults."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest
from structlog.testing import capture_logs

from pos_server.core.errors import ErrorCode
from pos_server.core.payments.declines import DeclineCode
from pos_server.core.payments.operations import Decided, Outcome, Refused, Scan
from pos_server.core.payments.payment import Status
from pos_server.engine.authorizer import Authorizer, NotAccepted
from pos_server.engine.batch_record import BatchRecord, Watch
from pos_server.ledger.audit import audit
from pos_server.limits import AuthorizerLimits
from tests.copies import replace
from tests.proxy import proxied
from tests.support import KEYRING, RULES, Shop, build_shop, working

pytestmark = pytest.mark.asyncio

LIMITS = AuthorizerLimits(
    queue_operations_max=100,
    device_operations_max=50,
    lanes=2,
    batch_operations_max=10,
    batch_attempts_max=5,
    batch_timeout_s=5,
    operation_deadline_s=10,
    connect_timeout_s=5,
)


class Engine:
    """An authorizer, with the outcomes that it published."""

    def __init__(self, dsn: str, limits: AuthorizerLimits, watch: Watch | None = None) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.authorizer = Authorizer(dsn, KEYRING, RULES, limits, self._publish, day_start_ms=lambda _: 0, watch=watch)

    def _publish(self, outcome: Outcome, reply_to: str | None) -> None:
        assert reply_to is not None
        assert reply_to not in self.outcomes, "a scan has two outcomes"
        self.outcomes[reply_to] = outcome

    async def authorize(self, *scans: Scan) -> list[Outcome]:
        start = len(self.outcomes)
        for index, scan in enumerate(scans, start):
            self.authorizer.submit(scan, str(index))
        await self.authorizer.drained()
        return [self.outcomes[str(index)] for index in range(start, start + len(scans))]


@asynccontextmanager
async def running(dsn: str, limits: AuthorizerLimits = LIMITS, watch: Watch | None = None) -> AsyncIterator[Engine]:
    engine = Engine(dsn, limits, watch)
    async with working(engine.authorizer):
        yield engine


def status(outcome: Outcome) -> str:
    if isinstance(outcome, Decided):
        return outcome.payment.decline_code or outcome.payment.status
    assert isinstance(outcome, Refused)
    return outcome.code


async def payments(connection: asyncpg.Connection) -> int:
    count: int = await connection.fetchval("select count(*) from payment where purpose = 'sale'")
    return count


async def test_scans_are_decided_in_order_of_arrival(dsn: str, shop: Shop) -> None:
    async with running(dsn) as engine:
        outcomes = await engine.authorize(*(shop.scan(amount_minor=4000) for _ in range(4)))
    assert [status(outcome) for outcome in outcomes] == [
        "approved",
        "approved",
        "insufficient_funds",
        "insufficient_funds",
    ]


async def test_arrivals_during_a_batch_form_the_next_batch(
    dsn: str, shop: Shop, connection: asyncpg.Connection
) -> None:
    """More scans than fit into a batch: batches are bounded, every scan is answered, a batch is one commit."""
    async with running(dsn) as engine:
        outcomes = await engine.authorize(*(shop.scan(index % 3, amount_minor=1) for index in range(25)))
    assert {status(outcome) for outcome in outcomes} == {"approved"}
    sizes = await connection.fetch("select count(*) as size from payment where purpose = 'sale' group by xmin")
    assert sorted(row["size"] for row in sizes) == [5, 10, 10]


async def test_a_repeat_gets_the_stored_outcome_and_another_body_is_rejected(dsn: str, shop: Shop) -> None:
    scan = shop.scan()
    async with running(dsn) as engine:
        (first,) = await engine.authorize(scan)
        repeat, reused = await engine.authorize(scan, replace(scan, amount_minor=2))
    assert isinstance(first, Decided)
    assert isinstance(repeat, Decided)
    assert (first.replayed, repeat.replayed) == (False, True)
    assert repeat.payment == first.payment
    assert reused == Refused(replace(scan, amount_minor=2), ErrorCode.ID_REUSED)


async def test_a_full_queue_rejects_scans(dsn: str, shop: Shop, connection: asyncpg.Connection) -> None:
    engine = Engine(dsn, replace(LIMITS, queue_operations_max=2, batch_operations_max=2))
    engine.authorizer.submit(shop.scan(), "a")
    engine.authorizer.submit(shop.scan(), "b")
    with pytest.raises(NotAccepted):
        engine.authorizer.submit(shop.scan(), "c")
    assert await payments(connection) == 0


async def test_one_terminal_cannot_fill_the_queue(dsn: str, shop: Shop) -> None:
    async with running(dsn, replace(LIMITS, device_operations_max=2)) as engine:
        engine.authorizer.submit(shop.scan(), "a")
        engine.authorizer.submit(shop.scan(), "b")
        with pytest.raises(NotAccepted):
            engine.authorizer.submit(shop.scan(), "c")
        engine.authorizer.submit(shop.scan(1, terminal=1), "other terminal")
        await engine.authorizer.drained()
        engine.authorizer.submit(shop.scan(), "d")
        await engine.authorizer.drained()
    assert set(engine.outcomes) == {"a", "b", "other terminal", "d"}


async def test_lanes_work_concurrently_but_never_on_the_same_till_or_wallet(
    dsn: str, connection: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    shop = await build_shop(connection, terminals=3, wallets=4)
    async with running(dsn) as engine:

        async def wait_for(outcomes: int) -> None:
            async with asyncio.timeout(5):
                while len(engine.outcomes) < outcomes:  # noqa: ASYNC110 - publishing has no event for tests
                    await asyncio.sleep(0)

        async with admin.transaction():
            await admin.execute("select 1 from wallet where number = $1 for update", shop.wallets[0].device.number)
            engine.authorizer.submit(shop.scan(0), "stuck")
            async with asyncio.timeout(5):
                while not await connection.fetchval("select count(*) from pg_locks where not granted"):
                    pass
            engine.authorizer.submit(shop.scan(1), "same till")
            engine.authorizer.submit(shop.scan(0, terminal=1), "same wallet")
            engine.authorizer.submit(shop.scan(2, terminal=1), "behind it at its till")
            engine.authorizer.submit(shop.scan(3, terminal=2), "neither")
            await wait_for(1)
            assert set(engine.outcomes) == {"neither"}
        await engine.authorizer.drained()
    assert list(engine.outcomes) == ["neither", "stuck", "same till", "same wallet", "behind it at its till"]
    assert {status(outcome) for outcome in engine.outcomes.values()} == {"approved"}


async def test_a_closed_engine_finishes_accepted_scans(dsn: str, shop: Shop) -> None:
    async with running(dsn) as engine:
        engine.authorizer.submit(shop.scan(), "accepted")
        engine.authorizer.close()
        with pytest.raises(NotAccepted):
            engine.authorizer.submit(shop.scan(), "refused")
        await engine.authorizer.drained()
    assert [status(outcome) for outcome in engine.outcomes.values()] == ["approved"]


async def test_a_scan_that_expires_in_the_queue_is_busy_and_never_runs(
    dsn: str, shop: Shop, connection: asyncpg.Connection
) -> None:
    async with running(dsn, replace(LIMITS, operation_deadline_s=0)) as engine:
        (outcome,) = await engine.authorize(shop.scan())
    assert status(outcome) == ErrorCode.BUSY
    assert await payments(connection) == 0


async def test_scans_are_busy_while_the_database_is_unreachable(
    dsn: str, shop: Shop, connection: asyncpg.Connection
) -> None:
    scan = shop.scan()
    async with proxied(dsn) as proxy, running(proxy.dsn, replace(LIMITS, batch_attempts_max=2)) as engine:
        proxy.away = True
        (outcome,) = await engine.authorize(scan)
        assert status(outcome) == ErrorCode.BUSY
        assert await payments(connection) == 0
        proxy.away = False
        (outcome,) = await engine.authorize(scan)
    assert status(outcome) == Status.APPROVED


def once(rule: Callable[[bytes], bool]) -> Callable[[bytes], bool]:
    armed = [True]

    def cut(chunk: bytes) -> bool:
        if armed[0] and rule(chunk):
            armed[0] = False
            return True
        return False

    return cut


async def warm(engine: Engine, shop: Shop) -> None:
    """Make a payment, so that the connection has prepared its statements and later requests only execute them."""
    (outcome,) = await engine.authorize(shop.scan(2, amount_minor=1))
    assert status(outcome) == Status.APPROVED


async def test_a_batch_is_retried_after_a_connection_loss_before_the_write(
    dsn: str, shop: Shop, connection: asyncpg.Connection
) -> None:
    scan = shop.scan()
    async with proxied(dsn) as proxy, running(proxy.dsn) as engine:
        await warm(engine, shop)
        # Only the write has the fingerprint among its arguments.
        proxy.cut_requests = once(lambda chunk: scan.fingerprint in chunk)
        (outcome,) = await engine.authorize(scan)
    assert proxy.cuts == 1
    assert status(outcome) == Status.APPROVED
    assert isinstance(outcome, Decided)
    assert not outcome.replayed
    assert await payments(connection) == 2


async def test_a_retry_after_a_connection_loss_after_the_commit_finds_the_payment(
    dsn: str, shop: Shop, connection: asyncpg.Connection
) -> None:
    async with proxied(dsn) as proxy, running(proxy.dsn) as engine:
        await warm(engine, shop)
        scans = [shop.scan(index % 3) for index in range(6)]
        written = [False]

        def note_write(chunk: bytes) -> bool:
            written[0] = written[0] or scans[0].fingerprint in chunk
            return False

        proxy.cut_requests = note_write
        proxy.cut_answers = once(lambda chunk: written[0])
        outcomes = await engine.authorize(*scans)
    assert proxy.cuts == 1
    assert {status(outcome) for outcome in outcomes} == {"approved"}
    assert all(isinstance(outcome, Decided) and outcome.replayed for outcome in outcomes)
    assert await payments(connection) == 7


async def test_a_lost_answer_is_an_unknown_outcome_and_a_repeat_resolves_it(
    dsn: str, shop: Shop, connection: asyncpg.Connection
) -> None:
    scan = shop.scan()
    async with proxied(dsn) as proxy, running(proxy.dsn, replace(LIMITS, batch_attempts_max=2)) as engine:
        await warm(engine, shop)

        def leave_at_the_write(chunk: bytes) -> bool:
            proxy.away = proxy.away or scan.fingerprint in chunk
            return False

        proxy.cut_requests = leave_at_the_write
        proxy.cut_answers = lambda chunk: proxy.away
        (outcome,) = await engine.authorize(scan)
        assert status(outcome) == ErrorCode.UNKNOWN_OUTCOME
        proxy.away = False
        proxy.cut_requests = proxy.cut_answers = lambda chunk: False
        (outcome,) = await engine.authorize(scan)
    assert isinstance(outcome, Decided)
    assert (status(outcome), outcome.replayed) == ("approved", True)
    assert await payments(connection) == 2


async def test_a_database_that_hangs_times_out(dsn: str, shop: Shop, admin: asyncpg.Connection) -> None:
    """The wallet's row is locked: the write times out as unknown, and the repeat does not pay twice."""
    scan = shop.scan()
    number = shop.wallets[0].device.number
    async with running(dsn, replace(LIMITS, batch_timeout_s=0.2, batch_attempts_max=2)) as engine:
        async with admin.transaction():
            await admin.execute("select 1 from wallet where number = $1 for update", number)
            (outcome,) = await engine.authorize(scan)
            assert status(outcome) == ErrorCode.UNKNOWN_OUTCOME
        (outcome,) = await engine.authorize(scan)
    assert status(outcome) == Status.APPROVED
    assert await payments(admin) == 1
    assert (await audit(admin)).ok


async def test_two_servers_on_one_wallet_never_spend_the_same_money(
    dsn: str, shop: Shop, admin: asyncpg.Connection
) -> None:
    """Make 20 payments of 20.00 EUR from three wallets of 100.00 EUR over two engines concurrently."""
    limits = replace(LIMITS, batch_attempts_max=50)
    scans = [shop.scan(index % 3, amount_minor=2000) for index in range(20)]
    records: list[BatchRecord] = []
    async with running(dsn, limits, records.append) as one, running(dsn, limits, records.append) as two:
        results = await asyncio.gather(one.authorize(*scans[0::2]), two.authorize(*scans[1::2]))
    assert sum(len(record.outcomes) for record in records) == len(scans)
    statuses = [status(outcome) for outcomes in results for outcome in outcomes]
    assert set(statuses) <= {"approved", DeclineCode.INSUFFICIENT_FUNDS, DeclineCode.CODE_USED}
    report = await audit(admin)
    assert report.ok, report
    assert await payments(admin) == 20
    assert await admin.fetchval("select count(*) from transfer where kind = 'payment'") == statuses.count("approved")


async def test_a_lost_race_is_decided_again_and_recorded(
    dsn: str, shop: Shop, connection: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    records: list[BatchRecord] = []
    async with running(dsn, LIMITS, records.append) as engine:
        async with admin.transaction():
            await admin.execute("update wallet set version = version + 1")
            engine.authorizer.submit(shop.scan(), "raced")
            async with asyncio.timeout(5):
                while not await connection.fetchval("select count(*) from pg_locks where not granted"):
                    pass
        await engine.authorizer.drained()
    assert status(engine.outcomes["raced"]) == "approved"
    assert [(record.conflicts, record.database_failures) for record in records] == [(1, 0)]


async def test_an_internal_fault_in_one_scan_does_not_affect_the_others(
    dsn: str, shop: Shop, connection: asyncpg.Connection
) -> None:
    # An unknown terminal stands for any bug: authentication rules it out.
    broken = shop.scan(terminal_number=999_999)
    with capture_logs() as logs:
        async with running(dsn) as engine:
            outcomes = await engine.authorize(shop.scan(0), broken, shop.scan(1))
    assert [status(outcome) for outcome in outcomes] == ["approved", ErrorCode.UNKNOWN_OUTCOME, "approved"]
    failed = [(log["operations"], log.get("payment_id")) for log in logs if log["event"] == "batch_failed"]
    assert failed == [(3, None), (1, str(broken.payment_id))]
    assert await payments(connection) == 2


async def test_a_failing_publisher_does_not_stop_the_engine(dsn: str, shop: Shop) -> None:
    published: list[str] = []

    def publish(outcome: Outcome, reply_to: str) -> None:
        published.append(reply_to)
        raise RuntimeError("a bug in the publisher")

    authorizer = Authorizer(dsn, KEYRING, RULES, LIMITS, publish, day_start_ms=lambda _: 0)
    scans = [shop.scan(), shop.scan()]
    with capture_logs() as logs:
        async with working(authorizer):
            authorizer.submit(scans[0], "first")
            authorizer.submit(scans[1], "second")
            await authorizer.drained()
    assert published == ["first", "second"]
    assert [(log["event"], log["payment_id"]) for log in logs] == [
        ("publish_failed", str(scan.payment_id)) for scan in scans
    ]


async def test_a_failing_watch_does_not_stop_the_engine(dsn: str, shop: Shop) -> None:
    published: list[Outcome] = []
    records: list[BatchRecord] = []

    def watch(record: BatchRecord) -> None:
        records.append(record)
        raise RuntimeError("a bug in the watch")

    authorizer = Authorizer(
        dsn, KEYRING, RULES, LIMITS, lambda outcome, _: published.append(outcome), day_start_ms=lambda _: 0, watch=watch
    )
    async with working(authorizer):
        for _ in range(2):
            authorizer.submit(shop.scan())
            await authorizer.drained()
    assert [status(outcome) for outcome in published] == ["approved", "approved"]
    assert [record.outcomes for record in records] == [[outcome] for outcome in published]


async def test_rejected_operations_are_counted(dsn: str, shop: Shop) -> None:
    engine = Engine(dsn, replace(LIMITS, device_operations_max=1, operation_deadline_s=0))
    engine.authorizer.submit(shop.scan(), "too late")
    with pytest.raises(NotAccepted):
        engine.authorizer.submit(shop.scan(), "one too many")
    assert (engine.authorizer.rejected, engine.authorizer.queued) == (1, 1)
    async with working(engine.authorizer):
        await engine.authorizer.drained()
    assert (engine.authorizer.rejected, engine.authorizer.queued) == (2, 0)


async def test_a_refusal_contains_the_scan(dsn: str, shop: Shop) -> None:
    scan = shop.scan()
    async with running(dsn, replace(LIMITS, operation_deadline_s=0)) as engine:
        (outcome,) = await engine.authorize(scan)
    assert outcome == Refused(scan, ErrorCode.BUSY)
