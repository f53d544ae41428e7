"""A ledger with a history of sales and open shifts, filled by SQL."""

from uuid import UUID

import asyncpg

from loadtest.shared.process import print_progress
from pos_server.ledger import directory

_WALLETS = 1000
# Sales of 1.00 with a fee of 0.01, spread evenly over the past days. Their ids are UUIDv7 (RFC 9562), as from tills.
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
insert into shift (id, merchant_id, terminal_number, number, operator, opening_cash_minor, opened_at)
select shift_id, (select merchant_id from store where id = store_id), number, 1, 'Alice', 0,
    date_trunc('day', now() at time zone 'UTC') at time zone 'UTC' - make_interval(days => $4)
from terminal where shift_id is not null;
with made as (
    insert into account (kind, name, currency)
    select 'wallet', 'Customer ' || i, 'EUR' from generate_series(1, $3) i
    returning id, name
)
insert into wallet (account_id, name, currency, balance_minor, day_start) select id, name, 'EUR', 0, now() from made;
create temporary table sale as
select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7' || substr(md5(random()::text), 1, 3)
    || '8' || substr(md5(random()::text), 1, 15))::uuid as id, *
from (
select m.id as merchant_id, m.account_id as merchant, t.number as terminal_number,
    w.number as wallet_number, w.account_id as wallet, t.shift_id,
    date_trunc('day', now() at time zone 'UTC') at time zone 'UTC' - make_interval(days => $4)
        + make_interval(secs => 86400.0 * $4 * (i - 0.5) / case when t.shift_id is null then $2 else $6 end) as at
from merchant m
join store s on s.merchant_id = m.id
join terminal t on t.store_id = s.id
cross join lateral generate_series(1, case when t.shift_id is null then $2 else $6 end) as i
join (select number, account_id, row_number() over (order by number) as n from wallet) as w on w.n = 1 + i % $3
) as s;
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
    merchant_id, created_at)
select kind, id, debit, credit, amount_minor, 'EUR', wallet_number, merchant_id, at from (
    select 'top_up' as kind, t.id, h.id as debit, t.wallet as credit, t.amount_minor, t.wallet_number,
        1 as merchant_id, now() - make_interval(days => $4 + 2) as at
    from top_up t join account h on h.kind = 'house' and h.name = 'cash_in'
    union all
    select 'payment', id, wallet, merchant, 100, wallet_number, merchant_id, at from sale
    union all
    select 'fee', s.id, s.merchant, h.id, 1, s.wallet_number, s.merchant_id, s.at
    from sale s join account h on h.kind = 'house' and h.name = 'fees'
) as x order by at;
analyze;
"""


def shift_id_of(shift: int) -> UUID:
    """Return the id of the open shift number `shift` of `fill_ledger`, counted from 1."""
    return UUID(f"00000000-0000-0000-0000-{shift:012}")


async def fill_ledger(
    connection: asyncpg.Connection, merchants: int, sales: int, days: int, *, shifts: int = 0, shift_sales: int = 0
) -> None:
    """Fill an empty ledger with `sales` sales per merchant, spread over the past `days` days (UTC).

    Also adds `shifts` open shifts, at terminals of their own, with `shift_sales` sales each.
    """
    await directory.create_merchant(connection, "Shop 1", "EUR")
    print_progress(f"filling {merchants} x {sales} sales, and {shifts} shifts of {shift_sales} …")
    statements = _FILL
    values = {"$1": merchants, "$2": sales, "$3": _WALLETS, "$4": days, "$5": shifts, "$6": shift_sales}
    for name, value in values.items():
        statements = statements.replace(name, str(value))
    await connection.execute(statements)
