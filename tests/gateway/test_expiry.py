"""Expiry of unconfirmed payments over WebSockets.

Each test has a separate database, because any server on it expires pending payments.
"""

import asyncio
from uuid import UUID

import asyncpg
import pytest

from pos_server.server import serving
from tests.gateway.test_pin import ask_for_pin, confirm_message, set_pin
from tests.support import KEYRING, Shop, ask, logged_in, receive, scan_message, settings

pytestmark = pytest.mark.asyncio


async def test_both_sides_are_notified_when_a_payment_expires(dsn: str, shop: Shop) -> None:
    async with (
        serving(settings(pin_free_minor_max=0, confirmation_s=0.2), KEYRING, dsn) as server,
        logged_in(server.url, shop.terminals[0]) as till,
        logged_in(server.url, shop.wallets[0]) as phone,
    ):
        request = await ask_for_pin(till, phone, shop.wallets[0].code(), reference="order-slow")
        expired, notice = await receive(till), await receive(phone)
        assert (expired["status"], expired["retryable"], expired["decline_code"]) == ("expired", True, None)
        assert (notice["status"], notice["payment_id"]) == ("expired", request["payment_id"])
        await set_pin(phone)
        assert (await ask(phone, confirm_message(request)))["status"] == "expired"
        assert (await ask(till, scan_message(shop.wallets[0].code(), reference="order-slow")))["type"] == (
            "payment.pending"
        )


async def test_a_payment_expires_at_the_next_start(dsn: str, shop: Shop, admin: asyncpg.Connection) -> None:
    never = settings(pin_free_minor_max=0, confirmation_s=0.2, expiry_check_s=1000)
    async with serving(never, KEYRING, dsn) as server, logged_in(server.url, shop.terminals[0]) as till:
        pending = await ask(till, scan_message(shop.wallets[0].code()))
    async with (
        serving(settings(), KEYRING, dsn) as server,
        logged_in(server.url, shop.terminals[0]) as till,
        asyncio.timeout(10),
    ):
        status = "select status from payment where id = $1"
        while await admin.fetchval(status, UUID(pending["payment_id"])) == "pending":
            pass
        query = {"type": "payment.query", "message_id": "q", "payment_id": pending["payment_id"]}
        assert (await ask(till, query))["status"] == "expired"
