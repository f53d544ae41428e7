"""kill -9 of what keeps the books, in the middle of its work: run again it completes, and nothing counts twice."""

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
from tests.ledger.test_payments import run_batch
from tests.support import MASTER_KEYS, Shop
from tests.tiers import short_and_long

pytestmark = pytest.mark.asyncio
# Long enough to be killed in: what works on these tables stands still at each row.
STANDSTILL_S = 0.2


async def stand_still(admin: asyncpg.Connection, table: str, when: str = "true") -> None:
    await admin.execute(
        "create function stand_still() returns trigger language plpgsql as "
        f"$$ begin perform pg_sleep({STANDSTILL_S}); return new; end $$; "
        f"create trigger stand_still before insert on {table} for each row when ({when}) execute function stand_still()"
    )


async def at_work(admin: asyncpg.Connection, *, wanted: bool) -> None:
    """Wait until a session stands still, or until none does."""
    sleeping = (
        "select exists (select from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database())"
    )
    async with asyncio.timeout(30):
        while await admin.fetchval(sleeping) is not wanted:  # noqa: ASYNC110 - Postgres tells nobody
            await asyncio.sleep(0.01)


async def killed(admin: asyncpg.Connection, dsn: str, *arguments: str | Path) -> None:
    """Run a command and kill it once it stands still; what it had begun is over then, one way or the other."""
    process = await asyncio.create_subprocess_exec(
        POS_SERVER,
        *arguments,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment(POS_DATABASE_URL=dsn),
    )
    await at_work(admin, wanted=True)
    process.send_signal(signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL
    await at_work(admin, wanted=False)


async def sell_yesterday(connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection) -> str:
    """Sales of 30.00 in all; returns the day (UTC) that they were made on."""
    await run_batch(connection, shop.scan(0), shop.scan(1), shop.scan(2))
    await admin.execute("update transfer set created_at = created_at - interval '1 day'")
    day: str = await admin.fetchval("select max(created_at at time zone 'UTC')::date::text from transfer")
    return day


async def test_settlement(
    dsn: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    day = await sell_yesterday(connection, shop, admin)
    await stand_still(admin, "transfer", "new.kind = 'settlement'")
    for _ in range(3):
        await killed(admin, dsn, "settle", "--date", day, "--out", tmp_path)
        assert (await audit(admin)).ok
        # Once it is settled there is nothing left to stand still at.
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
    await stand_still(admin, "seal")
    await killed(admin, dsn, "seal")
    done = await pos_server("seal", POS_DATABASE_URL=dsn)
    assert done.status == 0, done.err
    report = await check_seals(admin, lambda seal: None, done.out.strip())
    assert (report.problems, report.transfers) == ([], 6)


@short_and_long("kills", 1, 3)
async def test_roll_up(
    kills: int, dsn: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection
) -> None:
    """It runs in the server, so the server is killed."""
    await run_batch(connection, shop.scan(0), shop.scan(1))
    before = await balances(admin)
    await stand_still(admin, "account_rollup")
    for _ in range(kills):
        async with running_server(POS_DATABASE_URL=dsn, POS_MASTER_KEYS=MASTER_KEYS) as server:
            await at_work(admin, wanted=True)
            assert await server.stop(signal.SIGKILL) == -signal.SIGKILL
        await at_work(admin, wanted=False)
        assert await balances(admin) == before
        assert (await audit(admin)).ok
        await run_batch(connection, shop.scan(2, amount_minor=1))
        before = await balances(admin)
    await admin.execute("drop trigger stand_still on account_rollup")
    behind = "select (select max(id) from transfer) > (select last_id from rollup_horizon)"
    async with running_server(POS_DATABASE_URL=dsn, POS_MASTER_KEYS=MASTER_KEYS) as server:
        async with asyncio.timeout(30):
            while await admin.fetchval(behind):  # noqa: ASYNC110 - the horizon moves by itself
                await asyncio.sleep(0.05)
        assert await server.stop() == 0
    assert await balances(admin) == before
    assert (await audit(admin)).ok
