"""kill -9 during settlement, sealing and roll-up: the next run completes the work, and nothing counts twice."""

import asyncio
import os
import signal
from pathlib import Path

import asyncpg
import pytest

from pos_server.ledger.audit import audit
from pos_server.ledger.rollup import balances
from pos_server.ledger.seals import check_seals
from tests.end_to_end.server_process import POS_SERVER, environment, pos_server, running_server
from tests.ledger.aging import follow_transfers
from tests.ledger.test_payments import run_batch
from tests.support import MASTER_KEYS, Shop
from tests.tiers import short_and_long

pytestmark = pytest.mark.asyncio
# The pause at each inserted row, in which the process is killed.
PAUSE_S = 0.2


async def pause_at_inserts(admin: asyncpg.Connection, table: str, when: str = "true") -> None:
    await admin.execute(
        "create function pause() returns trigger language plpgsql as "
        f"$$ begin perform pg_sleep({PAUSE_S}); return new; end $$; "
        f"create trigger pause before insert on {table} for each row when ({when}) execute function pause()"
    )


async def wait_for_pause(admin: asyncpg.Connection, *, paused: bool = True) -> None:
    """Wait until a session is in the pause, or until none is."""
    sleeping = (
        "select exists (select from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database())"
    )
    async with asyncio.timeout(30):
        while await admin.fetchval(sleeping) is not paused:  # noqa: ASYNC110 - Postgres has no event for it
            await asyncio.sleep(0.01)


async def run_and_kill(admin: asyncpg.Connection, dsn: str, *arguments: str | Path) -> None:
    """Run a command, kill it in the pause, and wait until its statement has ended in Postgres."""
    process = await asyncio.create_subprocess_exec(
        POS_SERVER,
        *arguments,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment(POS_DATABASE_URL=dsn),
    )
    await wait_for_pause(admin)
    process.send_signal(signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL
    await wait_for_pause(admin, paused=False)


async def sell_yesterday(connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection) -> str:
    """Make sales of 30.00 EUR in total, dated yesterday. Returns the day (UTC)."""
    await run_batch(connection, shop.scan(0), shop.scan(1), shop.scan(2))
    await admin.execute("update transfer set created_at = created_at - interval '1 day'")
    await follow_transfers(admin)
    day: str = await admin.fetchval("select max(created_at at time zone 'UTC')::date::text from transfer")
    return day


async def test_settlement(
    dsn: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    day = await sell_yesterday(connection, shop, admin)
    await pause_at_inserts(admin, "transfer", "new.kind = 'settlement'")
    for _ in range(3):
        await run_and_kill(admin, dsn, "settle", "--date", day, "--out", tmp_path)
        assert (await audit(admin)).ok
        # A settled day has no inserts, so the next run would not pause.
        if await admin.fetchval("select count(*) from settlement where paid_out_minor > 0"):
            break
    done = await pos_server("settle", "--date", day, "--out", tmp_path, POS_DATABASE_URL=dsn)
    assert done.status == 0, done.err
    paid = await admin.fetch("select amount_minor from transfer where kind = 'settlement'")
    assert [row["amount_minor"] for row in paid] == [3_000]
    assert {f"settlement-{day}.csv", f"settlement-{day}.json"} == {*os.listdir(tmp_path)}
    assert (await audit(admin)).ok


async def test_seals(dsn: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection) -> None:
    await sell_yesterday(connection, shop, admin)
    await pause_at_inserts(admin, "seal")
    await run_and_kill(admin, dsn, "seal")
    done = await pos_server("seal", POS_DATABASE_URL=dsn)
    assert done.status == 0, done.err
    report = await check_seals(admin, lambda seal: None, done.out.strip())
    assert (report.problems, report.transfers) == ([], 6)


@short_and_long("kills", 1, 3)
async def test_roll_up(
    kills: int, dsn: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection
) -> None:
    """The roll-up runs in the server, so the server is killed."""
    await run_batch(connection, shop.scan(0), shop.scan(1))
    before = await balances(admin)
    await pause_at_inserts(admin, "account_rollup")
    for _ in range(kills):
        async with running_server(POS_DATABASE_URL=dsn, POS_MASTER_KEYS=MASTER_KEYS) as server:
            await wait_for_pause(admin)
            assert await server.stop(signal.SIGKILL) == -signal.SIGKILL
        await wait_for_pause(admin, paused=False)
        assert await balances(admin) == before
        assert (await audit(admin)).ok
        await run_batch(connection, shop.scan(2, amount_minor=1))
        before = await balances(admin)
    await admin.execute("drop trigger pause on account_rollup")
    behind = "select (select max(id) from transfer) > (select last_id from rollup_horizon)"
    async with running_server(POS_DATABASE_URL=dsn, POS_MASTER_KEYS=MASTER_KEYS) as server:
        async with asyncio.timeout(30):
            while await admin.fetchval(behind):  # noqa: ASYNC110 - the horizon has no event
                await asyncio.sleep(0.05)
        assert await server.stop() == 0
    assert await balances(admin) == before
    assert (await audit(admin)).ok
