"""The horizon waits for transactions that may add transfers, also for prepared ones, and for nothing else."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg
import pytest
import pytest_asyncio

from pos_server.ledger.audit import audit
from pos_server.ledger.database import connect
from pos_server.ledger.exclusive import AlreadyRunning, Command, exclusive
from pos_server.ledger.horizon import WriterOpen
from pos_server.ledger.migrate import load_migrations, migrate
from pos_server.ledger.rollup import RollUp, balances, roll_up
from pos_server.ledger.seals import seal_days
from pos_server.ledger.settlement import settle
from pos_server.postgres.embedded import EmbeddedPostgres
from tests.ledger.aging import follow_transfers
from tests.ledger.test_payments import run_batch
from tests.support import Shop, build_shop
from tests.tested_postgres import BIN_DIR

pytestmark = pytest.mark.asyncio
NOW = datetime.now(UTC)
DAY = NOW.date() - timedelta(days=2)


async def _settle(admin: asyncpg.Connection) -> object:
    return await settle(admin, DAY, NOW)


async def _seal(admin: asyncpg.Connection) -> object:
    return await seal_days(admin, NOW, "UTC", lambda seal: None)


WORK: list[Callable[[asyncpg.Connection], Awaitable[object]]] = [_settle, _seal, roll_up]
work = pytest.mark.parametrize("work", WORK)


@pytest_asyncio.fixture
async def sold(connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection) -> Shop:
    """Return a shop with a sale of some days ago."""
    await run_batch(connection, shop.scan(0, amount_minor=700))
    await admin.execute("update transfer set created_at = $1", datetime(DAY.year, DAY.month, DAY.day, 12, tzinfo=UTC))
    await follow_transfers(admin)
    return shop


@asynccontextmanager
async def transaction(dsn: str, *statements: str) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection of the owner in an open transaction that has executed these statements."""
    other = await connect(dsn, timeout_s=10, role=None)
    try:
        await other.execute("begin")
        for statement in statements:
            await other.execute(statement)
        yield other
    finally:
        await other.close()


@work
async def test_a_transaction_that_may_add_transfers_is_named(
    work: Callable[[asyncpg.Connection], Awaitable[object]],
    dsn: str,
    sold: Shop,
    admin: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pos_server.ledger.horizon.WRITERS_TIMEOUT_S", 0.2)
    async with transaction(dsn, "delete from transfer where false"):
        with pytest.raises(WriterOpen, match=r"^the transaction of process \d+ \(pos-server\) may add transfers and"):
            await work(admin)
    await work(admin)


@work
@pytest.mark.parametrize(
    "statement",
    [
        "lock table transfer in share update exclusive mode",  # as a vacuum does
        "lock table transfer in access share mode",  # as a dump does
        "select count(*) from transfer",
        "update wallet set name = name",
    ],
)
async def test_other_transactions_hold_nothing_up(
    work: Callable[[asyncpg.Connection], Awaitable[object]],
    statement: str,
    dsn: str,
    sold: Shop,
    admin: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Regression: a vacuum, a dump or a forgotten transaction stopped settlement and seals, and froze the sums."""
    monkeypatch.setattr("pos_server.ledger.horizon.WRITERS_TIMEOUT_S", 0.2)
    async with transaction(dsn, statement):
        await work(admin)


@work
async def test_a_writer_in_another_database_holds_nothing_up(
    work: Callable[[asyncpg.Connection], Awaitable[object]],
    postgres: str,
    sold: Shop,
    admin: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pos_server.ledger.horizon.WRITERS_TIMEOUT_S", 0.2)
    async with transaction(postgres, "create table transfer (id bigint)", "insert into transfer values (1)"):
        await work(admin)


@work
async def test_two_runs_at_once_both_succeed(
    work: Callable[[asyncpg.Connection], Awaitable[object]],
    dsn: str,
    sold: Shop,
    admin: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Regression: the first run waited for the second, which waited for the first."""
    monkeypatch.setattr("pos_server.ledger.horizon.WRITERS_TIMEOUT_S", 2.0)
    others = [await connect(dsn, timeout_s=10, role=None) for _ in range(3)]
    try:
        await asyncio.gather(*(work(each) for each in others))
    finally:
        for each in others:
            await each.close()
    assert (await audit(admin)).ok


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Yield a directory that root's Postgres user may enter."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest_asyncio.fixture
async def prepared_dsn(data_dir: Path) -> AsyncIterator[str]:
    """Yield the DSN of a ledger whose Postgres can prepare transactions."""
    postgres = EmbeddedPostgres(data_dir, bin_dir=BIN_DIR)
    dsn = await asyncio.to_thread(postgres.start)
    try:
        owner = await connect(dsn, timeout_s=10, role=None)
        await owner.execute("alter system set max_prepared_transactions = 5")
        await owner.close()
        await asyncio.to_thread(postgres.stop)
        dsn = await asyncio.to_thread(postgres.start)
        owner = await connect(dsn, timeout_s=10, role=None)
        await migrate(owner, load_migrations())
        await owner.close()
        yield dsn
    finally:
        await asyncio.to_thread(postgres.stop)


async def balance(connection: asyncpg.Connection) -> int:
    return next(each.balance_minor for each in await balances(connection) if each.kind == "merchant")


@pytest.mark.parametrize("when", ["before the read", "after the read"])
async def test_a_prepared_transaction_holds_the_horizon(
    when: str, prepared_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the sum passed a prepared transfer, so the merchant's balance stayed wrong."""
    monkeypatch.setattr("pos_server.ledger.horizon.WRITERS_TIMEOUT_S", 0.2)
    admin, connection = [await connect(prepared_dsn, timeout_s=10, role=role) for role in (None, "pos_app")]
    late = await connect(prepared_dsn, timeout_s=10)
    step = RollUp()
    try:
        shop = await build_shop(admin)
        await late.execute("begin")
        await run_batch(late, shop.scan(0, amount_minor=777))
        await run_batch(connection, shop.scan(1, amount_minor=1))
        if when == "before the read":
            await late.execute("prepare transaction 'pay'")
            await step.step(connection)
        else:
            await step.step(connection)
            await late.execute("prepare transaction 'pay'")
        for _ in range(2):
            await step.step(connection)
        with pytest.raises(WriterOpen, match=r"^a prepared transaction \('pay'\) may add"):
            await roll_up(connection)
        assert await balance(connection) == 1
        await admin.execute("commit prepared 'pay'")
        assert await balance(connection) == 778
        await roll_up(connection)
        assert await balance(connection) == 778
        assert (await audit(admin)).ok
    finally:
        for each in (admin, connection, late):
            await each.close()


async def test_a_writer_locks_the_table_before_it_draws_an_id(
    dsn: str, sold: Shop, connection: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    """Both statements that write transfers wait for the table, and have drawn nothing by then."""
    drawn = "select last_value from transfer_id_seq"
    waiting = "select exists (select from pg_locks where relation = 'transfer'::regclass and not granted)"
    before = await admin.fetchval(drawn)
    settling = await connect(dsn, timeout_s=10, role=None)
    works: list[Callable[[], Awaitable[object]]] = [
        lambda: run_batch(connection, sold.scan(1)),
        lambda: settle(settling, DAY, NOW),
    ]
    for work in works:
        async with transaction(dsn, "lock table transfer in share mode") as blocking:
            task = asyncio.ensure_future(work())
            async with asyncio.timeout(15):
                while not await admin.fetchval(waiting):  # noqa: ASYNC110 - the row is the only sign
                    await asyncio.sleep(0.01)
            assert await admin.fetchval(drawn) == before
            await blocking.execute("commit")
            await task
        assert await admin.fetchval(drawn) > before
        before = await admin.fetchval(drawn)
    await settling.close()


async def test_no_session_reserves_transfer_ids(admin: asyncpg.Connection) -> None:
    cache = "select seqcache from pg_sequence where seqrelid = pg_get_serial_sequence('transfer', 'id')::regclass"
    assert await admin.fetchval(cache) == 1


async def test_a_second_run_gives_up_plainly(
    dsn: str, admin: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pos_server.ledger.exclusive.EXCLUSIVE_TIMEOUT_S", 0.1)
    second = await connect(dsn, timeout_s=10, role=None)
    try:
        async with exclusive(admin, Command.SEAL):
            with pytest.raises(AlreadyRunning, match=r"another seal is running on this ledger\. Nothing was changed"):
                await _seal(second)
            await _settle(second)
        await _seal(second)
    finally:
        await second.close()
