"""Merchants' balances: the stored sum and later transfers, exact at any moment and under concurrency."""

import asyncio

import asyncpg
import pytest

from pos_server.cli.operator_acts import balances_text
from pos_server.ledger.audit import audit
from pos_server.ledger.database import connect
from pos_server.ledger.rollup import RollUp, balances
from pos_server.server import RunningServer
from tests.ledger.test_payments import run_batch
from tests.support import Shop, ask, logged_in, scan_message

pytestmark = pytest.mark.asyncio


async def held(connection: asyncpg.Connection) -> dict[str, int]:
    return {account.owner: account.balance_minor for account in await balances(connection)}


async def horizon(connection: asyncpg.Connection) -> int:
    last_id: int = await connection.fetchval("select last_id from rollup_horizon")
    return last_id


async def test_a_balance_is_right_before_and_after_each_step(connection: asyncpg.Connection, shop: Shop) -> None:
    roll_up, paid_minor = RollUp(), 0
    horizons = [await horizon(connection)]
    for wallet in (0, 1, 2, 0, 1, 2):
        await run_batch(connection, shop.scan(wallet, amount_minor=700))
        paid_minor += 700
        assert (await held(connection))["Corner Canteen"] == paid_minor
        await roll_up.step(connection)
        assert (await held(connection))["Corner Canteen"] == paid_minor
        horizons.append(await horizon(connection))
    assert horizons == sorted(horizons)
    assert horizons[-1] > horizons[0]
    assert (await held(connection))["cash_in"] == -30_000


async def test_the_horizon_waits_for_a_transfer_that_commits_late(
    dsn: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection
) -> None:
    """Its id is smaller than that of a committed transfer: if the horizon passed it, it would never be counted."""
    roll_up, late = RollUp(), await connect(dsn, timeout_s=10)
    try:
        await roll_up.step(connection)
        await roll_up.step(connection)
        before = await horizon(connection)
        async with late.transaction():
            await run_batch(late, shop.scan(0, amount_minor=500))
            await run_batch(connection, shop.scan(1, amount_minor=300))
            for _ in range(3):
                await roll_up.step(connection)
            assert await horizon(connection) == before
            assert (await held(connection))["Corner Canteen"] == 300
        assert (await held(connection))["Corner Canteen"] == 800
        for _ in range(3):
            await roll_up.step(connection)
        assert await horizon(connection) > before
        assert (await held(connection))["Corner Canteen"] == 800
    finally:
        await late.close()
    assert (await audit(admin)).ok


async def test_concurrent_rollups_count_nothing_twice(
    dsn: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection
) -> None:
    others = [await connect(dsn, timeout_s=10) for _ in range(2)]
    steps = [RollUp(), RollUp()]
    try:
        for number in range(12):
            await run_batch(connection, shop.scan(number % 3, amount_minor=100))
            await asyncio.gather(*(step.step(other) for step, other in zip(steps, others, strict=True)))
            assert (await held(connection))["Corner Canteen"] == 100 * (number + 1)
    finally:
        for other in others:
            await other.close()
    assert (await audit(admin)).ok


async def test_a_step_that_dies_leaves_nothing(
    dsn: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection
) -> None:
    await run_batch(connection, shop.scan())
    dying = await connect(dsn, timeout_s=10)
    roll_up = RollUp()
    await roll_up.step(dying)
    # Killed during its transaction: sum and horizon are written but not committed.
    await admin.execute(
        "grant pg_signal_backend to pos_app; create function die() returns trigger language plpgsql as $$ "
        "begin perform pg_terminate_backend(pg_backend_pid()); return new; end $$; "
        "create trigger die after update on rollup_horizon for each row execute function die()"
    )
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
        await roll_up.step(dying)
    dying.terminate()
    await admin.execute("drop trigger die on rollup_horizon")
    assert await horizon(connection) == 0
    fresh = RollUp()
    await fresh.step(connection)
    await fresh.step(connection)
    assert await horizon(connection) > 0
    assert (await held(connection))["Corner Canteen"] == 1000
    assert (await audit(admin)).ok


async def test_the_audit_names_a_wrong_sum(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection
) -> None:
    await run_batch(connection, shop.scan())
    roll_up = RollUp()
    await roll_up.step(connection)
    await roll_up.step(connection)
    await admin.execute("update account_rollup set balance_minor = balance_minor + 1 where account_id = 1")
    assert [(finding.check, finding.offenders) for finding in (await audit(admin)).findings] == [("rollup", ["1"])]


async def test_a_running_server_rolls_up(server: RunningServer, shop: Shop, connection: asyncpg.Connection) -> None:
    async with logged_in(server.url, shop.terminals[0]) as till, asyncio.timeout(15):
        await ask(till, scan_message(shop.wallets[0].code()))
        while await horizon(connection) == 0:  # noqa: ASYNC110 - the rows are the only sign
            await asyncio.sleep(0.01)
    assert "merchant  Corner Canteen                            10.00 EUR" in await balances_text(connection)
