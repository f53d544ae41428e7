"""A ledger with rows of every table: archived, sealed and settled ones, and those of today. Contains no tests."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg

from pos_server.core.payments.decide import decide
from pos_server.core.payments.operations import Cancel, Confirm, CreateRefund, Entry, Expire, MoveCash, Operation
from pos_server.core.payments.payment import Purpose
from pos_server.ledger.archive import archive
from pos_server.ledger.payments import apply_changes, load_snapshot
from pos_server.ledger.rollup import roll_up
from pos_server.ledger.seals import seal_days
from pos_server.ledger.settlement import settle
from pos_server.ledger.shifts import close_shift, find_shift, open_shift
from tests.ledger.archived import age
from tests.ledger.test_audit import sell
from tests.support import EUR, KEYRING, RULES, OneConnection, Shop, new_id

DAYS_ARCHIVED, DAYS_SEALED = 8, 3


async def run_at(
    connection: asyncpg.Connection, now_ms: int, *operations: Operation, day_start_ms: int | None = None
) -> None:
    """Decide and store a batch at a time; the business day starts an hour earlier unless given."""
    snapshot = await load_snapshot(connection, operations)
    start_ms = now_ms - 3_600_000 if day_start_ms is None else day_start_ms
    _, changes = decide(operations, snapshot, KEYRING, now_ms, RULES, day_start_ms=start_ms)
    await apply_changes(connection, changes, now_ms)


async def work_a_shift(
    connection: asyncpg.Connection, shop: Shop, ids: dict[str, str], suffix: str = "", *, close: bool
) -> None:
    """Make operations of every kind in a shift at the first till; add their ids."""
    pool, till = OneConnection(connection), shop.terminals[0].device.number
    shift_id, now_ms = new_id(), int(time.time() * 1000)
    assert await open_shift(pool, shift_id, till, "Alice", 5_000, now_ms) is None  # type: ignore[arg-type]
    sales = {
        "sale": shop.scan(0, amount_minor=200),
        "repaid": shop.scan(1, amount_minor=210),
        "undone": shop.scan(0, amount_minor=220),
        "by_pin": shop.scan(2, amount_minor=230, entry=Entry.TYPED),
        "expired": shop.scan(2, amount_minor=240, entry=Entry.TYPED),
        "cash_in": shop.scan(0, amount_minor=250, purpose=Purpose.TOP_UP),
    }
    sales["unpaid"] = shop.scan(1, reference=sales["sale"].reference)
    refund = CreateRefund(new_id(), sales["repaid"].payment_id, shop.merchant_id, till, 30)
    await run_at(connection, now_ms, *sales.values())
    by_pin, wallet = sales["by_pin"].payment_id, shop.wallets[2].device
    wrong, right = (
        Confirm(
            by_pin, shop.merchant_id, wallet.number, wallet.slot, version, pin_correct=version > 1, pin_generation=0
        )
        for version in (1, 2)
    )
    cancel = Cancel(till, shop.merchant_id, EUR, sales["undone"].payment_id, None, new_id())
    await run_at(connection, now_ms + 1, wrong)
    await run_at(connection, now_ms + 2, right, refund, cancel)
    await run_at(connection, now_ms + 60_001, Expire(sales["expired"].payment_id, shop.merchant_id))
    if close:
        assert await close_shift(pool, shift_id, till, 5_250, now_ms + 60_002) is None  # type: ignore[arg-type]
        assert await find_shift(connection, till, shift_id, now_ms) is not None
    ids |= {f"{name}{suffix}": str(sale.payment_id) for name, sale in sales.items()}
    ids |= {f"refund_of_repaid{suffix}": str(refund.refund_id), f"shift{suffix}": str(shift_id)}


async def expire_in_shifts(admin: asyncpg.Connection) -> None:
    """Let payments expire at the end of their closed shift: expiries do not become older with the rest.

    Those of an open shift are a minute ahead.
    """
    await admin.execute(
        "update payment p set expires_at = coalesce(s.closed_at, p.expires_at), "
        "changed_at = coalesce(s.closed_at, p.expires_at) from shift s where p.shift_id = s.id and p.status = 'expired'"
    )


async def build_whole_ledger(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, folder: Path
) -> dict[str, str]:
    """Fill a ledger with rows of every table, all sound, and an archive in `folder`. Returns ids by name.

    Names of archived rows end in `_archived`; those of today's in `_today`. All other rows are sealed.
    """
    ids = {f"{name}_archived": value for name, value in (await sell(connection, shop)).items()}
    await age(admin, days=DAYS_ARCHIVED - DAYS_SEALED)
    ids |= await sell(connection, shop)
    await work_a_shift(connection, shop, ids, close=True)
    await age(admin, days=DAYS_SEALED)
    now = datetime.now(UTC)
    await settle(admin, now.date() - timedelta(days=2), now)
    await admin.execute(
        "update settlement set created_at = ends_at + interval '1 minute'; "
        "update transfer x set created_at = s.created_at from settlement s "
        "where x.kind = 'settlement' and x.source_id = s.id"
    )
    await seal_days(admin, now, "UTC", lambda seal: None)
    await roll_up(admin)
    before = now.date() - timedelta(days=DAYS_SEALED + 2)
    await archive(admin, before, folder, now, lambda part: None, min_age=timedelta(days=2), part_payments_max=10)
    await work_a_shift(connection, shop, ids, "_today", close=False)
    move = MoveCash(new_id(), shop.merchant_id, shop.wallets[1].device.number, "office", 90, EUR, Purpose.TOP_UP)
    await run_at(connection, int(time.time() * 1000), move)
    await admin.execute(
        "insert into api_key (key_hash, role, merchant_id, name, last_used_at) "
        f"values ('x', 'merchant', {shop.merchant_id}, 'Office', now()); "
        "insert into idempotency_key values ('tenant', 'key', 'print', '{}', 'k1')"
    )
    await expire_in_shifts(admin)
    for name, query in _IDS.items():
        ids[name] = str(await admin.fetchval(query))
    ids |= {"merchant": str(shop.merchant_id), "store": str(shop.store_id)}
    ids |= {f"till_{index}": str(till.device.number) for index, till in enumerate(shop.terminals)}
    for name in ("paid", "sale", "canceled", "refund", "with_fee"):
        query = "select id from transfer where source_id = $1::text::uuid order by id limit 1"
        ids[f"transfer_of_{name}"] = str(await admin.fetchval(query, ids[name]))
    return ids


_KIOSK = "(select max(id) from merchant where name = 'Kiosk')"
_IDS = {
    "kiosk": f"select {_KIOSK}",
    "kiosk_account": f"select account_id from merchant where id = {_KIOSK}",
    "statement": f"select id from settlement where merchant_id = {_KIOSK} order by business_date limit 1",
    "next_statement": f"select id from settlement where merchant_id = {_KIOSK} order by business_date offset 1 limit 1",
    "payout": f"select id from transfer where kind = 'settlement' and merchant_id = {_KIOSK}",
    "cash_in": "select id from account where name = 'cash_in'",
    "account": "select account_id from wallet order by number limit 1",
    "seal": "select max(number) from seal where transfers > 0",
    "last_transfer": "select max(id) from transfer",
    "part": "select max(number) from archive_part",
    "key": "select max(id) from api_key",
}
