"""Limits on connections and messages: the offender receives the documented response, others are not affected."""

import asyncio
import json
import time
from contextlib import AsyncExitStack

import pytest
from websockets.exceptions import InvalidStatus

from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.errors import CloseCode
from pos_server.delivery.connections import CLOSE_TIMEOUT_S
from pos_server.server import RunningServer, serving
from tests.faults.logins import denied, log_in, messages_to_the_end
from tests.faults.wire import TEXT, Wire, frame, upgrade_request
from tests.support import (
    ANSWER_TIMEOUT_S,
    KEYRING,
    Shop,
    ask,
    logged_in,
    raw_socket,
    receive,
    scan_message,
    settings,
)

pytestmark = pytest.mark.asyncio
TERMINAL = DeviceKind.TERMINAL


async def test_a_till_that_does_not_read_is_closed_as_a_slow_consumer(dsn: str, shop: Shop) -> None:
    """The till floods the server and reads nothing, so answers fill its own buffers, and only those."""
    limits = settings(
        outbox_messages_max=4,
        resume_payments_max=3,
        socket_send_buffer_bytes=4096,
        messages_per_s=1e6,
        messages_burst=1_000_000,
        bad_messages_per_s=1e6,
        bad_messages_burst=1_000_000,
    )
    bad = frame(TEXT, json.dumps({"type": "payment.scam", "message_id": "x" * 64}).encode())

    def flood(wire: Wire) -> None:
        # Ends when the server stops reading or resets the connection.
        wire.socket.settimeout(CLOSE_TIMEOUT_S + 1)
        try:
            for _ in range(200):
                wire.socket.sendall(bad * 100)
        except OSError:
            pass
        wire.socket.settimeout(ANSWER_TIMEOUT_S)

    async with serving(limits, KEYRING, dsn) as server, logged_in(server.url, shop.terminals[1]) as healthy:
        slow = await asyncio.to_thread(log_in, server.url, shop.terminals[0], receive_buffer_bytes=4096)
        flooding = asyncio.create_task(asyncio.to_thread(flood, slow))
        while not flooding.done():
            sent_s = time.monotonic()
            answer = await ask(healthy, scan_message("no code"))
            assert answer["decline_code"] == "code_malformed"
            assert time.monotonic() - sent_s < 5  # a loaded machine is slow too; a stalled server would not answer
            await asyncio.sleep(0.05)
        code = await asyncio.to_thread(slow.close_code)
        slow.close()
    assert code == CloseCode.SLOW_CONSUMER


async def test_a_wallet_that_does_not_read_is_closed_and_its_payments_continue(dsn: str, shop: Shop) -> None:
    """The wallet sends nothing; notices of its payments fill its outbox."""
    limits = settings(
        outbox_messages_max=4,
        resume_payments_max=3,
        socket_send_buffer_bytes=4096,
        messages_per_s=1e6,
        messages_burst=10**6,
    )
    wallet = shop.wallets[0]
    async with serving(limits, KEYRING, dsn) as server, logged_in(server.url, shop.terminals[0]) as till:
        phone = await asyncio.to_thread(log_in, server.url, wallet, receive_buffer_bytes=2048)
        code = wallet.code()
        assert (await ask(till, scan_message(code, amount_minor=1)))["status"] == "approved"
        # The code is spent, so each further scan is declined, with a notice to the wallet.
        for _ in range(400):
            assert (await ask(till, scan_message(code, amount_minor=1)))["decline_code"] == "code_used"
        close_code = await asyncio.to_thread(phone.close_code)
        phone.close()
    assert close_code == CloseCode.SLOW_CONSUMER


async def test_too_many_messages_are_rejected_and_then_close_the_connection(dsn: str, shop: Shop) -> None:
    limits = settings(messages_per_s=0.001, messages_burst=3, bad_messages_per_s=0.001, bad_messages_burst=2)
    async with serving(limits, KEYRING, dsn) as server, logged_in(server.url, shop.terminals[0]) as till:
        for _ in range(8):
            await till.send(json.dumps(scan_message("no code")))
        messages, code = await messages_to_the_end(till)
        async with logged_in(server.url, shop.terminals[1]) as other:
            assert (await ask(other, scan_message(shop.wallets[0].code())))["status"] == "approved"
    errors = [message for message in messages if message["type"] == "error"]
    assert [(error["code"], error["retryable"]) for error in errors] == [("too_many_messages", True)] * 3
    assert all(error["reply_to"] and error["retry_after_s"] == 1 for error in errors)
    assert len(messages) <= 6
    assert code == CloseCode.TOO_MANY_MESSAGES


async def test_too_many_bad_messages_close_the_connection(dsn: str, shop: Shop) -> None:
    limits = settings(bad_messages_per_s=0.001, bad_messages_burst=4)
    async with serving(limits, KEYRING, dsn) as server, logged_in(server.url, shop.terminals[0]) as till:
        for _ in range(10):
            await till.send(json.dumps(scan_message("x", amount_minor=0)))
        messages, code = await messages_to_the_end(till)
    assert [message["code"] for message in messages] == ["bad_field"] * 5
    assert code == CloseCode.TOO_MANY_MESSAGES


@pytest.mark.parametrize(
    ("limits", "status"),
    [({"connections_max": 2}, 503), ({"address_connections_max": 2}, 429)],
    ids=["in total", "from one address"],
)
async def test_one_connection_too_many_is_denied_before_the_upgrade(
    limits: dict[str, int], status: int, dsn: str, shop: Shop
) -> None:
    async with serving(settings(**limits), KEYRING, dsn) as server, logged_in(server.url, shop.terminals[0]) as till:
        async with raw_socket(server.url, TERMINAL) as other:
            await receive(other)
            assert await denied(server.url) == (status, "5")
            assert (await ask(till, scan_message(shop.wallets[0].code())))["status"] == "approved"
        # The slot is free when the server has noticed the disconnect.
        async with asyncio.timeout(ANSWER_TIMEOUT_S), AsyncExitStack() as stack:
            while True:
                try:
                    await stack.enter_async_context(logged_in(server.url, shop.terminals[1]))
                    break
                except InvalidStatus:
                    await asyncio.sleep(0.01)


async def test_only_allowed_origins_can_connect(dsn: str, shop: Shop) -> None:
    origins = frozenset({"https://till.example"})
    async with serving(settings(allowed_origins=origins), KEYRING, dsn) as server:
        for origin in ("https://evil.example", "https://till.example.evil.example", "http://till.example", "null"):
            assert await denied(server.url, origin=origin) == (403, None)
        async with raw_socket(server.url, TERMINAL, origin="https://till.example") as page:
            assert (await receive(page))["type"] == "hello"
        async with logged_in(server.url, shop.terminals[0]):  # a device sends no origin
            pass


async def test_by_default_no_origin_is_allowed(server: RunningServer) -> None:
    assert await denied(server.url, origin="https://till.example") == (403, None)


@pytest.mark.parametrize(("trusted", "second"), [("127.0.0.0/8", 101), ("", 429)])
async def test_behind_a_trusted_proxy_each_client_has_its_own_limit(trusted: str, second: int, dsn: str) -> None:
    def status(address: str) -> int:
        wires.append(Wire(server.url))
        wires[-1].send(upgrade_request(x_forwarded_for=address))
        return int(wires[-1].read_head().split(b" ")[1])

    wires = list[Wire]()
    limits = settings(address_connections_max=1, trusted_proxies=trusted)
    async with serving(limits, KEYRING, dsn) as server:
        assert await asyncio.to_thread(status, "203.0.113.1") == 101
        assert await asyncio.to_thread(status, "203.0.113.2") == second
        assert await asyncio.to_thread(status, "203.0.113.1") == 429
        for wire in wires:
            wire.close()
