"""kill -9 of `pos-server archive` at any moment: each payment is in the ledger or in exactly one recorded part."""

import asyncio
import gzip
import json
import random
import signal
from collections import Counter
from pathlib import Path

import asyncpg
import pytest

from pos_server.core.payments.operations import CreateRefund
from pos_server.ledger.audit import audit
from pos_server.ledger.database import connect
from pos_server.ledger.rollup import balances
from pos_server.ledger.seals import check_seals
from tests.end_to_end.server_process import POS_SERVER, environment, pos_server
from tests.ledger.archived import BEFORE, archive_old, make_old
from tests.ledger.test_payments import run_batch
from tests.support import Shop, new_id
from tests.tiers import short_and_long

pytestmark = pytest.mark.asyncio
PAYMENTS_PER_PART = 2
# A part takes a few milliseconds.
KILLED_WITHIN_S = 0.1
AGE_LIMITS = {"POS_ARCHIVE_MIN_AGE_DAYS": "1.5", "POS_REFUND_WINDOW_DAYS": "1"}


async def old_sales(connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, rounds: int) -> None:
    """Make old sales of 0.10 EUR, thirty per round, every fourth with a refund."""
    for _ in range(rounds):
        wallets = range(len(shop.wallets))
        sales = [
            shop.scan(amount_minor=10, code=shop.wallets[wallet].code(seq=seq))
            for seq in range(10)
            for wallet in wallets
        ]
        refunds = [CreateRefund(new_id(), sale.payment_id, shop.merchant_id, None, 3) for sale in sales[::4]]
        await run_batch(connection, *sales, *refunds)
        # Allow the same codes again, because a wallet has ten codes per step.
        await admin.execute("update wallet_device set spent_mark = 0")
    await make_old(admin)


@short_and_long("kills", 2, 12)
async def test_kills_at_random_moments(
    kills: int, dsn: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    await old_sales(connection, shop, admin, 7)
    all_ids = {row["id"] for row in await admin.fetch("select id::text from payment")}
    before = await balances(admin)
    variables = environment(POS_DATABASE_URL=dsn, POS_ARCHIVE_PART_PAYMENTS_MAX=str(PAYMENTS_PER_PART), **AGE_LIMITS)
    killed = 0
    for _ in range(kills):
        process = await asyncio.create_subprocess_exec(
            POS_SERVER,
            *("archive", "--before", str(BEFORE), "--out", tmp_path),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=variables,
        )
        assert process.stderr is not None
        await process.stderr.readline()  # the first part is recorded
        try:
            async with asyncio.timeout(random.uniform(0, KILLED_WITHIN_S)):
                await process.wait()
        except TimeoutError:
            process.send_signal(signal.SIGKILL)
            await process.communicate()
            killed += 1
        await each_is_in_one_place(admin, tmp_path, all_ids)
    assert killed > 0
    done = await pos_server("archive", "--before", str(BEFORE), "--out", tmp_path, POS_DATABASE_URL=dsn, **AGE_LIMITS)
    assert done.status == 0, done.err
    assert await admin.fetchval("select count(*) from payment") == 0
    await each_is_in_one_place(admin, tmp_path, all_ids)
    assert await balances(admin) == before
    recorded = [row["file"] for row in await admin.fetch("select file from archive_part order by number")]
    # A file of a killed run is set aside, not deleted: a restored copy may have recorded it.
    assert [name for name in names(tmp_path) if not name.endswith(".unrecorded")] == recorded


async def each_is_in_one_place(admin: asyncpg.Connection, folder: Path, all_ids: set[str]) -> None:
    """Check that each payment is live or in one recorded part, and that audit and seals hold with and without parts."""
    # In one snapshot, because a commit of the killed process can still arrive.
    async with admin.transaction(isolation="repeatable_read", readonly=True):
        places = Counter(row["id"] for row in await admin.fetch("select id::text from payment"))
        parts = await admin.fetch("select file from archive_part")
    for row in parts:
        places.update(payments_in(folder / row["file"]))
    assert places == Counter(all_ids)
    assert (await audit(admin)).findings == []
    for archive_folder in (None, folder):
        assert (await check_seals(admin, lambda seal: None, None, archive_folder)).problems == []


def payments_in(path: Path) -> list[str]:
    with gzip.open(path, "rt") as lines:
        return [line["payment"]["id"] for line in map(json.loads, lines) if "payment" in line]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_a_file_without_a_record_is_written_again(
    dsn: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    """The database connection is lost after the file is complete and before the commit."""
    await old_sales(connection, shop, admin, 1)
    all_ids = {row["id"] for row in await admin.fetch("select id::text from payment")}
    await admin.execute(
        "create function die() returns trigger language plpgsql as $$ begin "
        "perform pg_terminate_backend(pg_backend_pid()); return new; end $$; "
        "create trigger die after insert on archive_part for each row execute function die()"
    )
    dying = await connect(dsn, timeout_s=10, role=None)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
        await archive_old(dying, tmp_path)
    dying.terminate()
    assert names(tmp_path) == ["payments-000001.jsonl.gz"]
    await each_is_in_one_place(admin, tmp_path, all_ids)
    await admin.execute("drop trigger die on archive_part")
    await archive_old(admin, tmp_path, part_payments_max=10)
    assert await admin.fetchval("select payments from archive_part where number = 1") == 10
    await each_is_in_one_place(admin, tmp_path, all_ids)
