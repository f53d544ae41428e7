"""Two servers on one database: devices receive notices of both, and a device has one connection across both."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection

from pos_server.core.credentials.device_keys import DeviceId, DeviceKind
from pos_server.core.errors import CloseCode
from pos_server.delivery.connections import Connections
from pos_server.delivery.peer_messages import CHANNEL
from pos_server.ledger import directory
from pos_server.server import RunningServer, serving
from tests.gateway.test_pin import confirm_message, pin_message
from tests.gateway.test_refund import refund_message
from tests.gateway.test_terminal import close_code
from tests.proxy import proxied
from tests.support import (
    ANSWER_TIMEOUT_S,
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


@pytest_asyncio.fixture
async def servers(dsn: str) -> AsyncIterator[tuple[RunningServer, RunningServer]]:
    """Two servers that require the PIN for 50.00 EUR and more."""
    one = settings(pin_free_minor_max=4_999, revocation_check_s=1000)
    async with serving(one, KEYRING, dsn) as first, serving(one, KEYRING, dsn) as second:
        yield first, second


async def test_a_wallet_at_another_server_receives_notices(
    servers: tuple[RunningServer, RunningServer], shop: Shop, admin: asyncpg.Connection
) -> None:
    here, there = servers
    wallet = shop.wallets[0]
    tablet = await activated(admin, DeviceId(DeviceKind.WALLET, wallet.device.number, 1))
    async with (
        logged_in(here.url, shop.terminals[0]) as till,
        logged_in(there.url, wallet, language="zh") as phone,
        logged_in(here.url, tablet) as other,
    ):
        paid = await ask(till, scan_message(wallet.code()))
        near, far = await receive(other), await receive(phone)
        assert near.pop("text") == "You paid 10.00 EUR to Corner Canteen."
        assert far.pop("text") == "您已向Corner Canteen付款 10.00 EUR。"
        assert near == far
        assert near["payment_id"] == paid["payment_id"]
        await ask(till, refund_message(paid["payment_id"]))
        assert (await receive(phone))["type"] == "refund.result"


async def test_a_pin_confirmation_works_across_servers(
    servers: tuple[RunningServer, RunningServer], shop: Shop
) -> None:
    here, there = servers
    wallet = shop.wallets[0]
    async with logged_in(here.url, shop.terminals[0]) as till, logged_in(there.url, wallet) as phone:
        await ask(phone, pin_message())
        pending = await ask(till, scan_message(wallet.code(), amount_minor=5_000))
        assert (pending["type"], pending["wallet_online"]) == ("payment.pending", True)
        request = await receive(phone)
        paid = await ask(phone, confirm_message(request))
        assert (paid["status"], (await receive(till))["status"]) == ("approved", "approved")
    async with logged_in(here.url, shop.terminals[0]) as till:
        await disconnect_is_known(here, there, wallet)
        pending = await ask(till, scan_message(wallet.code(), amount_minor=5_000))
        if pending["type"] == "payment.result":  # replayed, because the till has just reconnected
            pending = await receive(till)
        assert pending["wallet_online"] is False


async def disconnect_is_known(here: RunningServer, there: RunningServer, wallet: TestDevice) -> None:
    """Wait until the first server knows that the wallet left the second: messages between servers are ordered."""
    async with logged_in(there.url, wallet) as phone, logged_in(here.url, wallet):
        assert await close_code(phone) == CloseCode.SUPERSEDED


async def test_a_newer_connection_at_another_server_supersedes(
    servers: tuple[RunningServer, RunningServer], shop: Shop
) -> None:
    here, there = servers
    wallet = shop.wallets[0]
    async with logged_in(here.url, shop.terminals[1]) as till, logged_in(here.url, wallet) as old:
        async with logged_in(there.url, wallet) as new:
            assert await close_code(old) == CloseCode.SUPERSEDED
            result = await ask(till, scan_message(wallet.code()))
            assert (await receive(new))["payment_id"] == result["payment_id"]
        async with logged_in(here.url, wallet) as newest:
            result = await ask(till, scan_message(wallet.code()))
            assert (await receive(newest))["payment_id"] == result["payment_id"]


async def test_connections_opened_before_the_servers_met_count(dsn: str, shop: Shop) -> None:
    async with (
        serving(settings(), KEYRING, dsn) as here,
        logged_in(here.url, shop.terminals[0]) as till,
        logged_in(here.url, shop.wallets[0]) as phone,
        serving(settings(), KEYRING, dsn) as there,
        logged_in(there.url, shop.terminals[1]) as other_till,
    ):
        result = await ask(other_till, scan_message(shop.wallets[0].code()))
        assert (await receive(phone))["payment_id"] == result["payment_id"]
        async with logged_in(there.url, shop.terminals[0]):
            assert await close_code(till) == CloseCode.SUPERSEDED


async def test_an_older_connection_at_another_server_does_not_supersede_its_successor(
    servers: tuple[RunningServer, RunningServer], shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = servers
    till = shop.terminals[0]
    with monkeypatch.context() as earlier:
        # The old connection arrived a minute ago, which is more than the margin.
        earlier.setattr(Connections, "arrival", lambda self: time.monotonic() - 60)
        old_socket = raw_socket(here.url, DeviceKind.TERMINAL)
        old = await old_socket.__aenter__()
        hello = await receive(old)
    try:
        async with logged_in(there.url, till) as live:
            assert (await ask(old, authenticate(till, hello["nonce"])))["type"] == "ready"
            assert await close_code(old) == CloseCode.SUPERSEDED
            assert (await ask(live, scan_message(shop.wallets[0].code())))["status"] == "approved"
    finally:
        await old_socket.__aexit__(None, None, None)


async def test_a_device_that_moves_while_its_server_hears_nothing_has_one_connection(
    dsn: str, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`opened` is lost, and the older connection is closed when the gap ends."""
    limits = settings(peers_alive_s=0.1)
    async with (
        proxied(dsn) as proxy,
        serving(limits, KEYRING, proxy.dsn) as there,
        serving(limits, KEYRING, dsn) as here,
    ):
        with monkeypatch.context() as earlier:
            # The old connection arrived a minute ago, which is more than the margin.
            earlier.setattr(Connections, "arrival", lambda self: time.monotonic() - 60)
            old_socket = logged_in(there.url, shop.wallets[0])
            old = await old_socket.__aenter__()
        try:
            proxy.away = True
            await proxy.drop_all()
            async with logged_in(here.url, shop.wallets[0]) as new, logged_in(here.url, shop.terminals[0]) as till:
                result = await ask(till, scan_message(shop.wallets[0].code()))
                proxy.away = False
                assert await close_code(old) == CloseCode.SUPERSEDED
                assert (await receive(new))["payment_id"] == result["payment_id"]
        finally:
            await old_socket.__aexit__(None, None, None)


async def test_a_new_key_closes_the_old_connection_at_another_server(
    servers: tuple[RunningServer, RunningServer], shop: Shop, connection: asyncpg.Connection
) -> None:
    here, there = servers
    wallet = shop.wallets[0]
    await directory.issue_activation(connection, wallet.device, "AAAA-BBBB-CCCC-DDDD", ttl_s=60)
    async with logged_in(there.url, wallet) as phone, httpx.AsyncClient() as http:
        body = {"activation_code": "AAAA-BBBB-CCCC-DDDD", "request_id": "019cae74-8e3b-7dff-95dd-8ca8126c0482"}
        assert (await http.post(f"{here.url}/v1/activations", json=body)).status_code == 200
        assert await close_code(phone) == CloseCode.REVOKED


async def test_lost_notices_are_read_from_the_rows(dsn: str, shop: Shop, admin: asyncpg.Connection) -> None:
    """The listening connection is lost while a payment is decided."""
    async with (
        proxied(dsn) as proxy,
        serving(settings(peers_alive_s=0.1), KEYRING, proxy.dsn) as there,
        serving(settings(peers_alive_s=0.1), KEYRING, dsn) as here,
        logged_in(there.url, shop.wallets[0]) as phone,
        logged_in(here.url, shop.terminals[0]) as till,
    ):
        proxy.away = True
        await proxy.drop_all()
        result = await ask(till, scan_message(shop.wallets[0].code()))
        proxy.away = False
        assert (await receive(phone))["payment_id"] == result["payment_id"]


async def test_invalid_messages_on_the_channel_are_ignored(
    servers: tuple[RunningServer, RunningServer], shop: Shop, admin: asyncpg.Connection
) -> None:
    here, there = servers
    for payload in ("", "x", "[]", "{}", '{"type":"told"}', '{"type":"opened","from":"x","kind":7}', "\x01"):
        await admin.execute("select pg_notify($1, $2)", CHANNEL, payload)
    async with logged_in(here.url, shop.terminals[0]) as till, logged_in(there.url, shop.wallets[0]) as phone:
        result = await ask(till, scan_message(shop.wallets[0].code()))
        assert (await receive(phone))["payment_id"] == result["payment_id"]


async def test_no_notice_is_lost_when_many_payments_cross_servers(
    servers: tuple[RunningServer, RunningServer], shop: Shop
) -> None:
    here, there = servers

    async def payment_ids(phone: ClientConnection, count: int) -> set[str]:
        return {(await receive(phone))["payment_id"] for _ in range(count)}

    wallet = shop.wallets[0]
    async with logged_in(here.url, shop.terminals[0]) as till, logged_in(there.url, wallet) as phone:
        messages = [scan_message(wallet.code(), amount_minor=1) for _ in range(10)]
        listening = asyncio.create_task(payment_ids(phone, len(messages)))
        for message in messages:
            await till.send(json.dumps(message))
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            assert await listening == {message["payment_id"] for message in messages}


async def test_a_wallet_that_changes_servers_ends_with_the_current_balance(
    servers: tuple[RunningServer, RunningServer], shop: Shop
) -> None:
    """Replayed notices of the previous server have the balance at that time."""
    here, there = servers
    wallet = shop.wallets[0]
    async with (
        logged_in(here.url, shop.terminals[0]) as till,
        logged_in(there.url, shop.terminals[1]) as other_till,
    ):
        async with logged_in(here.url, wallet) as phone:
            paid = await ask(till, scan_message(wallet.code(), amount_minor=900))
            assert (await receive(phone))["balance_minor"] == 9_100
            refunded = await ask(other_till, refund_message(paid["payment_id"], 400))
            assert (await receive(phone))["balance_minor"] == 9_500
        async with logged_in(there.url, wallet) as phone:
            notices = [await receive(phone)]
            while notices[-1]["version"] != refunded["version"]:
                notices.append(await receive(phone))
    assert [(notice["version"], notice["balance_minor"]) for notice in notices] == [(1, 9_100), (2, 9_500)]
