"""Time accounting work: a shift's close, settlement, audit and seals of a day with a million sales.

    python -m loadtest.experiments.ledger [--merchants 1000] [--sales 1000] [--shift 100000] [--json FILE]

Fills a database of its own with `merchants` x `sales` sales of yesterday, each with a fee, and one till's shift of
`shift` sales. Then it times the work of an operator. A scan of the whole transfer table in the same database is the
reference.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg

from loadtest.shared.process import new_ledger, owner_connection, print_progress
from loadtest.shared.sales_history import fill_ledger, shift_id_of
from pos_server.core.accounting.shifts import TotalKind
from pos_server.ledger.audit import audit
from pos_server.ledger.database import create_pool
from pos_server.ledger.seals import check_seals, seal_days
from pos_server.ledger.settlement import settle
from pos_server.ledger.shifts import close_shift, find_shift


async def run(merchants: int, sales: int, shift_sales: int) -> dict[str, float]:
    """Fill a database, time the work, and return seconds by name."""
    async with (
        new_ledger() as (dsn, _),
        owner_connection(dsn) as connection,
        await create_pool(dsn, timeout_s=30, size_max=1) as pool,
    ):
        return await _measure(connection, pool, merchants, sales, shift_sales)


async def _measure(
    connection: asyncpg.Connection, pool: asyncpg.Pool, merchants: int, sales: int, shift_sales: int
) -> dict[str, float]:
    await fill_ledger(connection, merchants, sales, days=1, shifts=1, shift_sales=shift_sales)
    transfers = await connection.fetchval("select count(*) from transfer")
    now = datetime.now(UTC)
    yesterday = (now - timedelta(days=1)).date()

    async def check_audit() -> None:
        report = await audit(connection)
        if not report.ok:
            raise SystemExit(f"the audit failed: {report.findings}")

    async def close() -> None:
        now_ms = int(now.timestamp() * 1000)
        shift_id = shift_id_of(1)
        terminal = await connection.fetchval("select number from terminal where shift_id = $1", shift_id)
        if await close_shift(pool, shift_id, terminal, 0, now_ms) is not None:
            raise SystemExit("the shift could not be closed")
        report = await find_shift(pool, terminal, shift_id, now_ms)
        if report is None or report.total(TotalKind.SALE).count != shift_sales:
            raise SystemExit(f"the shift's report is wrong: {report}")

    work: dict[str, Callable[[], Awaitable[object]]] = {
        "scan_s": lambda: connection.fetchval("select sum(amount_minor) from transfer"),
        "close_shift_s": close,
        "settle_s": lambda: settle(connection, yesterday, now),
        "audit_s": check_audit,
        "seal_s": lambda: seal_days(connection, now, "UTC", lambda seal: None),
        "check_seals_s": lambda: check_seals(connection, lambda seal: None),
    }
    figures: dict[str, float] = {"transfers": transfers}
    for name, step in work.items():
        start_s = time.monotonic()
        await step()
        figures[name] = round(time.monotonic() - start_s, 2)
        print_progress(f"  {name}: {figures[name]}")
    return figures


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="duration of a shift's close, settlement, audit and seals of a day")
    parser.add_argument("--merchants", type=int, default=1000, help="merchants (default 1000)")
    parser.add_argument("--sales", type=int, default=1000, help="sales per merchant (default 1000)")
    parser.add_argument("--shift", type=int, default=100_000, help="sales of the shift to close (default 100000)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    text = json.dumps(asyncio.run(run(arguments.merchants, arguments.sales, arguments.shift)), indent=2)
    print(text)  # noqa: T201
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
