"""How long the books take: a shift's close, settlement, audit and seals of a day of a million sales.

    python -m loadtest.experiments.ledger [--merchants 1000] [--sales 1000] [--shift 100000] [--json FILE]

Fills a database of its own with `merchants` x `sales` sales of yesterday, each with its fee, and one till's shift of
`shift` sales, and times what an operator runs; the scan of the whole table of transfers in the same database is what to
compare with.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg

from loadtest.shared.process import new_ledger, owner, say
from pos_server.core.accounting.shifts import TotalKind
from pos_server.ledger import directory
from pos_server.ledger.audit import audit
from pos_server.ledger.database import create_pool
from pos_server.ledger.seals import check_seals, seal_days
from pos_server.ledger.settlement import settle
from pos_server.ledger.shifts import close_shift, find_shift

_WALLETS = 1000
# Sales of 1.00 with a fee of 0.01, spread evenly over the days before today.
_FILL = """
with made as (
    insert into account (kind, name, currency) select 'merchant', 'Shop ' || i, 'EUR' from generate_series(2, $1) i
    returning id, name
)
insert into merchant (account_id, name, currency) select id, name, 'EUR' from made;
update merchant set fee_bps = 100;
insert into store (merchant_id, name) select id, 'Hall' from merchant;
insert into terminal (store_id, name) select id, 'Till' from store;
insert into terminal (store_id, name, shift_id)
select 1, 'Busy till ' || i, ('00000000-0000-0000-0000-' || lpad(i::text, 12, '0'))::uuid from generate_series(1, $5) i;
insert into shift (id, terminal_number, number, operator, opening_cash_minor, opened_at)
select shift_id, number, 1, 'Alice', 0, date_trunc('day', now() at time zone 'UTC') at time zone 'UTC'
    - make_interval(days => $4)
from terminal where shift_id is not null;
with made as (
    insert into account (kind, name, currency)
    select 'wallet', 'Customer ' || i, 'EUR' from generate_series(1, $3) i
    returning id, name
)
insert into wallet (account_id, name, currency, balance_minor) select id, name, 'EUR', 0 from made;
create temporary table sale as
select gen_random_uuid() as id, m.id as merchant_id, m.account_id as merchant, t.number as terminal_number,
    w.number as wallet_number, w.account_id as wallet, t.shift_id,
    date_trunc('day', now() at time zone 'UTC') at time zone 'UTC' - make_interval(days => $4)
        + make_interval(secs => 86400.0 * $4 * (i - 0.5) / case when t.shift_id is null then $2 else $6 end) as at
from merchant m
join store s on s.merchant_id = m.id
join terminal t on t.store_id = s.id
cross join lateral generate_series(1, case when t.shift_id is null then $2 else $6 end) as i
join (select number, account_id, row_number() over (order by number) as n from wallet) as w on w.n = 1 + i % $3;
create temporary table top_up as
select gen_random_uuid() as id, wallet_number, wallet, count(*) * 100 as amount_minor from sale group by 2, 3;
insert into payment (id, fingerprint, merchant_id, wallet_number, reference, amount_minor, currency, status, version,
    changed_at, approved_at, purpose)
select id, 'seed', 1, wallet_number, 'seed-' || wallet_number, amount_minor, 'EUR', 'approved', 1,
    now() - make_interval(days => $4 + 2), now() - make_interval(days => $4 + 2), 'top_up' from top_up;
insert into payment (id, fingerprint, terminal_number, merchant_id, wallet_number, reference, amount_minor, currency,
    status, version, changed_at, approved_at, fee_minor, shift_id)
select id, 'seed', terminal_number, merchant_id, wallet_number, id::text, 100, 'EUR', 'approved', 1, at, at, 1, shift_id
from sale order by at;
insert into transfer (kind, source_id, debit_account_id, credit_account_id, amount_minor, currency, wallet_number,
    created_at)
select kind, id, debit, credit, amount_minor, 'EUR', wallet_number, at from (
    select 'top_up' as kind, t.id, h.id as debit, t.wallet as credit, t.amount_minor, t.wallet_number,
        now() - make_interval(days => $4 + 2) as at
    from top_up t join account h on h.kind = 'house' and h.name = 'cash_in'
    union all
    select 'payment', id, wallet, merchant, 100, wallet_number, at from sale
    union all
    select 'fee', s.id, s.merchant, h.id, 1, s.wallet_number, s.at
    from sale s join account h on h.kind = 'house' and h.name = 'fees'
) as x order by at;
analyze;
"""


def shift_id_of(shift: int) -> UUID:
    """The id of a shift that `fill` opened: they are counted from 1."""
    return UUID(f"00000000-0000-0000-0000-{shift:012}")


async def fill(
    connection: asyncpg.Connection, merchants: int, sales: int, days: int, *, shifts: int = 0, shift_sales: int = 0
) -> None:
    """Fill an empty ledger: `sales` sales of each merchant, spread over the `days` days (UTC) before today.

    And `shifts` open shifts, at terminals of their own, with `shift_sales` sales each.
    """
    await directory.create_merchant(connection, "Shop 1", "EUR")
    say(f"filling {merchants} x {sales} sales, and {shifts} shifts of {shift_sales} …")
    statements = _FILL
    values = {"$1": merchants, "$2": sales, "$3": _WALLETS, "$4": days, "$5": shifts, "$6": shift_sales}
    for name, value in values.items():
        statements = statements.replace(name, str(value))
    await connection.execute(statements)


async def run(merchants: int, sales: int, shift_sales: int) -> dict[str, float]:
    """Fill a database and time the work; returns seconds by name."""
    async with (
        new_ledger() as (dsn, _),
        owner(dsn) as connection,
        await create_pool(dsn, timeout_s=30, size_max=1) as pool,
    ):
        return await _measure(connection, pool, merchants, sales, shift_sales)


async def _measure(
    connection: asyncpg.Connection, pool: asyncpg.Pool, merchants: int, sales: int, shift_sales: int
) -> dict[str, float]:
    await fill(connection, merchants, sales, days=1, shifts=1, shift_sales=shift_sales)
    transfers = await connection.fetchval("select count(*) from transfer")
    now = datetime.now(UTC)
    yesterday = (now - timedelta(days=1)).date()

    async def audited() -> None:
        report = await audit(connection)
        if not report.ok:
            raise SystemExit(f"the audit failed: {report.findings}")

    async def close() -> None:
        now_ms = int(now.timestamp() * 1000)
        shift_id = shift_id_of(1)
        terminal = await connection.fetchval("select number from terminal where shift_id = $1", shift_id)
        if await close_shift(pool, shift_id, terminal, 0, now_ms) is not None:
            raise SystemExit("the shift could not be closed")
        closed = await find_shift(pool, terminal, shift_id, now_ms)
        if closed is None or closed.total(TotalKind.SALE).count != shift_sales:
            raise SystemExit(f"the shift's report is wrong: {closed}")

    work: dict[str, Callable[[], Awaitable[object]]] = {
        "scan_s": lambda: connection.fetchval("select sum(amount_minor) from transfer"),
        "close_shift_s": close,
        "settle_s": lambda: settle(connection, yesterday, now),
        "audit_s": audited,
        "seal_s": lambda: seal_days(connection, now, "UTC", lambda seal: None),
        "check_seals_s": lambda: check_seals(connection, lambda seal: None),
    }
    figures: dict[str, float] = {"transfers": transfers}
    for name, step in work.items():
        started_s = time.monotonic()
        await step()
        figures[name] = round(time.monotonic() - started_s, 2)
        say(f"  {name}: {figures[name]}")
    return figures


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="how long settlement, audit and seals of a day take")
    parser.add_argument("--merchants", type=int, default=1000)
    parser.add_argument("--sales", type=int, default=1000, help="of each merchant")
    parser.add_argument("--shift", type=int, default=100_000, help="sales of the shift that is closed")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    text = json.dumps(asyncio.run(run(arguments.merchants, arguments.sales, arguments.shift)), indent=2)
    print(text)  # noqa: T201
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
