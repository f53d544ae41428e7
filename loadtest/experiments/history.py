"""Measure the cost of years of history per payment: an archive, or monthly partitions instead.

    python -m loadtest.experiments.history [--archived 5000000] [--live 1000000] [--rounds 7]
        [--payments 1000] [--json FILE]

Each design has a database of its own in one Postgres, with `live` sales of the last thirteen months:

    empty        the current ledger, with nothing archived
    archived     the current ledger, with the names of `archived` payments
    partitioned  payment, refund and transfer in 14 monthly partitions by id, and a table for the references

In every round each design takes `payments` sales through load_snapshot, decide and apply_changes, in batches of 1 and
of 50. The order of the designs rotates from round to round. The figures are medians over the rounds, in microseconds
per payment, and ratios to `empty`. At the end, `pos-server archive` is timed on the oldest sales of `archived`, and the
ledger is audited.
"""

import argparse
import asyncio
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import median

import asyncpg
import uuid_utils.compat

from loadtest.shared.process import open_directory, print_progress
from loadtest.shared.seed import CURRENCY, KEYRING, Shop, seed_shop
from pos_server.core.credentials import payment_code
from pos_server.core.money import MAX_AMOUNT_MINOR
from pos_server.core.payments.decide import decide
from pos_server.core.payments.operations import Decided, Scan
from pos_server.core.payments.payment import Status
from pos_server.core.payments.rules import Limits, Rules
from pos_server.ledger.archive import archive
from pos_server.ledger.audit import audit
from pos_server.ledger.database import connect
from pos_server.ledger.migrate import load_migrations, migrate
from pos_server.ledger.payments import HouseAccounts, apply_changes, load_snapshot
from pos_server.ledger.seals import seal_days
from pos_server.ledger.settlement import settle
from pos_server.ledger.sql import QUERIES
from pos_server.postgres.embedded import EmbeddedPostgres

_BATCHES = (1, 50)
_WALLETS = 200
_BALANCE_MINOR = 10**9
_MONTHS = 14
_STEP_MS = 30_000
_MIN_AGE = timedelta(days=300)
_RULES = Rules(Limits(*[MAX_AMOUNT_MINOR] * len(Limits.__dataclass_fields__)))

# A UUIDv7 (RFC 9562) for a given time, on any version of Postgres.
_UUID7 = """
create function uuid7_at(timestamptz) returns uuid language sql volatile return (
    lpad(to_hex((extract(epoch from $1) * 1000)::bigint), 12, '0') || '7' || substr(md5(random()::text), 1, 3)
    || '8' || substr(md5(random()::text), 1, 15))::uuid;
"""
# Sales of 1.00, spread evenly from thirteen months ago until yesterday, over all wallets.
_LIVE = """
create temporary table sale as
select uuid7_at(at) as id, at, w.number as wallet_number, w.account_id as wallet, i from (
    select i, now() - interval '1 day' - interval '395 days' * (1 - i::float8 / $1) as at
    from generate_series(1, $1) as i
) as s
join (select number, account_id, row_number() over (order by number) - 1 as n from wallet) as w
    on w.n = i % (select count(*) from wallet)
order by i;
update payment set changed_at = now() - interval '500 days', approved_at = now() - interval '500 days';
update transfer set created_at = now() - interval '500 days';
insert into payment (id, fingerprint, terminal_number, merchant_id, wallet_number, reference, amount_minor, currency,
    status, version, changed_at, approved_at)
select id, '\\x000102030405060708090a0b0c0d0e0f', (select min(number) from terminal), (select min(id) from merchant),
    wallet_number, 'order-' || lpad(i::text, 10, '0'), 100, 'EUR', 'approved', 1, at, at
from sale order by i;
insert into transfer (kind, source_id, debit_account_id, credit_account_id, amount_minor, currency, wallet_number,
    merchant_id, created_at)
select 'payment', id, wallet, (select min(account_id) from merchant), 100, 'EUR', wallet_number,
    (select min(id) from merchant), at
from sale order by i;
update wallet w set day_start = now(),
    balance_minor = balance_minor - 100 * (select count(*) from sale where wallet_number = w.number);
drop table sale;
"""
# The names of older sales.
_ARCHIVED = """
insert into archived_name (merchant_id, id, status, reference)
select (select min(id) from merchant),
    uuid7_at(now() - interval '400 days' - interval '1825 days' * (1 - i::float8 / $1)),
    'approved', 'older-' || lpad(i::text, 10, '0')
from generate_series(1, $1) as i;
"""

# The alternative. Payments and refunds are partitioned by the time in their UUIDv7, transfers evenly by id. Rows with
# other ids go into a default partition. Only ids can be unique over all partitions, so references need a table.
_PARTITIONED = """
alter table payment rename to plain_payment;
alter table refund rename to plain_refund;
alter table transfer rename to plain_transfer;
create table payment (like plain_payment including defaults including constraints) partition by range (id);
create table refund (like plain_refund including defaults including constraints) partition by range (id);
create table transfer (like plain_transfer including defaults including constraints) partition by range (id);
create sequence transfer_ids;
alter table transfer alter id set default nextval('transfer_ids');
"""
_PARTITION = """
create table {table}_{number} partition of {table} for values from ({lower}) to ({upper});
"""
_PARTITIONED_INDEXES = """
create table payment_rest partition of payment default;
create table refund_rest partition of refund default;
insert into payment select * from plain_payment order by changed_at;
insert into refund select * from plain_refund;
insert into transfer select * from plain_transfer order by id;
select setval('transfer_ids', (select max(id) from plain_transfer));
create table payment_reference (
    merchant_id bigint not null,
    reference text not null,
    payment_id uuid not null,
    status text not null,
    primary key (merchant_id, reference)
);
insert into payment_reference select merchant_id, reference, id, status from payment
where status in ('pending', 'approved', 'canceled') and reference is not null;
drop table plain_payment, plain_refund, plain_transfer cascade;
alter table payment add primary key (id, merchant_id);
create index payment_failed_reference on payment (merchant_id, reference, changed_at)
    where status in ('declined', 'expired');
create index payment_pending on payment (expires_at) where status = 'pending';
create index payment_pending_wallet on payment (wallet_number) where status = 'pending';
create index payment_terminal on payment (terminal_number, changed_at);
create index payment_wallet on payment (wallet_number, changed_at) where wallet_number is not null;
alter table refund add primary key (id, merchant_id);
alter table transfer add primary key (id);
create index transfer_source on transfer (source_id, kind, merchant_id);
create index transfer_created on transfer using brin (created_at) with (pages_per_range = 32);
grant select, insert, update on payment to pos_app;
grant select, insert on refund, transfer, payment_reference to pos_app;
grant usage on transfer_ids to pos_app;
"""
# The two statements of a sale in that design: they look up and insert the reference in its own table.
_LOAD_CHANGES = {
    "select o.id, o.status from payment o\n": "select o.payment_id as id, o.status from payment_reference o\n",
    " and o.status in ('pending', 'approved', 'canceled')\n": "\n",
    """left join lateral (
    select a.id, a.status from archived_name a where a.merchant_id = q.merchant_id and a.reference = q.reference limit 1
) as ao on true
""": "",
    """    coalesce(o.id, ao.id) as open_payment_id, coalesce(o.status, ao.status) as open_payment_status,
    ao.id as archived_order_id,
    (
        select a.id from archived_name a where a.id = q.payment_id and a.merchant_id = q.merchant_id
    ) as archived_payment_id
""": """    o.id as open_payment_id, o.status as open_payment_status,
    null::uuid as archived_order_id, null::uuid as archived_payment_id
""",
}
_APPLY_CHANGES = {
    "), posted as (": """), occupied as (
    insert into payment_reference (merchant_id, reference, payment_id, status)
    select merchant_id, reference, payment_id, status from unnest($3::payment_change[])
    where seen_version = 0 and reference is not null and status in ('pending', 'approved', 'canceled')
), posted as (""",
}


@dataclass(slots=True)
class Design:
    """A database under measurement: its statements for a batch, its shop, and its virtual clock."""

    name: str
    connection: asyncpg.Connection
    shop: Shop
    merchant_id: int
    statements: Mapping[str, str]
    house: HouseAccounts = field(default_factory=HouseAccounts)
    now_ms: int = field(default_factory=lambda: int(time.time() * 1000))
    sales_count: int = 0


async def run(archived: int, live: int, rounds: int, payments: int) -> dict[str, float]:
    """Fill the databases, measure, and return the figures by name."""
    data_dir = open_directory("pos-history-")
    postgres = EmbeddedPostgres(data_dir / "data")
    dsn = await asyncio.to_thread(postgres.start)
    try:
        designs = [await _create_design(dsn, name, archived, live) for name in ("empty", "archived", "partitioned")]
        figures = await _measure_sales(designs, rounds, payments)
        figures |= await _measure_archive(dsn, designs[1], archived, data_dir / "archive")
        for design in designs:
            await design.connection.close()
        return figures
    finally:
        await asyncio.to_thread(postgres.stop)
        shutil.rmtree(data_dir, ignore_errors=True)


async def _create_design(dsn: str, name: str, archived: int, live: int) -> Design:
    print_progress(f"filling {name} …")
    database = f"history_{name}"
    design_dsn = dsn.replace("/pos?", f"/{database}?")
    connection = await connect(dsn, timeout_s=30, role=None)
    await connection.execute(f"create database {database}")
    await connection.close()
    owner = await connect(design_dsn, timeout_s=30, role=None)
    try:
        await migrate(owner, load_migrations())
        shop = await seed_shop(owner, terminals=1, wallets=_WALLETS, balance_minor=_BALANCE_MINOR)
        await owner.execute(_UUID7)
        await owner.execute(_LIVE.replace("$1", str(live)))
        if name == "archived":
            await owner.execute(_ARCHIVED.replace("$1", str(archived)))
        elif name == "partitioned":
            await owner.execute(_PARTITIONED)
            await owner.execute(_partitions(live))
            await owner.execute(_PARTITIONED_INDEXES)
        await owner.execute("vacuum analyze")
        merchant_id = await owner.fetchval("select min(id) from merchant")
    finally:
        await owner.close()
    return Design(name, await connect(design_dsn, timeout_s=30), shop, merchant_id, _statements(name))


def _partitions(live: int) -> str:
    """Return the statements for thirteen filled months and the current one. New transfers go to the last partition."""
    now, month = datetime.now(UTC), timedelta(days=396) / (_MONTHS - 1)
    bounds = [now - month * (_MONTHS - 1 - number) for number in range(_MONTHS)] + [now + 2 * month]
    transfers_per_month = (live + _WALLETS) // (_MONTHS - 1) + 1
    text = ""
    for number, month_bounds in enumerate(pairwise(bounds)):
        lower, upper = (f"'{int(bound.timestamp() * 1000):012x}00000000000000000000'" for bound in month_bounds)
        for table in ("payment", "refund"):
            text += _PARTITION.format(table=table, number=number, lower=lower, upper=upper)
        lower_id = "minvalue" if number == 0 else str(transfers_per_month * number)
        upper_id = "maxvalue" if number == _MONTHS - 1 else str(transfers_per_month * (number + 1))
        text += _PARTITION.format(table="transfer", number=number, lower=lower_id, upper=upper_id)
    return text


def _statements(name: str) -> dict[str, str]:
    load, apply = QUERIES["load_snapshot"], QUERIES["apply_new_payments"]
    if name == "partitioned":
        load, apply = _replace(load, _LOAD_CHANGES), _replace(apply, _APPLY_CHANGES)
    return {"load_snapshot": load, "apply_new_payments": apply}


def _replace(statement: str, changes: Mapping[str, str]) -> str:
    for old, new in changes.items():
        if statement.count(old) != 1:
            raise AssertionError(f"the statement has changed, so adapt this experiment: {old}")
        statement = statement.replace(old, new)
    return statement


async def _measure_sales(designs: list[Design], rounds: int, payments: int) -> dict[str, float]:
    """Return microseconds per payment, by design and batch size."""
    for design in designs:
        for batch in _BATCHES:
            await _sell(design, batch, 10 * batch)  # prepare the statements and fill the caches
    durations_us: dict[tuple[str, int], list[float]] = {
        (design.name, batch): [] for design in designs for batch in _BATCHES
    }
    for number in range(rounds):
        print_progress(f"round {number + 1} of {rounds} …")
        first = number % len(designs)
        for batch in _BATCHES:
            for design in designs[first:] + designs[:first]:
                durations_us[design.name, batch].append(await _sell(design, batch, payments))
    figures: dict[str, float] = {}
    for batch in _BATCHES:
        for design in designs:
            figures[f"{design.name}_{batch}_us"] = round(median(durations_us[design.name, batch]), 1)
        for design in designs[1:]:
            pairs = zip(durations_us[design.name, batch], durations_us["empty", batch], strict=True)
            figures[f"{design.name}_{batch}_ratio"] = round(median(us / empty_us for us, empty_us in pairs), 3)
    return figures


async def _sell(design: Design, batch: int, payments: int) -> float:
    """Make `payments` sales and return microseconds per payment. Every batch has its own step of codes."""
    QUERIES.update(design.statements)
    duration_s = 0.0
    for _ in range(max(1, payments // batch)):
        design.now_ms += _STEP_MS
        scans = [_scan(design) for _ in range(batch)]
        start_s = time.perf_counter()
        snapshot = await load_snapshot(design.connection, scans, design.house)
        outcomes, changes = decide(scans, snapshot, KEYRING, design.now_ms, _RULES, day_start_ms=0)
        await apply_changes(design.connection, changes, int(time.time() * 1000))
        duration_s += time.perf_counter() - start_s
        for outcome in outcomes:
            if not isinstance(outcome, Decided) or outcome.payment.status is not Status.APPROVED:
                raise AssertionError(outcome)
    return duration_s / (max(1, payments // batch) * batch) * 1e6


def _scan(design: Design) -> Scan:
    design.sales_count += 1
    wallet = design.shop.wallets[design.sales_count % _WALLETS]
    return Scan(
        payment_id=uuid_utils.compat.uuid7(),
        terminal_number=design.shop.terminals[0].device.number,
        merchant_id=design.merchant_id,
        reference=f"order-now-{design.sales_count}",
        amount_minor=100,
        currency=CURRENCY,
        code=payment_code.make(wallet.key, wallet.device.number, 0, payment_code.step_at(design.now_ms / 1000), 0),
    )


async def _measure_archive(dsn: str, design: Design, archived: int, folder: Path) -> dict[str, float]:
    """Return the cost of archiving per payment, and the sizes of a name and of a live sale."""
    owner = await connect(dsn.replace("/pos?", f"/history_{design.name}?"), timeout_s=30, role=None)
    try:
        size = await owner.fetchval("select pg_total_relation_size('archived_name')")
        sale_size = await owner.fetchval(
            "select (pg_total_relation_size('payment') + pg_total_relation_size('transfer')) / count(*) from payment"
        )
        now = datetime.now(UTC)
        before = (now - _MIN_AGE).date()
        print_progress("settling and sealing …")
        await settle(owner, before, now)
        await seal_days(owner, now, "UTC", lambda seal: None)
        # Without a part, the audit would report the synthetic names.
        await owner.execute(
            "insert into archive_part select 1, 'epoch', $1, 0, 0, 0, 'payments-000001.jsonl.gz', sha256(''), now()",
            archived,
        )
        print_progress("archiving …")
        start_s = time.monotonic()
        parts = await archive(owner, before, folder, now, lambda part: None, min_age=_MIN_AGE, part_payments_max=50_000)
        duration_s = time.monotonic() - start_s
        payments = sum(part.payments for part in parts)
        archive_bytes = sum((folder / part.file).stat().st_size for part in parts)
        report = await audit(owner)
        if not report.ok:
            raise SystemExit(f"the audit failed: {report.findings}")
        return {
            "bytes_per_name": round(size / archived, 1),
            "bytes_per_sale": float(sale_size),
            "archive_payments": payments,
            "archive_us_per_payment": round(duration_s / payments * 1e6, 1),
            "archive_bytes_per_payment": round(archive_bytes / payments, 1),
        }
    finally:
        await owner.close()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="cost of years of history per payment, archived or partitioned")
    parser.add_argument("--archived", type=int, default=5_000_000, help="names of archived payments (default 5000000)")
    parser.add_argument("--live", type=int, default=1_000_000, help="sales in each ledger (default 1000000)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds (default 7)")
    parser.add_argument(
        "--payments", type=int, default=1000, help="payments per design and batch size in a round (default 1000)"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    figures = asyncio.run(run(arguments.archived, arguments.live, arguments.rounds, arguments.payments))
    text = json.dumps(figures, indent=2)
    print(text)  # noqa: T201
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
