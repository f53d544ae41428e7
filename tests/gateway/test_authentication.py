"""Authentication of devices over WebSockets: proofs, order of messages, timeout, superseded connections."""

import json
from typing import Any

import asyncpg
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.errors import CloseCode
from pos_server.server import RunningServer, serving
from tests.gateway.test_terminal import close_code, payments
from tests.proxy import proxied
from tests.shared import shared_database, shared_server
from tests.support import (
    KEYRING,
    Shop,
    TestDevice,
    activated,
    ask,
    authenticate,
    logged_in,
    raw_socket,
    receive,
    scan_message,
    settings,
)

pytestmark = pytest.mark.asyncio
dsn = shared_database()
server = shared_server()
TERMINAL = DeviceKind.TERMINAL


async def test_a_message_before_authentication_closes_the_connection(
    server: RunningServer, shop: Shop, connection: asyncpg.Connection
) -> None:
    async with raw_socket(server.url, TERMINAL) as socket:
        await socket.send(json.dumps(scan_message(shop.wallets[0].code())))
        assert await close_code(socket) == CloseCode.NOT_AUTHENTICATED
    assert await payments(connection, shop) == 0


async def test_authenticating_twice_closes_the_connection(server: RunningServer, shop: Shop) -> None:
    async with logged_in(server.url, shop.terminals[0]) as till:
        await till.send(json.dumps(authenticate(shop.terminals[0], "00" * 32)))
        assert await close_code(till) == CloseCode.ALREADY_AUTHENTICATED


def _wrong(shop: Shop, case: str, nonce: str) -> dict[str, Any]:
    till = shop.terminals[0]
    match case:
        case "wrong key":
            return authenticate(TestDevice(till.device, till.kid, bytes(32)), nonce)
        case "another nonce":
            return authenticate(till, "00" * 32)
        case "another device's mac":
            return authenticate(shop.terminals[1], nonce, id=till.device.number)
        case "unknown terminal":
            return authenticate(till, nonce, id=999_999)
        case "unknown slot":
            return authenticate(till, nonce, slot=3)
        case "unknown kid":
            return authenticate(till, nonce, kid="k9")
        case _:
            return authenticate(shop.wallets[0], nonce)


@pytest.mark.parametrize(
    "case",
    [
        "wrong key",
        "another nonce",
        "another device's mac",
        "unknown terminal",
        "unknown slot",
        "unknown kid",
        "a wallet",
    ],
)
async def test_a_failed_authentication_closes_with_unauthorized(case: str, server: RunningServer, shop: Shop) -> None:
    async with raw_socket(server.url, TERMINAL) as socket:
        hello = await receive(socket)
        await socket.send(json.dumps(_wrong(shop, case, hello["nonce"])))
        assert await close_code(socket) == CloseCode.UNAUTHORIZED


async def test_a_new_activation_invalidates_the_previous_key(
    server: RunningServer, shop: Shop, connection: asyncpg.Connection
) -> None:
    old = shop.terminals[0]
    new = await activated(connection, old.device)
    async with raw_socket(server.url, TERMINAL) as socket:
        hello = await receive(socket)
        await socket.send(json.dumps(authenticate(old, hello["nonce"])))
        assert await close_code(socket) == CloseCode.UNAUTHORIZED
    async with logged_in(server.url, new):
        pass


async def test_a_terminal_without_activation_is_unauthorized(
    server: RunningServer, shop: Shop, admin: asyncpg.Connection
) -> None:
    number = shop.terminals[0].device.number
    await admin.execute("update terminal set kid = null, generation = 0 where number = $1", number)
    async with raw_socket(server.url, TERMINAL) as socket:
        hello = await receive(socket)
        await socket.send(json.dumps(authenticate(shop.terminals[0], hello["nonce"])))
        assert await close_code(socket) == CloseCode.UNAUTHORIZED


async def test_authentication_has_a_timeout(dsn: str, shop: Shop) -> None:
    async with (
        serving(settings(authentication_timeout_s=1), KEYRING, dsn) as server,
        raw_socket(server.url, TERMINAL) as socket,
    ):
        assert await close_code(socket) == CloseCode.AUTHENTICATION_TIMEOUT


async def test_a_second_connection_supersedes_the_first(server: RunningServer, shop: Shop) -> None:
    async with logged_in(server.url, shop.terminals[0]) as first, logged_in(server.url, shop.terminals[0]) as second:
        assert await close_code(first) == CloseCode.SUPERSEDED
        assert (await ask(second, scan_message(shop.wallets[0].code())))["status"] == "approved"


async def test_without_the_subprotocol_the_upgrade_is_denied(server: RunningServer) -> None:
    with pytest.raises(InvalidStatus) as error:
        async with connect(server.url.replace("http", "ws") + "/v1/terminal"):
            pass
    assert error.value.response.status_code == 400
    assert b"pos.v1" in error.value.response.body


async def test_a_connect_without_a_database_closes_with_unavailable(dsn: str, shop: Shop) -> None:
    async with proxied(dsn) as proxy, serving(settings(), KEYRING, proxy.dsn) as server:
        proxy.away = True
        await proxy.drop_all()
        async with raw_socket(server.url, TERMINAL) as socket:
            hello = await receive(socket)
            await socket.send(json.dumps(authenticate(shop.terminals[0], hello["nonce"])))
            assert await close_code(socket) == CloseCode.UNAVAILABLE
