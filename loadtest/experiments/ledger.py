"""Time accounting work and the first page of every list, in ledgers of any size.

    python -m loadtest.experiments.ledger [--days 1] [--merchants 1000] [--sales 1000] [--shift 100000] [--json FILE]

Fills a database of its own with `merchants` x `sales` sales per day for `days` days until yesterday, each with a fee,
and one till's shift of `shift` sales. The days before the last one are settled, sealed and audited first. Then it times
the work of an operator for the last day, and lists at a server. A scan of the whole transfer table in the same database
is the reference.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median

import asyncpg
import httpx

from loadtest.shared.process import POS_SERVER, new_ledger, owner_connection, print_progress, serving
from loadtest.shared.sales_history import fill_ledger, shift_id_of
from pos_server.cli.operator_acts import new_key
from pos_server.core.accounting.shifts import TotalKind
from pos_server.core.credentials.api_keys import Role
from pos_server.ledger.audit import audit
from pos_server.ledger.database import create_pool
from pos_server.ledger.incremental_audit import audit_incrementally
from pos_server.ledger.rollup import balances, roll_up
from pos_server.ledger.seals import check_seals, seal_days
from pos_server.ledger.settlement import settle
from pos_server.ledger.shifts import close_shift, find_shift

_Work = dict[str, Callable[[], Awaitable[object]]]
# First pages by role; names in braces are filled in.
_LISTS = {
    Role.ADMIN: ("/v1/merchants", "/v1/api-keys"),
    Role.ISSUER: (
        "/v1/wallets",
        "/v1/wallets/{wallet}",
        "/v1/wallets/{wallet}/devices",
        "/v1/wallets/{wallet}/transfers",
    ),
    Role.MERCHANT: (
        "/v1/payments",
        "/v1/payments?status=approved",
        "/v1/payments?status=declined",
        "/v1/payments?terminal_number={terminal}",
        "/v1/payments?reference={payment}",
        "/v1/payments?from={day}",
        "/v1/payments?to={day}",
        "/v1/payments/{payment}",
        "/v1/payments/{payment}/refunds",
        "/v1/stores",
        "/v1/terminals",
        "/v1/shifts",
        "/v1/statements",
        "/v1/balance",
    ),
}
_REQUESTS = 30


async def run(days: int, merchants: int, sales: int, shift_sales: int) -> dict[str, float]:
    """Fill a database, time the work, and return seconds by name."""
    async with (
        new_ledger() as (dsn, _),
        owner_connection(dsn) as connection,
        await create_pool(dsn, timeout_s=30, size_max=1) as pool,
    ):
        start_s = time.monotonic()
        await fill_ledger(connection, merchants, sales * days, days, shifts=1, shift_sales=shift_sales)
        await connection.execute("vacuum analyze")
        figures: dict[str, float] = {
            "transfers": await connection.fetchval("select count(*) from transfer"),
            "bytes": await connection.fetchval("select pg_database_size(current_database())"),
            "fill_s": round(time.monotonic() - start_s, 2),
        }
        figures |= await _timed(_work_of_the_past(connection, days))
        figures |= await _timed(_work_of_the_day(connection, pool, shift_sales))
        await connection.execute("vacuum analyze")
        return figures | await _list_ms(dsn, connection)


def _work_of_the_past(connection: asyncpg.Connection, days: int) -> _Work:
    """Return the work of all days before the last one."""
    if days == 1:
        return {}
    now = datetime.now(UTC)
    return {
        "past_settle_s": lambda: settle(connection, _yesterday(now) - timedelta(days=1), now),
        "past_seal_s": lambda: seal_days(connection, now - timedelta(days=1), "UTC", lambda seal: None),
        "past_incremental_audit_s": lambda: _audit_incrementally(connection),
    }


def _work_of_the_day(connection: asyncpg.Connection, pool: asyncpg.Pool, shift_sales: int) -> _Work:
    now = datetime.now(UTC)

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

    return {
        "scan_s": lambda: connection.fetchval("select sum(amount_minor) from transfer"),
        "close_shift_s": close,
        "settle_s": lambda: settle(connection, _yesterday(now), now),
        "settle_again_s": lambda: settle(connection, _yesterday(now), now),
        "seal_s": lambda: seal_days(connection, now, "UTC", lambda seal: None),
        "incremental_audit_s": lambda: _audit_incrementally(connection),
        "incremental_audit_again_s": lambda: _audit_incrementally(connection),
        "roll_up_s": lambda: roll_up(connection),
        "balances_s": lambda: balances(connection),
        "audit_s": check_audit,
        "check_seals_s": lambda: check_seals(connection, lambda seal: None),
    }


async def _audit_incrementally(connection: asyncpg.Connection) -> None:
    report = await audit_incrementally(connection, datetime.now(UTC), lambda audited: None)
    if not report.ok:
        raise SystemExit(f"the incremental audit failed: {report.findings}")


def _yesterday(now: datetime) -> date:
    return (now - timedelta(days=1)).date()


async def _timed(work: _Work) -> dict[str, float]:
    figures = {}
    for name, step in work.items():
        start_s = time.monotonic()
        await step()
        figures[name] = round(time.monotonic() - start_s, 3)
        print_progress(f"  {name}: {figures[name]}")
    return figures


async def _list_ms(dsn: str, connection: asyncpg.Connection) -> dict[str, float]:
    """Return the median milliseconds of the first page of each list, by path."""
    row = await connection.fetchrow(
        "select id, merchant_id, wallet_number as wallet, terminal_number as terminal from payment "
        "where terminal_number is not null order by changed_at limit 1"
    )
    if row is None:
        raise AssertionError("the ledger has sales")
    names = {
        "payment": row["id"],
        "wallet": row["wallet"],
        "terminal": row["terminal"],
        "day": f"{_yesterday(datetime.now(UTC))}T00:00:00Z",
    }
    figures = {}
    async with serving([POS_SERVER, "run", "--port", "0"], POS_DATABASE_URL=dsn) as server:
        for role, paths in _LISTS.items():
            key = await new_key(connection, role, row["merchant_id"] if role is Role.MERCHANT else None, "load")
            async with httpx.AsyncClient(base_url=server.url, headers={"Authorization": f"Bearer {key}"}) as client:
                for path in paths:
                    url = path.format(**names)
                    figures[f"{path} ms"] = round(median([await _get_ms(client, url) for _ in range(_REQUESTS)]), 1)
                    print_progress(f"  {path}: {figures[f'{path} ms']} ms")
    return figures


async def _get_ms(client: httpx.AsyncClient, url: str) -> float:
    start_s = time.perf_counter()
    response = await client.get(url)
    if response.status_code != httpx.codes.OK:
        raise SystemExit(f"GET {url}: {response.status_code} {response.text}")
    return (time.perf_counter() - start_s) * 1000


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="duration of accounting work and lists in ledgers of any size")
    parser.add_argument("--days", type=int, default=1, help="days with sales (default 1)")
    parser.add_argument("--merchants", type=int, default=1000, help="merchants (default 1000)")
    parser.add_argument("--sales", type=int, default=1000, help="sales per merchant and day (default 1000)")
    parser.add_argument("--shift", type=int, default=100_000, help="sales of the shift to close (default 100000)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    figures = asyncio.run(run(arguments.days, arguments.merchants, arguments.sales, arguments.shift))
    text = json.dumps(figures, indent=2)
    print(text)  # noqa: T201
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
