"""Stored shifts: allowed changes, locks, crashes, and findings of the audit."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from pos_server.clock import now_ms
from pos_server.core.accounting.shifts import Shift, Total, TotalKind
from pos_server.core.errors import ErrorCode
from pos_server.core.payments.operations import Cancel, CreateRefund
from pos_server.ledger.audit import audit
from pos_server.ledger.database import connect, create_pool
from pos_server.ledger.shifts import close_shift, find_shift, open_shift
from tests.ledger.test_payments import run_batch
from tests.support import EUR, Shop, new_id

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def pool(dsn: str) -> AsyncIterator[asyncpg.Pool]:
    async with await create_pool(dsn, timeout_s=10, size_max=3) as made:
        yield made


async def opened(pool: asyncpg.Pool, shop: Shop, terminal: int = 0) -> UUID:
    shift_id = new_id()
    number = shop.terminals[terminal].device.number
    assert await open_shift(pool, shift_id, number, "Alice", 100, now_ms() - 60_000) is None
    return shift_id


async def closed(pool: asyncpg.Pool, shop: Shop, shift_id: UUID) -> Shift:
    number = shop.terminals[0].device.number
    assert await close_shift(pool, shift_id, number, None, now_ms()) is None
    shift = await find_shift(pool, number, shift_id, now_ms())
    assert shift is not None
    return shift


async def test_a_crash_between_the_two_commits_of_a_close_is_repaired(
    pool: asyncpg.Pool, shop: Shop, connection: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    shift_id = await opened(pool, shop)
    number, now = shop.terminals[0].device.number, now_ms()
    await run_batch(connection, shop.scan(0), shop.scan(1))
    assert await close_shift(pool, shift_id, number, 7, now) is None
    # The state after a kill: the shift is closed, and its totals are not stored.
    assert await admin.fetchval("select figures from shift") is None
    assert (await audit(admin)).ok
    await run_batch(connection, shop.scan(2))
    assert await close_shift(pool, shift_id, number, 7, now + 5) is None
    shift = await find_shift(pool, number, shift_id, now + 5)
    assert shift is not None
    assert (shift.totals, shift.closed_at_ms, shift.made_at_ms) == ({TotalKind.SALE: Total(2, 2_000)}, now, now)
    assert await admin.fetchval("select figures from shift") == '{"sale": [2, 2000]}'
    assert (await audit(admin)).ok


async def test_a_killed_close_leaves_the_shift_open(pool: asyncpg.Pool, shop: Shop, admin: asyncpg.Connection) -> None:
    shift_id = await opened(pool, shop)
    await admin.execute(
        "create function die() returns trigger language plpgsql as $$ begin "
        "perform pg_terminate_backend(pg_backend_pid()); return new; end $$; "
        "create trigger die before update on shift for each row execute function die()"
    )
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await close_shift(pool, shift_id, shop.terminals[0].device.number, None, now_ms())
    await admin.execute("drop trigger die on shift")
    assert (await audit(admin)).ok
    assert await admin.fetchval("select shift_id from terminal where shift_id is not null") == shift_id
    assert (await closed(pool, shop, shift_id)).is_closed
    assert (await audit(admin)).ok


async def test_a_close_waits_for_operations_being_added(
    dsn: str, pool: asyncpg.Pool, shop: Shop, admin: asyncpg.Connection
) -> None:
    shift_id = await opened(pool, shop)
    late = await connect(dsn, timeout_s=10)
    try:
        async with late.transaction():
            await run_batch(late, shop.scan(0))
            closing = asyncio.create_task(closed(pool, shop, shift_id))
            waits = "select exists (select from pg_locks where not granted and pid <> pg_backend_pid())"
            async with asyncio.timeout(10):
                while not await admin.fetchval(waits):  # noqa: ASYNC110 - Postgres sends no event
                    await asyncio.sleep(0.01)
            assert not closing.done()
        assert (await closing).totals == {TotalKind.SALE: Total(1, 1_000)}
    finally:
        await late.close()
    assert (await audit(admin)).ok


async def test_the_server_cannot_change_a_closed_shift(
    pool: asyncpg.Pool, shop: Shop, connection: asyncpg.Connection
) -> None:
    shift = await closed(pool, shop, await opened(pool, shop))
    for change in (
        "update shift set figures = '{}'::jsonb || '{\"sale\": [1, 1]}'",
        "update shift set counted_cash_minor = 5",
        "update shift set closed_at = now()",
        "update shift set closed_at = null, figures = null",
        "update shift set operator = 'Mallory'",
        "update shift set opening_cash_minor = 0",
        "delete from shift",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(change)
    assert await find_shift(pool, shift.terminal_number, shift.shift_id, now_ms() + 9) == shift


async def test_a_payment_keeps_its_shift(
    pool: asyncpg.Pool, shop: Shop, connection: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    await opened(pool, shop)
    till = shop.terminals[0].device.number
    paid, canceled = shop.scan(0), shop.scan(1)
    await run_batch(
        connection, paid, canceled, Cancel(till, shop.merchant_id, EUR, canceled.payment_id, None, new_id())
    )
    for change in ("shift_id = null", "shift_id = gen_random_uuid()", "canceled_shift_id = gen_random_uuid()"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="what it is about cannot change"):
            await connection.execute(f"update payment set {change} where id = $1", canceled.payment_id)


async def test_an_unknown_terminal_has_no_shift(pool: asyncpg.Pool, shop: Shop) -> None:
    assert await find_shift(pool, 1, None, now_ms()) is None
    assert await find_shift(pool, 1, new_id(), now_ms()) is None
    assert await close_shift(pool, new_id(), 1, None, now_ms()) is ErrorCode.SHIFT_UNKNOWN


@pytest.mark.parametrize(
    ("damage", "found", "check"),
    [
        (
            "update shift set figures = jsonb_set(figures, '{sale,1}', '1') where closed_at is not null",
            "closed",
            "shifts",
        ),
        ("update shift set figures = figures - 'refund' where closed_at is not null", "closed", "shifts"),
        ("update shift set figures = '{}' where closed_at is not null", "closed", "shifts"),
        ("update payment set shift_id = null where id = '<paid>'", "closed", "shifts"),
        ("update payment set shift_id = '<open>' where id = '<paid>'", "closed", "shifts"),
        ("update payment set amount_minor = 500 where id = '<paid>'", "closed", "shifts"),
        ("update payment set canceled_shift_id = null where canceled_shift_id is not null", "closed", "shifts"),
        ("update refund set shift_id = null", "closed", "shifts"),
        ("update refund set amount_minor = 3", "closed", "shifts"),
        ("delete from payment where id = '<paid>'", "closed", "shifts"),
        (
            "update payment set status = 'pending', decline_code = null, expires_at = now() where id = '<declined>'",
            "closed",
            "shifts",
        ),
        ("delete from shift where closed_at is not null", "closed", "shifts_exist"),
        ("update terminal set shift_id = null", "open", "open_shifts"),
        ("update terminal set shift_id = '<closed>' where shift_id is null", "closed", "open_shifts"),
        ("update shift set closed_at = now() where closed_at is null", "open", "open_shifts"),
        ("update refund set shift_id = '00000000-0000-0000-0000-000000000001'", "closed", "shifts"),
    ],
)
async def test_the_audit_names_a_damaged_shift(
    damage: str,
    found: str,
    check: str,
    pool: asyncpg.Pool,
    shop: Shop,
    connection: asyncpg.Connection,
    admin: asyncpg.Connection,
) -> None:
    till = shop.terminals[0].device.number
    ids = {"closed": await opened(pool, shop), "open": await opened(pool, shop, terminal=1)}
    sales = {"paid": shop.scan(0), "canceled": shop.scan(1), "declined": shop.scan(2, amount_minor=99_999)}
    await run_batch(
        connection,
        *sales.values(),
        CreateRefund(new_id(), sales["paid"].payment_id, shop.merchant_id, till, 300),
        Cancel(till, shop.merchant_id, EUR, sales["canceled"].payment_id, None, new_id()),
    )
    shift = await closed(pool, shop, ids["closed"])
    assert set(shift.totals) == {TotalKind.SALE, TotalKind.REFUND, TotalKind.SALE_CANCEL, TotalKind.DECLINED}
    assert (await audit(admin)).ok
    for trigger, table in (("payment_is_fixed", "payment"), ("shift_is_fixed", "shift")):
        await admin.execute(f"alter table {table} disable trigger {trigger}")
    ids |= {name: sale.payment_id for name, sale in sales.items()}
    for name, value in ids.items():
        damage = damage.replace(f"<{name}>", str(value))
    await admin.execute(damage)
    findings = {finding.check: finding.offenders for finding in (await audit(admin)).findings}
    assert str(ids[found]) in findings[check]
