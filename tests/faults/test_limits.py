"""Every limit on a connection: the offender receives the documented response, and other devices are not affected."""

import asyncio
import json
import os
import socket
import time
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.errors import CloseCode
from pos_server.core.protocol.server_messages import SUBPROTOCOL
from pos_server.delivery.connections import CLOSE_TIMEOUT_S
from pos_server.server import RunningServer, listen, serving
from tests.faults.wire import CLOSE, CONTINUATION, TEXT, Wire, frame, upgrade_request
from tests.support import (
    ANSWER_TIMEOUT_S,
    KEYRING,
    Shop,
    TestDevice,
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


async def messages_to_the_end(socket: ClientConnection) -> tuple[list[dict[str, Any]], int]:
    """Return the remaining messages and the close code."""
    messages = []
    async with asyncio.timeout(ANSWER_TIMEOUT_S):
        try:
            while True:
                messages.append(json.loads(await socket.recv()))
        except ConnectionClosed:
            pass
    assert socket.close_code is not None
    return messages, socket.close_code


async def denied(url: str, **options: Any) -> tuple[int, str | None]:
    """Return the status and Retry-After of a denied upgrade."""
    with pytest.raises(InvalidStatus) as error:
        async with raw_socket(url, TERMINAL, **options):
            pass
    response = error.value.response
    return response.status_code, response.headers.get("Retry-After")


async def wait_until_draining(url: str) -> None:
    """Wait until `/readyz` answers 503."""
    async with asyncio.timeout(ANSWER_TIMEOUT_S), http_client(url) as http:
        while (await http.get("/readyz")).status_code != 503:
            pass


def log_in(url: str, device: TestDevice, **options: Any) -> Wire:
    """Return a blocking, authenticated connection, after `ready`."""
    wire = Wire(url, **options)
    wire.send(upgrade_request(f"/v1/{device.device.kind}"))
    assert wire.read_head().startswith(b"HTTP/1.1 101 ")
    hello = wire.read_message()
    assert hello is not None
    wire.send(frame(TEXT, json.dumps(authenticate(device, hello["nonce"])).encode()))
    ready = wire.read_message()
    assert ready is not None
    assert ready["type"] == "ready"
    return wire


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
            assert time.monotonic() - sent_s < 1
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


@pytest.mark.parametrize("offered", [None, "pos.v2", "POS.V1", "pos.v1x, chat", ""])
async def test_without_the_subprotocol_the_upgrade_is_denied(offered: str | None, server: RunningServer) -> None:
    def response() -> bytes:
        wire = Wire(server.url)
        wire.send(upgrade_request(sec_websocket_protocol=offered))
        head = wire.read_head()
        wire.close()
        return head

    assert (await asyncio.to_thread(response)).startswith(b"HTTP/1.1 400 ")


async def test_our_subprotocol_is_selected_among_others(server: RunningServer) -> None:
    def response() -> bytes:
        wire = Wire(server.url)
        wire.send(upgrade_request(sec_websocket_protocol=f"chat, {SUBPROTOCOL}"))
        head = wire.read_head().lower()
        wire.close()
        return head

    head = await asyncio.to_thread(response)
    assert head.startswith(b"http/1.1 101 ")
    assert b"sec-websocket-protocol: pos.v1\r\n" in head


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


async def test_an_upgrade_with_too_many_headers_is_rejected_and_closed(server: RunningServer) -> None:
    """h11 accepts these headers and websockets does not."""

    def response(request: bytes) -> bytes:
        wire = Wire(server.url)
        wire.send(request)
        head = wire.read_head()
        wire.read_to_end()
        wire.close()
        return head

    many = upgrade_request(**{f"x_{number}": "v" for number in range(200)})
    for request in (many, upgrade_request(x_long="v" * 9000)):
        assert (await asyncio.to_thread(response, request)).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        pytest.param(frame(TEXT, b"\xbb"), 1007, id="whole"),
        # websockets assembles both fragments after it has seen the close.
        pytest.param(frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"\xbb"), 1000, id="fragments"),
    ],
)
async def test_bad_utf8_and_a_close_in_one_read_have_one_close_code(
    server: RunningServer, shop: Shop, text: bytes, code: int
) -> None:
    def send_and_close() -> int | None:
        wire = log_in(server.url, shop.terminals[0])
        wire.send(text + frame(CLOSE, b"\x03\xe8"))
        close_code = wire.close_code()
        wire.close()
        return close_code

    assert await asyncio.to_thread(send_and_close) == code


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


async def test_a_server_fault_before_ready_has_a_close_code(
    server: RunningServer, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*arguments: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("pos_server.ledger.history.wallet_pending", broken)
    async with raw_socket(server.url, DeviceKind.WALLET) as socket:
        hello = await receive(socket)
        await socket.send(json.dumps(authenticate(shop.wallets[0], hello["nonce"])))
        assert (await messages_to_the_end(socket))[1] == CloseCode.UNAVAILABLE
