"""Measure the write-ahead log of a sale, for different settings of Postgres.

    python -m loadtest.experiments.wal [--payments 40000] [--wallets 20000] [--replay-mib 0] [--bin-dir DIR]
        [--json FILE]

Sales of random wallets pass through the server's statements in batches of 10, on an embedded Postgres with a ledger of
its own. The first change of a page after a checkpoint writes the whole page, so the log depends on the number of sales
between two checkpoints: at 20 sales/s and `checkpoint_timeout = 5min` there are 6,000. Each row of the table is a
number of sales between checkpoints with a setting of `wal_compression`: bytes of the log and CPU of the Postgres
session per sale. At the end, Postgres is killed after as many sales as fit between two checkpoints, or when it would
have to replay `replay-mib` MiB of the log, and its recovery is timed.

`bin-dir` has the programs of another Postgres, which may compress with lz4 and zstd.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import asyncpg
import uuid_utils.compat

from loadtest.shared.process import open_directory, owner_connection, print_progress
from loadtest.shared.seed import CURRENCY, KEYRING, Shop, seed_shop
from pos_server.core.credentials import payment_code
from pos_server.core.money import MAX_AMOUNT_MINOR
from pos_server.core.payments.decide import decide
from pos_server.core.payments.operations import Decided, Scan
from pos_server.core.payments.rules import Limits, Rules
from pos_server.ledger.database import connect
from pos_server.ledger.migrate import load_migrations, migrate
from pos_server.ledger.payments import HouseAccounts, apply_changes, load_snapshot
from pos_server.postgres.embedded import EmbeddedPostgres
from pos_server.postgres.postmaster import DATABASE, Postmaster

_BATCH = 10
_TILLS = 20
_BALANCE_MINOR = 10**9
_BETWEEN_CHECKPOINTS = (5_000, 20_000, 40_000)
_COMPRESSIONS = ("off", "pglz", "lz4", "zstd")
_TO_REPLAY = "select (pg_current_wal_insert_lsn() - redo_lsn)::bigint from pg_control_checkpoint()"
_STORED = "select sum(size)::bigint from pg_ls_waldir()"
_RULES = Rules(Limits(*[MAX_AMOUNT_MINOR] * len(Limits.__dataclass_fields__)))


def _scans(shop: Shop) -> Iterator[Scan]:
    used: dict[tuple[int, int], int] = {}
    while True:
        wallet, till = random.choice(shop.wallets), random.choice(shop.terminals)  # noqa: S311 - customers, not keys
        step = payment_code.step_at(time.time())
        seq = used[wallet.device.number, step] = used.get((wallet.device.number, step), -1) + 1
        if seq > payment_code.SEQ_MAX:
            continue
        payment_id = uuid_utils.compat.uuid7()
        yield Scan(
            payment_id=payment_id,
            terminal_number=till.device.number,
            merchant_id=shop.merchant_id,
            reference=str(payment_id),
            amount_minor=250,
            currency=CURRENCY,
            code=payment_code.make(wallet.key, wallet.device.number, wallet.device.slot, step, seq),
        )


async def _sell(connection: asyncpg.Connection, house: HouseAccounts, scans: Iterator[Scan], payments: int) -> None:
    for _ in range(0, payments, _BATCH):
        batch = list(islice(scans, _BATCH))
        snapshot = await load_snapshot(connection, batch, house)
        now_ms = time.time_ns() // 1_000_000
        outcomes, changes = decide(batch, snapshot, KEYRING, now_ms, _RULES, day_start_ms=0)
        if not all(isinstance(outcome, Decided) and not outcome.payment.decline_code for outcome in outcomes):
            raise SystemExit(f"not approved: {outcomes[0]}")
        await apply_changes(connection, changes, now_ms)


def _cpu_ns(pid: int) -> int:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


async def _measure(dsn: str, scans: Iterator[Scan], payments: int, between: int, compression: str) -> dict[str, object]:
    async with owner_connection(dsn) as owner:
        # Overrides the command line of the embedded Postgres, in sessions that start now.
        await owner.execute(f"alter database {DATABASE} set wal_compression = '{compression}'")
        connection, house = await connect(dsn, timeout_s=30), HouseAccounts()
        await _sell(connection, house, scans, 10 * _BATCH)  # prepares the plans
        pid = await connection.fetchval("select pg_backend_pid()")
        start_cpu_ns = _cpu_ns(pid)
        start = await owner.fetchval("select pg_current_wal_insert_lsn()")
        for _ in range(max(1, payments // between)):
            await owner.execute("checkpoint")
            await _sell(connection, house, scans, between)
        sold = between * max(1, payments // between)
        log_bytes = await owner.fetchval("select pg_current_wal_insert_lsn() - $1::pg_lsn", start)
        cpu_ns = _cpu_ns(pid) - start_cpu_ns
        await connection.close()
    return {
        "sales between checkpoints": between,
        "wal_compression": compression,
        "bytes per sale": round(log_bytes / sold),
        "CPU µs per sale": round(cpu_ns / sold / 1_000, 1),
    }


async def _recover(
    postgres: EmbeddedPostgres, data_dir: Path, dsn: str, scans: Iterator[Scan], replay_bytes: int
) -> dict[str, object]:
    """Sell until `replay_bytes` of the log would be replayed, kill Postgres, and time its recovery."""
    async with owner_connection(dsn) as owner:
        await owner.execute(f"alter database {DATABASE} reset wal_compression")
        connection, house = await connect(dsn, timeout_s=30), HouseAccounts()
        to_replay = await owner.fetchval(_TO_REPLAY)
        while to_replay < replay_bytes:
            await _sell(connection, house, scans, 1_000)
            before, to_replay = to_replay, await owner.fetchval(_TO_REPLAY)
            if to_replay < before:
                raise SystemExit(f"a checkpoint ended at {before >> 20} MiB: use a lower --replay-mib")
        stored = await owner.fetchval(_STORED)
        running = Postmaster.read(data_dir)
        if running is None:
            raise SystemExit("Postgres does not run")
        os.kill(running.pid, signal.SIGKILL)
        connection.terminate()
    start_s = time.monotonic()
    await asyncio.to_thread(postgres.revive)
    return {
        "MiB to replay": round(to_replay / 2**20),
        "MiB in pg_wal": round(stored / 2**20),
        "seconds to recover": round(time.monotonic() - start_s, 2),
    }


async def measure(payments: int, wallets: int, replay_mib: int, bin_dir: Path | None) -> list[dict[str, object]]:
    """Return the rows of the table; the last one is the recovery."""
    data_dir = open_directory("pos-wal-")
    postgres = EmbeddedPostgres(data_dir, bin_dir=bin_dir)
    rows: list[dict[str, object]] = []
    try:
        dsn = await asyncio.to_thread(postgres.start)
        async with owner_connection(dsn) as owner:
            await migrate(owner, load_migrations())
            shop = await seed_shop(owner, terminals=_TILLS, wallets=wallets, balance_minor=_BALANCE_MINOR)
            await owner.execute("vacuum analyze")
            scans = _scans(shop)
            built = await owner.fetchval("select enumvals from pg_settings where name = 'wal_compression'")
        for between in _BETWEEN_CHECKPOINTS:
            for compression in _COMPRESSIONS:
                if compression in built:
                    rows.append(await _measure(dsn, scans, payments, between, compression))
                    print_progress(str(rows[-1]))
        rows.append(await _recover(postgres, data_dir, dsn, scans, replay_mib * 2**20))
        print_progress(str(rows[-1]))
    finally:
        await asyncio.to_thread(postgres.stop)
        shutil.rmtree(data_dir, ignore_errors=True)
    return rows


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="write-ahead log of a sale")
    parser.add_argument("--payments", type=int, default=40_000, help="sales per row of the table (default 40000)")
    parser.add_argument("--wallets", type=int, default=20_000, help="wallets that pay (default 20000)")
    parser.add_argument(
        "--replay-mib", type=int, default=0, help="least MiB of the log to replay after the kill (default 0)"
    )
    parser.add_argument("--bin-dir", type=Path, help="directory of the programs of another Postgres")
    parser.add_argument("--json", type=Path, help="write the table to this file")
    arguments = parser.parse_args()
    rows = asyncio.run(measure(arguments.payments, arguments.wallets, arguments.replay_mib, arguments.bin_dir))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
