"""Ids are unique per merchant: in the ledger, its archive, its audit and its seals, and after the migration."""

from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from pos_server.clock import now_ms
from pos_server.core.accounting.shifts import Total, TotalKind
from pos_server.core.errors import ErrorCode
from pos_server.core.payments.operations import Cancel, CreateRefund, MoveCash, Operation, Refused
from pos_server.core.payments.payment import Purpose
from pos_server.ledger.archive_file import part_name, read_units
from pos_server.ledger.database import connect, create_pool
from pos_server.ledger.migrate import load_migrations, migrate
from pos_server.ledger.rollup import roll_up
from pos_server.ledger.seals import seal_days
from pos_server.ledger.settlement import settle
from pos_server.ledger.shifts import close_shift, find_shift, open_shift
from pos_server.ledger.wallets import list_transfers
from tests.ledger.aging import age_shifts, follow_transfers
from tests.ledger.archived import (
    BEFORE,
    NOW,
    age,
    archive_old,
    assert_sound,
    every_kind,
    findings,
    lines,
    make_old,
    seal_report,
    units,
    write_part,
)
from tests.ledger.test_audit import sell
from tests.ledger.test_payments import run_batch
from tests.support import EUR, Shop, build_shop, new_id

pytestmark = pytest.mark.asyncio
SALE, REFUND, CASH, SHIFT = new_id(), new_id(), new_id(), new_id()


async def other_shop(connection: asyncpg.Connection, shop: Shop) -> Shop:
    """Return a second merchant whose customers have the same wallets."""
    other = await build_shop(connection, wallets=0)
    other.wallets.extend(shop.wallets)
    return other


def same_requests(shop: Shop, amount_minor: int) -> list[Operation]:
    """Return a sale, its refund and a top-up of one wallet. Ids and references are the same for all merchants."""
    till = shop.terminals[0].device.number
    wallet = shop.wallets[0].device.number
    return [
        shop.scan(0, payment_id=SALE, reference="order", amount_minor=amount_minor),
        CreateRefund(REFUND, SALE, shop.merchant_id, till, amount_minor // 2),
        MoveCash(CASH, shop.merchant_id, wallet, "receipt", 300, EUR, Purpose.TOP_UP),
    ]


async def assert_money(admin: asyncpg.Connection, shop: Shop, expected_minor: int) -> None:
    account = "select account_id from merchant where id = $1"
    earned = await admin.fetchval(
        "select sum(case when credit_account_id = a then amount_minor else -amount_minor end)::bigint "
        f"from transfer, ({account}) as m (a) where a in (credit_account_id, debit_account_id)",
        shop.merchant_id,
    )
    assert earned == expected_minor


async def test_two_merchants_use_the_same_ids(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection
) -> None:
    other = await other_shop(connection, shop)
    first, second = same_requests(shop, 1_000), same_requests(other, 2_000)
    outcomes = await run_batch(connection, *first, *second)
    assert not any(isinstance(outcome, Refused) for outcome in outcomes)
    repeats = await run_batch(connection, *second, *first)
    assert all(outcome.replayed for outcome in repeats)
    await assert_money(admin, shop, 500)
    await assert_money(admin, other, 1_000)
    cancel = Cancel(None, other.merchant_id, EUR, CASH, None, new_id())
    await run_batch(connection, cancel)
    rows = await admin.fetch("select merchant_id, status from payment where id = $1 order by merchant_id", CASH)
    assert [tuple(row) for row in rows] == [(shop.merchant_id, "approved"), (other.merchant_id, "canceled")]
    assert await findings(admin) == {}


async def test_a_cancel_before_the_scan_occupies_the_own_id_only(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection
) -> None:
    other = await other_shop(connection, shop)
    await run_batch(connection, Cancel(None, other.merchant_id, EUR, SALE, None, new_id()))
    (paid,) = await run_batch(connection, shop.scan(0, payment_id=SALE))
    (late,) = await run_batch(connection, other.scan(1, payment_id=SALE))
    assert (paid.payment.status, late.payment.decline_code) == ("approved", "canceled")


async def test_a_wallets_transfers_tell_the_payments_apart(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection
) -> None:
    other = await other_shop(connection, shop)
    await run_batch(connection, *same_requests(shop, 1_000), *same_requests(other, 2_000))
    rows = await list_transfers(admin, shop.wallets[0].device.number, None, 100)
    kinds = [(row["kind"], row["merchant_id"], row["amount_minor"]) for row in rows]
    assert sorted(kinds) == sorted(
        [
            ("top_up", shop.merchant_id, 10_000),
            *(("payment", each.merchant_id, -amount) for each, amount in ((shop, 1_000), (other, 2_000))),
            *(("refund", each.merchant_id, amount) for each, amount in ((shop, 500), (other, 1_000))),
            *(("top_up", each.merchant_id, 300) for each in (shop, other)),
        ]
    )
    assert rows[0]["balance_minor"] == 10_000 - 500 - 1_000 + 600


async def test_the_archive_keeps_the_merchants_apart(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    other = await other_shop(connection, shop)
    first, second = same_requests(shop, 1_000), same_requests(other, 2_000)
    await run_batch(connection, *first)
    await make_old(admin)
    await run_batch(connection, *second)
    await archive_old(admin, tmp_path)
    await assert_sound(admin, tmp_path)
    archived = {(unit.payment, *unit.refunds) for unit in read_units(tmp_path / part_name(1)) if unit.payment}
    assert ((shop.merchant_id, SALE), (shop.merchant_id, REFUND)) in archived
    assert await admin.fetchval("select merchant_id from payment where id = $1", SALE) == other.merchant_id
    # The first merchant's ids stay in use for it alone.
    outcomes = await run_batch(connection, *first, *second)
    assert {outcome.code for outcome in outcomes[:3] if isinstance(outcome, Refused)} == {ErrorCode.PAYMENT_ARCHIVED}
    assert [outcome.replayed for outcome in outcomes[3:]] == [True] * 3


async def test_parts_of_the_archive_may_end_between_two_merchants(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    other = await other_shop(connection, shop)
    await run_batch(connection, *same_requests(shop, 1_000), *same_requests(other, 2_000))
    await make_old(admin)
    await archive_old(admin, tmp_path, part_payments_max=1)
    await assert_sound(admin, tmp_path)
    assert await admin.fetchval("select count(*) from payment") == 0
    assert await admin.fetchval("select count(*) from archived_name where id in ($1, $2)", SALE, CASH) == 4
    assert await admin.fetchval("select count(*) from archived_refund where id = $1", REFUND) == 2


async def test_an_archived_line_of_another_merchant_is_not_recorded(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    ids = await every_kind(connection, shop, admin)
    await archive_old(admin, tmp_path)
    contents = units(tmp_path)
    for line in contents:
        if line.get("payment", {}).get("id") == ids["refunded"]:
            line["payment"]["merchant_id"] = line["refunds"][0]["merchant_id"] = 77
            line["transfers"][0]["merchant_id"] = 77
            changed, refund = line["transfers"][0]["id"], line["refunds"][0]["id"]
    write_part(tmp_path, [lines(tmp_path)[0], *contents])
    problems = (await seal_report(admin, tmp_path)).problems
    assert f"payment {ids['refunded']} in {part_name(1)} is not recorded as archived" in problems
    assert f"refund {refund} in {part_name(1)} is not recorded as archived" in problems
    assert f"transfer {changed} was changed" in problems


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (
            "update transfer set merchant_id = {other} where source_id = '{sale}' and kind = 'payment'",
            {"payments_paid": ["{sale}"], "transfers_owed": ["{moved}"]},
        ),
        (
            "update transfer set merchant_id = {other} where source_id = '{cash}'",
            {"payments_paid": ["{cash}"], "transfers_owed": ["{moved}"]},
        ),
        (
            "update refund set merchant_id = {other} where id = '{refund}'",
            {
                "refunds_paid": ["{refund}"],
                "refunds_within": ["{sale}"],
                "owners": ["{refund}"],
                "times": ["{sale}"],
            },
        ),
        (
            "update transfer set merchant_id = {other} where source_id = '{refund}' and kind = 'refund'",
            {"refunds_paid": ["{refund}"]},
        ),
        (
            "insert into archived_name values ({merchant}, '{sale}', 'declined')",
            {"archive": ["payments"], "archived_once": ["{sale}"]},
        ),
        ("insert into archived_name values ({other}, '{sale}', 'declined')", {"archive": ["payments"]}),
        ("insert into archived_refund values ('{refund}', {other})", {"archive": ["refunds"]}),
        (
            "insert into archived_refund values ('{refund}', {merchant})",
            {"archive": ["refunds"], "archived_once": ["{refund}"]},
        ),
    ],
)
async def test_the_audit_names_a_row_of_the_wrong_merchant(
    damage: str,
    expected: dict[str, list[str]],
    connection: asyncpg.Connection,
    shop: Shop,
    admin: asyncpg.Connection,
) -> None:
    other = await other_shop(connection, shop)
    await run_batch(connection, *same_requests(shop, 1_000))
    names = {"sale": SALE, "cash": CASH, "refund": REFUND, "merchant": shop.merchant_id, "other": other.merchant_id}
    await admin.execute(damage.format(**names))
    names["moved"] = await admin.fetchval("select id from transfer where merchant_id = $1", other.merchant_id)
    found = await findings(admin)
    assert found.keys() == expected.keys()
    for check, offenders in expected.items():
        # A row and its counterpart no longer match, so a check may name both, by the same id.
        assert set(found[check]) == {offender.format(**names) for offender in offenders}


async def test_a_seal_covers_the_merchant(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection
) -> None:
    await run_batch(connection, *same_requests(shop, 1_000))
    await admin.execute("update transfer set created_at = created_at - interval '2 days'")
    await seal_days(admin, NOW, "UTC", lambda seal: None)
    transfer_id = await admin.fetchval("update transfer set merchant_id = 77 where source_id = $1 returning id", CASH)
    assert (await seal_report(admin)).problems == [f"transfer {transfer_id} was changed"]


async def test_a_shift_id_belongs_to_its_merchant(
    dsn: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection
) -> None:
    """Each shift sums up the operations of its own merchant."""
    other, shift_id = await other_shop(connection, shop), new_id()
    async with await create_pool(dsn, timeout_s=10, size_max=3) as pool:
        for each in (shop, other):
            number = each.terminals[0].device.number
            assert await open_shift(pool, shift_id, number, "Alice", 0, now_ms()) is None
            assert await open_shift(pool, shift_id, number, "Alice", 0, now_ms()) is None
        at_another_till = await open_shift(pool, shift_id, shop.terminals[1].device.number, "Alice", 0, now_ms())
        assert at_another_till is ErrorCode.ID_REUSED
        canceled = shop.scan(1, amount_minor=70)
        cancel = Cancel(canceled.terminal_number, shop.merchant_id, EUR, canceled.payment_id, None, new_id())
        await run_batch(connection, *same_requests(shop, 1_000), *same_requests(other, 2_000), canceled, cancel)
        totals = []
        for each in (shop, other):
            number = each.terminals[0].device.number
            assert await close_shift(pool, shift_id, number, None, now_ms()) is None
            shift = await find_shift(pool, number, shift_id, now_ms())
            assert shift is not None
            totals.append(shift.totals)
    assert totals == [
        {
            TotalKind.SALE: Total(2, 1_070),
            TotalKind.REFUND: Total(1, 500),
            TotalKind.SALE_CANCEL: Total(1, 70),
        },
        {TotalKind.SALE: Total(1, 2_000), TotalKind.REFUND: Total(1, 1_000)},
    ]
    assert await findings(admin) == {}


async def test_every_new_transfer_names_its_merchant(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection
) -> None:
    await run_batch(connection, *same_requests(shop, 1_000))
    with pytest.raises(asyncpg.CheckViolationError, match="transfer_is_sound"):
        await admin.execute("update transfer set merchant_id = null")


# --- the migration

_TABLES = (
    *("account", "merchant", "store", "terminal", "shift", "wallet", "wallet_device", "payment", "refund", "transfer"),
    *("settlement", "seal", "archived_name", "archived_refund", "archive_part", "archived_balance", "account_rollup"),
)


async def stored_before(empty_dsn: str, source: asyncpg.Connection) -> asyncpg.Connection:
    """Copy a ledger into a database with the schema before ids were unique per merchant."""
    (this,) = (each for each in load_migrations() if each.name.endswith("ids_per_merchant.sql"))
    target = await connect(empty_dsn, timeout_s=10, role=None)
    await migrate(target, [each for each in load_migrations() if each.number < this.number])
    for table in _TABLES:
        columns = [
            row["attname"]
            for row in await target.fetch(
                "select attname from pg_attribute where attrelid = $1::text::regclass and attnum > 0 "
                "and not attisdropped order by attnum",
                table,
            )
        ]
        rows = await source.fetch(f"select {', '.join(columns)} from {table}")
        await target.copy_records_to_table(table, records=[tuple(row) for row in rows], columns=columns)
    for table, column in (("transfer", "id"), ("account", "id"), ("merchant", "id"), ("store", "id")):
        await target.execute(
            f"select setval(pg_get_serial_sequence('{table}', '{column}'), (select max({column}) from {table}))"
        )
    await target.execute("select setval(pg_get_serial_sequence('terminal', 'number'), 5000)")
    horizon = await source.fetchval("select last_id from rollup_horizon")
    await target.execute("update rollup_horizon set last_id = $1", horizon)
    return target


_LEDGER = """
select json_build_array(
    (select json_agg(to_jsonb(p) - 'transfers_named' order by id) from payment p),
    (select json_agg(to_jsonb(r) - 'transfers_named' order by id) from refund r),
    (select json_agg(to_jsonb(t) - 'merchant_id' order by id) from transfer t),
    (select json_agg(encode(transfer_digest(t), 'hex') order by id) from transfer t),
    (select json_agg(to_jsonb(a) order by id) from archived_name a),
    (select json_agg(to_jsonb(a) - 'merchant_id' order by id) from archived_refund a)
)::text
"""


async def test_the_migration_keeps_stored_rows_and_seals(
    dsn: str,
    empty_dsn: str,
    connection: asyncpg.Connection,
    shop: Shop,
    admin: asyncpg.Connection,
    tmp_path: Path,
) -> None:
    """Payments from before are then repeated, refunded, canceled and archived; another merchant uses their ids."""
    ids = await sell(connection, shop)
    first = same_requests(shop, 1_000)
    async with await create_pool(dsn, timeout_s=10, size_max=1) as pool:
        await open_shift(pool, SHIFT, shop.terminals[0].device.number, "Alice", 0, now_ms())
    await run_batch(connection, *first)
    await age(admin, days=5)
    # Recent enough to be canceled after the migration.
    await admin.execute(
        "update transfer set created_at = date_trunc('second', now()) where kind <> 'refund' and source_id in ($1, $2)",
        *(CASH, UUID(ids["also_paid"])),
    )
    await follow_transfers(admin)
    before = await stored_before(empty_dsn, admin)
    archived, archived_refund = new_id(), new_id()
    await before.execute(
        f"insert into archived_name values ({shop.merchant_id}, '{archived}', 'approved', 'archived order'); "
        f"insert into archived_refund values ('{archived_refund}'); "
        "insert into archive_part values (1, 'epoch', 1, 1, 0, 0, 'payments-000001.jsonl.gz', '', now())"
    )
    await seal_days(before, NOW, "UTC", lambda seal: None)
    rows = await before.fetchval(_LEDGER)

    await migrate(before, load_migrations())
    assert await before.fetchval(_LEDGER) == rows
    assert await before.fetchval("select count(*) from transfer where merchant_id is not null") == 0
    assert await before.fetchval("select merchant_id from shift where id = $1", SHIFT) == shop.merchant_id
    assert await findings(before) == {}
    assert (await seal_report(before)).problems == []

    app = await connect(empty_dsn, timeout_s=10)
    other = await other_shop(app, shop)
    # The same ids at another merchant, except for that of an archived refund, whose merchant is not recorded.
    second = same_requests(other, 2_000)
    assert not any(isinstance(outcome, Refused) for outcome in await run_batch(app, *second))
    taken = CreateRefund(archived_refund, SALE, other.merchant_id, None, 1)
    at_first, at_second = (each.scan(1, payment_id=archived) for each in (shop, other))
    refused, gone, paid = await run_batch(app, taken, at_first, at_second)
    assert (refused.code, gone.code) == (ErrorCode.ID_REUSED, ErrorCode.PAYMENT_ARCHIVED)
    assert paid.payment.status == "approved"
    assert all(outcome.replayed for outcome in await run_batch(app, *first, *second))
    await run_batch(
        app,
        CreateRefund(new_id(), SALE, shop.merchant_id, None, 100),
        Cancel(None, shop.merchant_id, EUR, CASH, None, new_id()),
        Cancel(None, shop.merchant_id, EUR, UUID(ids["also_paid"]), None, new_id()),
    )
    kinds = [
        (row["kind"], row["merchant_id"], row["amount_minor"])
        for row in await list_transfers(app, shop.wallets[0].device.number, None, 100)
        if row["payment_id"] in (SALE, CASH)
    ]
    assert sorted(kinds) == [
        ("cancel", shop.merchant_id, -300),
        ("payment", shop.merchant_id, -1_000),
        ("payment", other.merchant_id, -2_000),
        ("refund", shop.merchant_id, 100),
        ("refund", shop.merchant_id, 500),
        ("refund", other.merchant_id, 1_000),
        ("top_up", shop.merchant_id, 300),
        ("top_up", other.merchant_id, 300),
    ]
    assert await findings(before) == {}
    assert (await seal_report(before)).problems == []
    # Payments from before and their later transfers move into the archive together; the seals cover both kinds.
    await before.execute("delete from archived_name; delete from archived_refund; delete from archive_part")
    # The constraint would reject updates of transfers that do not name a merchant.
    await before.execute(
        "alter table transfer drop constraint transfer_is_sound; "
        "update transfer set created_at = created_at - interval '5 days' where created_at > now() - interval '1 day'; "
        "update payment set changed_at = changed_at - interval '5 days'"
    )
    await follow_transfers(before)
    await before.execute("update shift set closed_at = now(); update terminal set shift_id = null")
    await age_shifts(before, days=5)
    await settle(before, BEFORE, NOW)
    await before.execute("delete from seal")
    await seal_days(before, NOW, "UTC", lambda seal: None)
    await roll_up(before)
    parts = await archive_old(before, tmp_path)
    assert sum(part.transfers for part in parts) >= len(kinds)
    assert await before.fetchval("select count(*) from payment where id in ($1, $2)", SALE, CASH) == 0
    await assert_sound(before, tmp_path)
    await app.close()
    await before.close()
