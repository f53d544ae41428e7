"""A wallet over a WebSocket."""

import json

import asyncpg
import pytest

from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.errors import CloseCode
from pos_server.server import RunningServer
from tests.gateway.test_terminal import close_code, payments
from tests.shared import shared_database, shared_server
from tests.support import Shop, activated, ask, authenticate, logged_in, raw_socket, receive, scan_message

pytestmark = pytest.mark.asyncio
dsn = shared_database()
server = shared_server()


async def test_ready_has_the_balance(server: RunningServer, shop: Shop) -> None:
    wallet = shop.wallets[0]
    async with raw_socket(server.url, DeviceKind.WALLET) as socket:
        hello = await receive(socket)
        ready = await ask(socket, authenticate(wallet, hello["nonce"]))
    assert ready.pop("server_time_ms") >= hello["server_time_ms"]
    assert ready == {
        "type": "ready",
        "reply_to": "auth",
        "resumed": True,
        "wallet_number": wallet.device.number,
        "slot": 0,
        "currency": "EUR",
        "balance_minor": 10_000,
        "pin_set": False,
        "status": "active",
    }


async def test_a_wallet_cannot_scan(server: RunningServer, shop: Shop, connection: asyncpg.Connection) -> None:
    async with logged_in(server.url, shop.wallets[0]) as phone:
        answer = await ask(phone, scan_message(shop.wallets[0].code()))
    assert (answer["type"], answer["code"], answer["field"]) == ("error", "unknown_type", "type")
    assert await payments(connection, shop) == 0


async def test_an_unknown_wallet_and_a_wrong_key_have_the_same_close_code(server: RunningServer, shop: Shop) -> None:
    for fields in ({"id": 9_999_999_999}, {"slot": 1}, {"mac": "0" * 64}):
        async with raw_socket(server.url, DeviceKind.WALLET) as socket:
            hello = await receive(socket)
            await socket.send(json.dumps(authenticate(shop.wallets[0], hello["nonce"]) | fields))
            assert await close_code(socket) == CloseCode.UNAUTHORIZED


async def test_a_revoked_phone_cannot_connect(server: RunningServer, shop: Shop, admin: asyncpg.Connection) -> None:
    number = shop.wallets[0].device.number
    await admin.execute("update wallet_device set status = 'revoked' where wallet_number = $1", number)
    async with raw_socket(server.url, DeviceKind.WALLET) as socket:
        hello = await receive(socket)
        await socket.send(json.dumps(authenticate(shop.wallets[0], hello["nonce"])))
        assert await close_code(socket) == CloseCode.UNAUTHORIZED


async def test_a_new_phone_in_the_slot_invalidates_codes_of_the_old_one(
    server: RunningServer, shop: Shop, connection: asyncpg.Connection
) -> None:
    old = shop.wallets[0]
    async with logged_in(server.url, shop.terminals[0]) as till:
        for _ in range(3):
            assert (await ask(till, scan_message(old.code())))["status"] == "approved"
        new = await activated(connection, old.device)
        assert (await ask(till, scan_message(new.code(seq=0))))["status"] == "approved"
        assert (await ask(till, scan_message(old.code())))["decline_code"] == "code_invalid"
