"""The schema rejects invalid rows from any client: tables of rows with one error each."""

from typing import Any

import asyncpg
import pytest

from pos_server.core.payments.operations import CreateRefund
from tests.ledger.test_payments import run_batch
from tests.support import Shop, forged, new_id

pytestmark = pytest.mark.asyncio

APPROVED, DECLINED, REFUNDED = "approved", "declined", "refunded"


async def stored(connection: asyncpg.Connection, shop: Shop, which: str) -> Any:
    """Store a payment of this kind and return its id."""
    scan = shop.scan(0) if which != DECLINED else shop.scan(0, code=forged(shop.wallets[0].code()))
    await run_batch(connection, scan)
    if which == REFUNDED:
        terminal = shop.terminals[0].device.number
        await run_batch(connection, CreateRefund(new_id(), scan.payment_id, shop.merchant_id, terminal, 1))
    return scan.payment_id


@pytest.mark.parametrize(
    ("which", "wrong"),
    [
        (APPROVED, "status = 'paid'"),
        (APPROVED, "purpose = 'gift'"),
        (APPROVED, "amount_minor = 0"),
        (APPROVED, "amount_minor = -1"),
        (APPROVED, "reference = null"),
        (APPROVED, "wallet_number = null"),
        (APPROVED, "decline_code = 'code_used'"),
        (APPROVED, "approved_at = null"),
        (APPROVED, "status = 'pending'"),
        (APPROVED, "fee_minor = -1"),
        (APPROVED, "fee_minor = amount_minor + 1"),
        (APPROVED, "purpose = 'top_up', fee_minor = 1"),
        (APPROVED, "refunds = 1"),
        (APPROVED, "refunded_minor = 1"),
        (APPROVED, "refunded_minor = -1"),
        (APPROVED, "fingerprint = null"),
        (DECLINED, "decline_code = null"),
        (DECLINED, "status = 'canceled'"),
        (REFUNDED, "refunded_minor = amount_minor + 1"),
        (REFUNDED, "refunded_minor = -1"),
        (REFUNDED, "refunds = 0"),
        (REFUNDED, "purpose = 'top_up', fee_minor = 0"),
        (REFUNDED, "status = 'canceled'"),
        (REFUNDED, "status = 'expired'"),
    ],
)
async def test_payment_rows(
    which: str, wrong: str, connection: asyncpg.Connection, admin: asyncpg.Connection, shop: Shop
) -> None:
    payment_id = await stored(connection, shop, which)
    await admin.execute("alter table payment disable trigger user")
    await admin.execute("update payment set reference = reference || '2' where id = $1", payment_id)
    with pytest.raises(asyncpg.CheckViolationError, match="payment_is_sound"):
        await admin.execute(f"update payment set {wrong} where id = $1", payment_id)


@pytest.mark.parametrize("wrong", ["amount_minor = 1", "wallet_number = 1", "status = 'approved', approved_at = now()"])
async def test_tombstone_rows(wrong: str, admin: asyncpg.Connection, shop: Shop) -> None:
    await admin.execute("alter table payment disable trigger user")
    await admin.execute(
        "insert into payment (id, merchant_id, amount_minor, currency, status, version, changed_at) "
        "values ($1, $2, 0, 'EUR', 'canceled', 1, now())",
        new_id(),
        shop.merchant_id,
    )
    with pytest.raises(asyncpg.CheckViolationError, match="payment_is_sound"):
        await admin.execute(f"update payment set {wrong} where status = 'canceled'")


@pytest.mark.parametrize(
    "wrong",
    [
        "kind = 'gift'",
        "amount_minor = 0",
        "amount_minor = -1",
        "debit_account_id = credit_account_id",
        "wallet_number = null",
    ],
)
async def test_transfer_rows(wrong: str, connection: asyncpg.Connection, admin: asyncpg.Connection, shop: Shop) -> None:
    await stored(connection, shop, APPROVED)
    with pytest.raises(asyncpg.CheckViolationError, match="transfer_is_sound"):
        await admin.execute(f"update transfer set {wrong}")
    await admin.execute("update transfer set wallet_number = null, kind = 'settlement' where kind = 'payment'")


@pytest.mark.parametrize(
    "wrong",
    [
        "wallet set balance_minor = -1",
        "wallet set day_spent_minor = -1",
        "wallet set status = 'lost'",
        "wallet set currency = 'eur'",
        "wallet set pin_kid = 'k'",
        "wallet_device set slot = 10",
        "wallet_device set slot = -1",
        "wallet_device set status = 'stolen'",
        "merchant set fee_bps = 10001",
        "merchant set fee_fixed_minor = -1",
        "merchant set fee_fixed_minor = 9007199254740992",
    ],
)
async def test_wallet_device_and_merchant_rows(wrong: str, admin: asyncpg.Connection, shop: Shop) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await admin.execute(f"update {wrong}")
