"""Decisions during the archiving of their payment, in the real authorizer: all end correctly, and no one pays twice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from pos_server.core.payments.operations import Cancel, CreateRefund, Decided, Operation, Refused
from pos_server.ledger.audit import audit
from pos_server.ledger.database import connect
from tests.copies import replace
from tests.engine.test_authorizer import running, status
from tests.ledger.archived import archive_old, make_old
from tests.ledger.test_payments import balance, run_batch
from tests.support import EUR, RULES, Shop, new_id

pytestmark = pytest.mark.asyncio
YEAR_MS = 366 * 86_400_000


async def until_somebody_waits(admin: asyncpg.Connection) -> None:
    """Wait until a statement waits for a row that another transaction has locked."""
    waiting = "select exists (select from pg_locks where locktype = 'transactionid' and not granted)"
    async with asyncio.timeout(15):
        while not await admin.fetchval(waiting):
            pass


@asynccontextmanager
async def held_back(dsn: str, shop: Shop) -> AsyncIterator[asyncpg.Connection]:
    """Lock all wallets, so that decisions are loaded but not stored until the block is left."""
    holder = await connect(dsn, timeout_s=10, role=None)
    try:
        async with holder.transaction():
            await holder.execute("select from wallet for update")
            yield holder
    finally:
        await holder.close()


@pytest.mark.parametrize("kind", ["refund", "cancel", "cancel of the order", "late scan"])
async def test_a_decision_loaded_before_the_archive_is_rejected_after_it(
    kind: str,
    dsn: str,
    connection: asyncpg.Connection,
    shop: Shop,
    admin: asyncpg.Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As if this server had longer time limits than the one that archives.
    monkeypatch.setattr("tests.engine.test_authorizer.RULES", replace(RULES, cancel_window_ms=YEAR_MS))
    sale, late = shop.scan(0), shop.scan(1)
    till = shop.terminals[0].device.number
    await run_batch(connection, sale, Cancel(till, shop.merchant_id, EUR, late.payment_id, None, new_id()))
    await make_old(admin)
    operations: dict[str, Operation] = {
        "refund": CreateRefund(new_id(), sale.payment_id, shop.merchant_id, till, 100),
        "cancel": Cancel(till, shop.merchant_id, EUR, sale.payment_id, None, new_id()),
        "cancel of the order": Cancel(till, shop.merchant_id, EUR, None, sale.reference, new_id()),
        "late scan": replace(late, code=shop.wallets[1].code()),
    }
    async with running(dsn) as engine:
        async with held_back(dsn, shop) as holder:
            engine.authorizer.submit(operations[kind], "0")
            await until_somebody_waits(holder)
            (part,) = await archive_old(admin, tmp_path)
            assert part.payments == 5
        await engine.authorizer.drained()
    assert status(engine.outcomes["0"]) == "payment_archived"
    assert await admin.fetchval("select count(*) from payment") == 0
    assert await admin.fetchval("select count(*) from transfer") == 0
    assert [await balance(connection, shop, wallet) for wallet in range(2)] == [9_000, 10_000]
    assert (await audit(admin)).findings == []


async def test_a_payment_that_changes_after_it_was_written_stays(
    dsn: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    """A refund is stored between the file and the deletion: the part is written again without its payment."""
    sale, other = shop.scan(0), shop.scan(1)
    await run_batch(connection, sale, other)
    await make_old(admin)
    watcher = await connect(dsn, timeout_s=10)
    try:
        async with connection.transaction():
            await run_batch(connection, CreateRefund(new_id(), sale.payment_id, shop.merchant_id, None, 100))
            moving = asyncio.create_task(archive_old(admin, tmp_path))
            await until_somebody_waits(watcher)
        (part,) = await moving
    finally:
        await watcher.close()
    assert (part.payments, part.refunds) == (4, 0), "the other sale and three top-ups"
    assert [row["id"] for row in await admin.fetch("select id from payment")] == [sale.payment_id]
    assert await admin.fetchval("select count(*) from transfer") == 2
    assert (await audit(admin)).findings == []


async def test_an_order_and_an_id_are_paid_once_during_the_archive(
    dsn: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    sales = [shop.scan(index % 3, amount_minor=10) for index in range(12)]
    await run_batch(connection, *sales)
    await make_old(admin)
    seen: set[str] = set()
    async with running(dsn) as engine:
        moving = asyncio.create_task(archive_old(admin, tmp_path, part_payments_max=2))
        while not moving.done():
            for sale in sales[:4]:
                same_order = shop.scan(0, amount_minor=10, reference=sale.reference, code=sale.code)
                repeat, again = await engine.authorize(sale, same_order)
                assert isinstance(again, Decided)
                # A used code is detected before the order.
                assert status(again) == "code_used"
                seen.add(status(repeat))
        assert sum(part.payments for part in await moving) == 15
        repeats = await engine.authorize(*sales)
        assert {status(outcome) for outcome in repeats} == {"payment_archived"}
        fresh = [shop.scan(0, reference=sale.reference, code=shop.wallets[0].code(seq=9)) for sale in sales[:1]]
        (again,) = await engine.authorize(*fresh)
        assert isinstance(again, Decided)
        assert (status(again), again.payment.paid_by) == ("already_paid", sales[0].payment_id)
    assert seen <= {"approved", "payment_archived"}
    assert await admin.fetchval("select count(*) from transfer where kind = 'payment'") == 0
    assert [await balance(connection, shop, wallet) for wallet in range(3)] == [9_960] * 3
    assert (await audit(admin)).findings == []


async def test_every_operation_on_archived_payments(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    till = shop.terminals[0].device.number
    sale, canceled = shop.scan(0), shop.scan(1)
    refund = CreateRefund(new_id(), sale.payment_id, shop.merchant_id, till, 100)
    cancels = [
        Cancel(till, shop.merchant_id, EUR, canceled.payment_id, None, new_id()),
        Cancel(till, shop.merchant_id, EUR, None, "never-seen", new_id()),
    ]
    await run_batch(connection, sale, canceled, refund, *cancels)
    await make_old(admin)
    live = shop.scan(1)
    await archive_old(admin, tmp_path)
    await run_batch(connection, live)
    cases: list[tuple[Operation, str]] = [
        (sale, "payment_archived"),
        (replace(sale, amount_minor=1), "payment_archived"),
        (refund, "payment_archived"),
        (replace(refund, payment_id=live.payment_id), "id_reused"),
        (replace(refund, refund_id=new_id(), payment_id=live.payment_id), "refunded"),
        (Cancel(till, shop.merchant_id, EUR, sale.payment_id, None, new_id()), "payment_archived"),
        (Cancel(till, shop.merchant_id, EUR, None, sale.reference, new_id()), "payment_archived"),
        (Cancel(till, shop.merchant_id, EUR, None, "never-seen", new_id()), "payment_archived"),
        (shop.scan(2, reference=sale.reference), "already_paid"),
        (shop.scan(2, reference=canceled.reference), "canceled"),
        (shop.scan(2, reference="never-seen"), "canceled"),
        (shop.scan(2), "approved"),
    ]
    outcomes = await run_batch(connection, *(operation for operation, _ in cases))
    assert [word(outcome) for outcome in outcomes] == [expected for _, expected in cases]
    assert (await audit(admin)).findings == []


def word(outcome: object) -> str:
    return status(outcome) if isinstance(outcome, Decided | Refused) else "refunded"
