"""The synchronous standby is gone: no payment is approved before a standby has it, also when it is repeated.

Postgres waits for the standby `nobody`, which never comes. The private Postgres of this file has the setting.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
import pytest_asyncio

from pos_server.core.errors import ErrorCode
from pos_server.core.payments.operations import Decided, Scan
from pos_server.ledger import history
from pos_server.ledger.database import connect, create_pool
from pos_server.ledger.durability import confirm_durable
from pos_server.postgres.embedded import EmbeddedPostgres
from tests.copies import replace
from tests.databases import database, make_template
from tests.engine.test_authorizer import LIMITS, Engine, payments, running, status
from tests.support import Shop, open_directory
from tests.tested_postgres import BIN_DIR

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]

ONE_LANE = replace(LIMITS, lanes=1, batch_attempts_max=2)
IMPATIENT = replace(ONE_LANE, batch_timeout_s=0.3)
_WAITING = """
select pid from pg_stat_activity where wait_event = 'SyncRep' and datname = current_database() and pid <> all($1)
"""


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[str]:
    data_dir = open_directory("pos-standby-")
    try:
        with EmbeddedPostgres(data_dir, bin_dir=BIN_DIR) as dsn:
            asyncio.run(make_template(dsn))
            yield dsn
    finally:
        shutil.rmtree(data_dir, ignore_errors=True)


@pytest_asyncio.fixture
async def dsn(own_postgres: str) -> AsyncIterator[str]:
    async with database(own_postgres) as created:
        yield created


@asynccontextmanager
async def without_standby(admin: asyncpg.Connection) -> AsyncIterator[None]:
    """Let commits wait for a standby that does not exist, until the block ends."""
    await admin.execute("set synchronous_commit = local")
    await _require_standby(admin, "nobody")
    try:
        yield
    finally:
        await _require_standby(admin, "")


async def _require_standby(admin: asyncpg.Connection, names: str) -> None:
    await admin.execute(f"alter system set synchronous_standby_names = '{names}'")
    await admin.execute("select pg_reload_conf()")
    async with asyncio.timeout(10):
        while await admin.fetchval("select current_setting('synchronous_standby_names')") != names:
            pass
    # Commits wait as soon as the checkpointer has read the setting, which it does before it makes a checkpoint.
    await admin.execute("checkpoint")


async def end_waits(admin: asyncpg.Connection, function: str, engine: Engine) -> int:
    """Call `function` for each backend that waits for the standby until the engine has answered. Returns the calls."""
    ended: list[int] = []
    answered = asyncio.create_task(engine.authorizer.drained())
    async with asyncio.timeout(20):
        while not answered.done():
            for row in await admin.fetch(_WAITING, ended if function == "pg_terminate_backend" else []):
                await admin.execute(f"select {function}($1)", row["pid"])
                ended.append(row["pid"])
    return len(ended)


async def commit_alone(dsn: str, scan: Scan, admin: asyncpg.Connection) -> None:
    """Make a payment that is committed and visible, but at no standby."""
    async with running(dsn, replace(ONE_LANE, batch_attempts_max=1)) as engine:
        engine.authorizer.submit(scan, "scan")
        await end_waits(admin, "pg_cancel_backend", engine)
    assert status(engine.outcomes["scan"]) == ErrorCode.UNKNOWN_OUTCOME
    assert await payments(admin) == 1


@pytest.mark.parametrize("function", ["pg_terminate_backend", "pg_cancel_backend"])
async def test_a_wait_that_is_ended_never_ends_in_an_approval(
    dsn: str, shop: Shop, admin: asyncpg.Connection, function: str
) -> None:
    scan = shop.scan()
    async with running(dsn, ONE_LANE) as engine:
        async with without_standby(admin):
            engine.authorizer.submit(scan, "lost")
            assert await end_waits(admin, function, engine) >= 2
            assert status(engine.outcomes["lost"]) == ErrorCode.UNKNOWN_OUTCOME
            assert await payments(admin) == 1  # committed and visible, but at no standby
            engine.authorizer.submit(scan, "repeated")
            await end_waits(admin, function, engine)
            assert status(engine.outcomes["repeated"]) == ErrorCode.UNKNOWN_OUTCOME
        engine.authorizer.submit(scan, "confirmed")
        await engine.authorizer.drained()
    confirmed = engine.outcomes["confirmed"]
    assert isinstance(confirmed, Decided)
    assert (status(confirmed), confirmed.replayed) == ("approved", True)
    assert await payments(admin) == 1


async def test_a_repeat_at_another_server_waits_too(dsn: str, shop: Shop, admin: asyncpg.Connection) -> None:
    scan = shop.scan()
    async with without_standby(admin):
        await commit_alone(dsn, scan, admin)
        async with running(dsn, IMPATIENT) as engine:
            assert [status(outcome) for outcome in await engine.authorize(scan)] == [ErrorCode.UNKNOWN_OUTCOME]
    async with running(dsn, IMPATIENT) as engine:
        assert [status(outcome) for outcome in await engine.authorize(scan)] == ["approved"]


async def test_queries_and_replays_do_not_show_it_either(dsn: str, shop: Shop, admin: asyncpg.Connection) -> None:
    scan, till = shop.scan(), shop.terminals[0].device.number
    phone = shop.wallets[0].device.number
    before = history.Cursor.before(0)
    pool = await create_pool(dsn, timeout_s=0.3, size_max=2)

    async def reads() -> list[object]:
        return await asyncio.gather(
            history.find_payment(pool, shop.merchant_id, scan.payment_id, None),
            history.find_payment(pool, shop.merchant_id, None, scan.reference),
            history.terminal_payments_after(pool, till, before, 10),
            history.terminal_recent(pool, till, 10),
            history.wallet_payments_after(pool, phone, before, 10),
            history.wallet_history(pool, phone, None, 10),
            return_exceptions=True,
        )

    try:
        async with without_standby(admin):
            await commit_alone(dsn, scan, admin)
            assert [type(result) for result in await reads()] == [TimeoutError] * 6
        assert not any(isinstance(result, Exception) for result in await reads())
    finally:
        pool.terminate()


async def test_nothing_is_committed_without_a_synchronous_standby(connection: asyncpg.Connection) -> None:
    async with connection.transaction():
        await confirm_durable(connection)
        assert await connection.fetchval("select pg_current_xact_id_if_assigned()") is None


async def test_the_servers_role_may_wait_for_the_standby(dsn: str, admin: asyncpg.Connection) -> None:
    async with without_standby(admin):
        connection = await connect(dsn, timeout_s=10)
        try:
            async with connection.transaction():
                await confirm_durable(connection)
                assert await connection.fetchval("select pg_current_xact_id_if_assigned()") is not None
                await connection.execute("set local synchronous_commit = local")
        finally:
            await connection.close()


async def test_a_batch_that_writes_covers_its_repeats(dsn: str, admin: asyncpg.Connection, shop: Shop) -> None:
    first, second = shop.scan(0), shop.scan(1)
    async with running(dsn, ONE_LANE) as engine:
        await engine.authorize(first)
        async with without_standby(admin):
            engine.authorizer.submit(first, "repeat")
            engine.authorizer.submit(second, "new")
            assert await end_waits(admin, "pg_terminate_backend", engine) == 2
            assert {status(engine.outcomes[name]) for name in ("repeat", "new")} == {ErrorCode.UNKNOWN_OUTCOME}
