"""Connections that the server closes: drain, lost heartbeat, revoked key, and deadlines of requests."""

import asyncio
import json
import os
import socket
import time

import asyncpg
import pytest

from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.errors import CloseCode
from pos_server.server import listen, serving
from tests.faults.logins import denied, log_in, messages_to_the_end
from tests.faults.wire import Wire, upgrade_request
from tests.support import (
    ANSWER_TIMEOUT_S,
    KEYRING,
    Shop,
    activated,
    ask,
    authenticate,
    http_client,
    logged_in,
    raw_socket,
    receive,
    scan_message,
    settings,
)

pytestmark = pytest.mark.asyncio
TERMINAL = DeviceKind.TERMINAL


async def wait_until_draining(url: str) -> None:
    """Wait until `/readyz` answers 503."""
    async with asyncio.timeout(ANSWER_TIMEOUT_S), http_client(url) as http:
        while (await http.get("/readyz")).status_code != 503:
            pass


async def test_a_draining_server_denies_new_connections_and_finishes_open_requests(
    dsn: str, shop: Shop, admin: asyncpg.Connection
) -> None:
    block = serving(settings(), KEYRING, dsn)
    server = await block.__aenter__()
    async with logged_in(server.url, shop.terminals[0]) as till:
        async with admin.transaction():
            # The decision waits for this lock, and the drain for the decision.
            await admin.execute("lock table payment in access exclusive mode")
            await till.send(json.dumps(scan_message(shop.wallets[0].code())))
            leaving = asyncio.create_task(block.__aexit__(None, None, None))
            await wait_until_draining(server.url)
            late = await ask(till, scan_message(shop.wallets[1].code()))
            assert (late["type"], late["code"], late["retryable"]) == ("error", "draining", True)
            assert await denied(server.url) == (503, "1")
        messages, code = await messages_to_the_end(till)
        await leaving
    assert [(message["type"], message.get("status")) for message in messages] == [
        ("payment.result", "approved"),
        ("draining", None),
    ]
    assert code == CloseCode.DRAINING


async def test_a_device_that_answers_no_ping_is_closed_with_a_code(dsn: str, shop: Shop) -> None:
    limits = settings(heartbeat_s=1, heartbeat_timeout_s=0.5)
    async with serving(limits, KEYRING, dsn) as server, logged_in(server.url, shop.terminals[1]) as healthy:
        silent = await asyncio.to_thread(log_in, server.url, shop.terminals[0])
        began_s = time.monotonic()
        code = await asyncio.to_thread(silent.close_code)
        took_s = time.monotonic() - began_s
        await asyncio.to_thread(silent.read_to_end)
        silent.close()
        # The healthy till stays connected, because its library answers pings.
        assert (await ask(healthy, scan_message(shop.wallets[0].code())))["status"] == "approved"
    assert code == CloseCode.HEARTBEAT_LOST
    assert 1 <= took_s < 1 + 0.5 + 1


async def test_accepted_sockets_inherit_options_of_the_listener() -> None:
    limits = settings(tcp_user_timeout_s=7, socket_send_buffer_bytes=32 * 1024)
    with listen(limits) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7000
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            # Linux doubles the value for bookkeeping (socket(7)).
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) in (32 * 1024, 64 * 1024)


async def test_connections_of_a_server_have_these_options(dsn: str, shop: Shop) -> None:
    """Find the server's end of a connection among the sockets of this process."""
    limits = settings(tcp_user_timeout_s=7)
    async with serving(limits, KEYRING, dsn) as server:
        peer = await asyncio.to_thread(log_in, server.url, shop.terminals[0])
        timeouts_ms = []
        for name in os.listdir("/proc/self/fd"):
            try:
                with socket.socket(fileno=os.dup(int(name))) as candidate:
                    if candidate.getpeername() == peer.socket.getsockname():
                        timeouts_ms.append(candidate.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
            except OSError:
                continue
        peer.close()
    assert timeouts_ms == [7000]


@pytest.mark.parametrize("kind", [DeviceKind.TERMINAL, DeviceKind.WALLET])
async def test_a_new_key_from_elsewhere_closes_the_old_connection_at_the_next_check(
    kind: DeviceKind, dsn: str, shop: Shop, connection: asyncpg.Connection
) -> None:
    device = (shop.terminals if kind is DeviceKind.TERMINAL else shop.wallets)[0]
    check_s = 1.0
    async with (
        serving(settings(revocation_check_s=check_s), KEYRING, dsn) as server,
        logged_in(server.url, device) as one,
        logged_in(server.url, shop.terminals[1]) as bystander,
    ):
        await activated(connection, device.device)
        began_s = time.monotonic()
        assert (await messages_to_the_end(one))[1] == CloseCode.REVOKED
        assert time.monotonic() - began_s < check_s + 0.5
        assert (await ask(bystander, scan_message("no code")))["type"] == "payment.result"


async def test_the_previous_key_is_rejected_after_a_revocation(
    dsn: str, shop: Shop, connection: asyncpg.Connection
) -> None:
    old = shop.terminals[0]
    async with serving(settings(revocation_check_s=0.1), KEYRING, dsn) as server, logged_in(server.url, old) as till:
        new = await activated(connection, old.device)
        assert (await messages_to_the_end(till))[1] == CloseCode.REVOKED
        async with raw_socket(server.url, TERMINAL) as socket:
            hello = await receive(socket)
            await socket.send(json.dumps(authenticate(old, hello["nonce"])))
            assert (await messages_to_the_end(socket))[1] == CloseCode.UNAUTHORIZED
        async with logged_in(server.url, new):
            pass


@pytest.mark.parametrize(
    ("sent", "responses"),
    [
        (b"", 0),
        (upgrade_request()[:60], 0),
        (b"POST /v1/activations HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{", 0),
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", 1),
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /hea", 1),
    ],
    ids=["nothing", "half an upgrade", "half a body", "no second request", "half a second request"],
)
async def test_a_peer_that_does_not_complete_its_request_is_closed(sent: bytes, responses: int, dsn: str) -> None:
    def wait() -> tuple[bytes, float]:
        wire = Wire(server.url)
        wire.send(sent)
        began_s = time.monotonic()
        head = wire.read_head()
        wire.read_to_end()
        wire.close()
        return head, time.monotonic() - began_s

    async with serving(settings(authentication_timeout_s=1), KEYRING, dsn) as server:
        head, took_s = await asyncio.to_thread(wait)
    assert head.count(b"HTTP/1.1 200 ") == responses
    assert 0.9 < took_s < 2


async def test_a_trickled_request_has_the_same_deadline(dsn: str) -> None:
    def trickle() -> float:
        wire = Wire(server.url)
        began_s = time.monotonic()
        wire.socket.settimeout(0.05)
        for byte in upgrade_request():
            wire.send(bytes([byte]))
            try:
                wire.read_to_end()
                break
            except TimeoutError:
                pass
        wire.close()
        return time.monotonic() - began_s

    async with serving(settings(authentication_timeout_s=1), KEYRING, dsn) as server:
        assert 0.9 < await asyncio.to_thread(trickle) < 2


async def test_an_authenticated_connection_has_no_such_deadline(dsn: str, shop: Shop) -> None:
    async with serving(settings(authentication_timeout_s=1), KEYRING, dsn) as server:
        till = await asyncio.to_thread(log_in, server.url, shop.terminals[0])
        till.socket.settimeout(2)
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(till.read_message)
        till.close()
