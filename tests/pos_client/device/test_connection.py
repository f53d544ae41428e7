import http
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from pos_client.device.backoff import Backoff
from pos_client.device.connection import FRAME_BYTES_MAX, RETRY_AFTER_S_MAX
from pos_client.device.disconnects import may_reconnect
from pos_client.errors import ConnectionStopped
from pos_client.terminal.client import TerminalClient
from pos_client.wallet.client import WalletClient
from pos_server.core.credentials.device_keys import DeviceKind, authentication_mac
from pos_server.core.errors import CloseCode
from tests.pos_client.fake_server import DEVICE_KEY, NONCE, Peer, credentials, fake_server
from tests.pos_client.fake_time import RecordedSleeps, no_wait


@pytest.mark.asyncio
async def test_authenticate_proves_the_key_over_the_nonce() -> None:
    answers = []

    async def script(peer: Peer) -> None:
        assert peer.socket.request is not None
        assert peer.socket.request.path == "/v1/wallet"
        answers.append(await peer.greet())
        await peer.socket.close(4100, "no")

    async with fake_server(script) as server, WalletClient(server.wallet(), backoff=no_wait()) as wallet:
        with pytest.raises(ConnectionStopped):
            await wallet.ready()
    assert answers == [
        {
            "message_id": "authenticate",
            "type": "authenticate",
            "id": 1_000_000_001,
            "slot": 3,
            "kid": "k1",
            "mac": authentication_mac(DEVICE_KEY, bytes.fromhex(NONCE), 1_000_000_001).hex(),
            "since_ms": None,
            "language": "en",
        }
    ]


@pytest.mark.asyncio
async def test_the_clock_offset_is_server_time_minus_local_time() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()

    async with (
        fake_server(script, server_time_ms=1_700_000_090_000) as server,
        WalletClient(server.wallet(), backoff=no_wait(), now_ms=lambda: 1_700_000_000_000) as wallet,
    ):
        await wallet.ready()
        assert wallet.clock_offset_ms == 90_000


@pytest.mark.parametrize("code", CloseCode)
def test_the_close_codes_of_pos_server_define_whether_to_reconnect(code: CloseCode) -> None:
    assert may_reconnect(code) is code.reconnect


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (1000, True),
        (1001, True),
        (1005, True),
        (1006, True),
        (1011, True),
        (1012, True),
        (1013, True),
        (3000, True),
        (4050, True),
        (4200, True),
        (1002, False),
        (1003, False),
        (1007, False),
        (1008, False),
        (1009, False),
        (4199, False),
    ],
)
def test_other_close_codes_allow_a_reconnect_unless_it_would_fail_the_same_way(code: int, expected: bool) -> None:
    assert may_reconnect(code) is expected


@pytest.mark.asyncio
@pytest.mark.parametrize("code", [4100, 4101, 4105, 1008, 1009])
async def test_a_stop_code_ends_the_session_and_carries_code_and_reason(code: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.socket.close(code, "the reason")

    sleeps = RecordedSleeps()
    async with fake_server(script) as server, WalletClient(server.wallet(), backoff=no_wait(sleeps)) as wallet:
        with pytest.raises(ConnectionStopped) as stopped:
            await wallet.notice()
        assert wallet.stopped is stopped.value
        assert wallet.problem == str(stopped.value)
        with pytest.raises(ConnectionStopped):
            await wallet.ready()
    assert stopped.value.close_code == code
    assert sleeps.seconds == []
    assert server.connection_count == 1


@pytest.mark.asyncio
async def test_each_kind_of_loss_leads_to_a_reconnect_with_growing_backoff() -> None:
    sleeps = RecordedSleeps()

    async def draining(peer: Peer) -> None:
        await peer.welcome()
        await peer.socket.close(4000, "draining")

    async def silent_drop(peer: Peer) -> None:
        peer.drop()

    async def unavailable(peer: Peer) -> None:
        await peer.greet()
        await peer.socket.close(4003, "the database is away")

    async def restarting(peer: Peer) -> None:
        await peer.welcome()
        await peer.socket.close(1012)

    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.socket.close(4100, "enough")

    async with (
        fake_server(draining, silent_drop, unavailable, restarting, script) as server,
        WalletClient(server.wallet(), backoff=no_wait(sleeps)) as wallet,
    ):
        with pytest.raises(ConnectionStopped):
            await wallet.notice()
    assert sleeps.seconds == [0.25, 0.5, 1.0, 2.0]
    assert server.connection_count == 5


@pytest.mark.asyncio
async def test_a_stable_session_resets_the_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pos_client.device.connection.STABLE_AFTER_S", 0)
    sleeps = RecordedSleeps()

    async def draining(peer: Peer) -> None:
        await peer.welcome()
        await peer.socket.close(4000)

    async def silent_drop(peer: Peer) -> None:
        peer.drop()

    async def script(peer: Peer) -> None:
        await peer.socket.close(4100)

    async with (
        fake_server(silent_drop, silent_drop, draining, silent_drop, script) as server,
        WalletClient(server.wallet(), backoff=no_wait(sleeps)) as wallet,
    ):
        with pytest.raises(ConnectionStopped):
            await wallet.notice()
    assert sleeps.seconds == [0.25, 0.5, 0.25, 0.5]


@pytest.mark.asyncio
async def test_messages_of_unknown_types_and_unknown_fields_are_skipped() -> None:
    async def script(peer: Peer) -> None:
        await peer.send(type="news", text="from a newer server")
        await peer.welcome()
        await peer.send(type="weather", in_s=30)
        await peer.send(type="draining", reconnect_within_s=3, colour="blue")
        await peer.send(type="error", reply_to=None, code="busy", message="m", retryable=True, colour="red")
        await peer.socket.close(4100)

    async with fake_server(script) as server, WalletClient(server.wallet(), backoff=no_wait()) as wallet:
        with pytest.raises(ConnectionStopped) as stopped:
            await wallet.notice()
    assert stopped.value.close_code == 4100


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "frame", ["not json", "[]", "{}", '{"type":"payment.result"}', '{"type":"hello","nonce":"xyz"}', b"\x00\x01"]
)
async def test_an_unreadable_message_stops_the_client(frame: str | bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.socket.send(frame)

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        with pytest.raises(ConnectionStopped, match="cannot read"):
            await till.ready()


@pytest.mark.asyncio
async def test_a_nonce_that_is_not_hex_stops_the_client() -> None:
    async def script(peer: Peer) -> None:
        await peer.send(
            type="hello",
            protocol="pos.v1",
            nonce="zz",
            server_time_ms=0,
            heartbeat_s=1,
            authenticate_within_s=1,
            frame_bytes_max=1,
        )

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        with pytest.raises(ConnectionStopped, match="cannot read"):
            await till.ready()


@pytest.mark.asyncio
async def test_an_oversized_frame_stops_the_client() -> None:
    async def script(peer: Peer) -> None:
        await peer.socket.send("x" * (FRAME_BYTES_MAX + 1))

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        with pytest.raises(ConnectionStopped) as stopped:
            await till.ready()
    assert stopped.value.close_code == 1009


@asynccontextmanager
async def http_server(status: http.HTTPStatus, retry_after: str | None = None) -> AsyncIterator[str]:
    """Run a server that answers the first handshake with this status and later ones with 404; yields its URL."""
    statuses = iter([status])

    def respond(connection: ServerConnection, _: Request) -> Response:
        response = connection.respond(next(statuses, http.HTTPStatus.NOT_FOUND), "")
        if retry_after is not None:
            response.headers["Retry-After"] = retry_after
        return response

    async def handler(_: ServerConnection) -> None: ...

    async with serve(handler, "127.0.0.1", 0, process_request=respond) as listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "tries"), [(404, 1), (403, 1), (200, 2), (429, 2), (500, 2), (503, 2)], ids=lambda value: str(value)
)
async def test_http_client_errors_stop_the_client_and_others_do_not(status: int, tries: int) -> None:
    sleeps = RecordedSleeps()
    async with (
        http_server(http.HTTPStatus(status)) as url,
        TerminalClient(credentials(DeviceKind.TERMINAL, url), backoff=no_wait(sleeps)) as till,
    ):
        with pytest.raises(ConnectionStopped, match="HTTP 40"):
            await till.ready()
    assert len(sleeps.seconds) == tries - 1


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("retry_after", "delay_s"),
    [
        ("7", 7.25),
        ("0", 0.25),
        ("86400", RETRY_AFTER_S_MAX + 0.25),
        ("9" * 5_000, 0.25),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 0.25),
        ("-1", 0.25),
        (None, 0.25),
    ],
    ids=["seconds", "zero", "a day", "absurd", "a date", "negative", "none"],
)
async def test_retry_after_is_the_minimum_wait_after_a_refused_upgrade(retry_after: str | None, delay_s: float) -> None:
    sleeps = RecordedSleeps()
    async with (
        http_server(http.HTTPStatus.SERVICE_UNAVAILABLE, retry_after) as url,
        TerminalClient(credentials(DeviceKind.TERMINAL, url), backoff=no_wait(sleeps)) as till,
    ):
        with pytest.raises(ConnectionStopped):
            await till.ready()
    assert sleeps.seconds == [delay_s]


@pytest.mark.asyncio
async def test_a_server_without_the_subprotocol_stops_the_client() -> None:
    async def handler(socket: ServerConnection) -> None:
        await socket.wait_closed()

    async with serve(handler, "127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        async with TerminalClient(credentials(DeviceKind.TERMINAL, url), backoff=no_wait()) as till:
            with pytest.raises(ConnectionStopped, match=r"does not support the protocol pos\.v1"):
                await till.ready()


@pytest.mark.asyncio
async def test_a_bug_in_the_client_ends_the_waits_of_its_callers(caplog: pytest.LogCaptureFixture) -> None:
    async def broken_sleep(_: float) -> None:
        raise RuntimeError("a bug")

    async with TerminalClient(credentials(DeviceKind.TERMINAL), backoff=Backoff(sleep=broken_sleep)) as till:
        with pytest.raises(ConnectionStopped, match="unexpectedly"):
            await till.ready()
    assert "a bug" in caplog.text


@pytest.mark.asyncio
async def test_no_log_contains_codes_or_keys(caplog: pytest.LogCaptureFixture) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.answer(await peer.receive())

    caplog.set_level(logging.DEBUG)
    logging.getLogger("websockets.server").setLevel(logging.WARNING)
    code = "772000000001003123456789"
    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        await till.scan(code=code, amount_minor=1, reference="order-1")
        assert DEVICE_KEY.hex() not in repr(till.credentials)
        assert repr(DEVICE_KEY) not in repr(till.credentials)
    assert code not in caplog.text
    assert authentication_mac(DEVICE_KEY, bytes.fromhex(NONCE), 7).hex() not in caplog.text
