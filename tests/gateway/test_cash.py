"""Cash and fees at the till, over WebSockets: top-ups, withdrawals, their cancels, and their transfers."""

from typing import Any

import asyncpg
import pytest

from pos_server.ledger.audit import audit
from pos_server.server import RunningServer
from tests.gateway.test_cancel import cancel_message
from tests.gateway.test_pin import ask_for_pin, confirm_message, set_pin
from tests.gateway.test_refund import refund_message
from tests.shared import shared_database, shared_server
from tests.support import Shop, ask, logged_in, receive, scan_message

pytestmark = pytest.mark.asyncio
dsn = shared_database()
server = shared_server(top_up_minor_max=3_000, balance_minor_max=14_000, pin_free_minor_max=5_000)


async def transfers(admin: asyncpg.Connection, shop: Shop) -> list[tuple[str, str, str, int]]:
    """Return the transfers of the shop's wallets in this test as (kind, from, to, amount)."""
    rows = await admin.fetch(
        "select x.kind, case d.kind when 'house' then d.name else d.kind end, "
        "case c.kind when 'house' then c.name else c.kind end, x.amount_minor from transfer x "
        "join account d on d.id = x.debit_account_id join account c on c.id = x.credit_account_id "
        "where x.created_at > now() - interval '1 hour' and x.wallet_number = any($1) order by x.id",
        [wallet.device.number for wallet in shop.wallets],
    )
    return [tuple(row) for row in rows]


async def test_a_top_up_and_its_cancel(server: RunningServer, shop: Shop, admin: asyncpg.Connection) -> None:
    wallet = shop.wallets[0]
    async with logged_in(server.url, shop.terminals[0]) as till, logged_in(server.url, wallet) as phone:
        scan = scan_message(wallet.code(), amount_minor=3_000, purpose="top_up")
        done = await ask(till, scan)
        assert (done["type"], done["status"], done["purpose"]) == ("payment.result", "approved", "top_up")
        assert done["text"] == "Topped up by 30.00 EUR. Take the cash."
        notice = await receive(phone)
        assert (notice["purpose"], notice["balance_minor"]) == ("top_up", 13_000)
        assert notice["text"] == "You topped up 30.00 EUR at Corner Canteen."
        assert await ask(till, scan) == done, "a repeat gets the stored answer"
        await receive(phone)
        assert (await ask(till, scan | {"purpose": "sale"}))["code"] == "id_reused"
        assert (await ask(till, refund_message(done["payment_id"], 1)))["code"] == "not_refundable"
        history = await ask(phone, {"type": "history", "message_id": "h", "limit": 1})
        assert [payment["payment_id"] for payment in history["payments"]] == [done["payment_id"]]
        canceled = await ask(till, cancel_message(payment_id=done["payment_id"]))
        assert (canceled["status"], canceled["purpose"]) == ("canceled", "top_up")
        assert canceled["text"] == "The top-up of 30.00 EUR was taken back. Return the cash."
        assert ((await receive(phone))["balance_minor"], canceled["version"]) == (10_000, 2)
    assert await transfers(admin, shop) == [
        ("top_up", "cash_in", "wallet", 3_000),
        ("cancel", "wallet", "cash_in", 3_000),
    ]
    assert (await audit(admin)).ok


async def test_limits_of_top_ups(server: RunningServer, shop: Shop, admin: asyncpg.Connection) -> None:
    wallet = shop.wallets[0]
    async with logged_in(server.url, shop.terminals[0]) as till:

        async def top_up(amount_minor: int) -> dict[str, Any]:
            return await ask(till, scan_message(wallet.code(), amount_minor=amount_minor, purpose="top_up"))

        assert (await top_up(3_001))["decline_code"] == "amount_over_limit"
        first = await top_up(3_000)
        over = await top_up(1_001)
        assert (over["decline_code"], over["next_step"]) == ("balance_limit", "other_payment")
        assert (await top_up(1_000))["status"] == "approved"
        await admin.execute(
            "update wallet set day_start = now(), day_pin_free_count = 0 where number = $1", wallet.device.number
        )
        for amount_minor in (5_000, 5_000, 1_001):
            assert (await ask(till, scan_message(wallet.code(), amount_minor=amount_minor)))["status"] == "approved"
        spent = await ask(till, cancel_message(payment_id=first["payment_id"]))
        assert (spent["type"], spent["code"], spent["retryable"]) == ("error", "funds_spent", False)
        bad = await ask(till, scan_message(wallet.code(), purpose="gift"))
        assert (bad["code"], bad["field"]) == ("bad_field", "purpose")
    assert (await audit(admin)).ok


async def test_a_withdrawal_waits_for_the_pin(server: RunningServer, shop: Shop, admin: asyncpg.Connection) -> None:
    wallet = shop.wallets[0]
    async with logged_in(server.url, shop.terminals[0]) as till, logged_in(server.url, wallet) as phone:
        await set_pin(phone)
        request = await ask_for_pin(till, phone, wallet.code(), amount_minor=400, purpose="withdrawal")
        assert request["purpose"] == "withdrawal"
        assert request["text"] == "Take out 4.00 EUR in cash at Corner Canteen? Enter your PIN."
        confirmed = await ask(phone, confirm_message(request))
        assert (confirmed["status"], confirmed["balance_minor"]) == ("approved", 9_600)
        assert confirmed["text"] == "You took out 4.00 EUR in cash at Corner Canteen."
        paid_out = await receive(till)
        assert (paid_out["purpose"], paid_out["text"]) == ("withdrawal", "Pay out 4.00 EUR in cash.")
        canceled = await ask(till, cancel_message(reference=paid_out["reference"]))
        assert canceled["text"] == "The payout of 4.00 EUR was taken back. Take the cash back."
        notice = await receive(phone)
        assert notice["balance_minor"] == 10_000
        assert notice["text"] == "Corner Canteen took the payout back. 4.00 EUR is in your wallet again."
    assert await transfers(admin, shop) == [
        ("withdrawal", "wallet", "payout", 400),
        ("cancel", "payout", "wallet", 400),
    ]
    assert (await audit(admin)).ok


@pytest.mark.parametrize("purpose", ["top_up", "withdrawal"])
async def test_an_order_is_paid_once_for_any_purpose(purpose: str, server: RunningServer, shop: Shop) -> None:
    async with logged_in(server.url, shop.terminals[0]) as till:
        paid = await ask(till, scan_message(shop.wallets[0].code(), reference="order-9"))
        other_purpose = scan_message(shop.wallets[0].code(), reference="order-9", purpose=purpose)
        answer = await ask(till, other_purpose)
    assert (answer["decline_code"], answer["paid_by"]) == ("already_paid", paid["payment_id"])


async def test_fees_of_sales_refunds_and_cancels(server: RunningServer, shop: Shop, admin: asyncpg.Connection) -> None:
    await admin.execute("update merchant set fee_bps = 145, fee_fixed_minor = 7 where id = $1", shop.merchant_id)
    async with logged_in(server.url, shop.terminals[0]) as till:
        sold = await ask(till, scan_message(shop.wallets[0].code(), amount_minor=999))
        for amount_minor in (40, 400, 559):
            assert (await ask(till, refund_message(sold["payment_id"], amount_minor)))["type"] == "refund.result"
        other = await ask(till, scan_message(shop.wallets[1].code(), amount_minor=1_000))
        await ask(till, cancel_message(payment_id=other["payment_id"]))
        await ask(till, scan_message(shop.wallets[2].code(), amount_minor=1_000, purpose="top_up"))
    assert await transfers(admin, shop) == [
        ("payment", "wallet", "merchant", 999),
        ("fee", "merchant", "fees", 21),
        ("refund", "merchant", "wallet", 40),
        ("refund", "merchant", "wallet", 400),
        ("fee_return", "fees", "merchant", 9),
        ("refund", "merchant", "wallet", 559),
        ("fee_return", "fees", "merchant", 12),
        ("payment", "wallet", "merchant", 1_000),
        ("fee", "merchant", "fees", 22),
        ("cancel", "merchant", "wallet", 1_000),
        ("fee_return", "fees", "merchant", 22),
        ("top_up", "cash_in", "wallet", 1_000),
    ]
    assert await admin.fetchval("select sum(fee_minor) from payment where merchant_id = $1", shop.merchant_id) == 43
    assert (await audit(admin)).ok
