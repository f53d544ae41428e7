"""Upgrades and first frames that violate the protocol, and their status or close code."""

import asyncio
import json

import pytest

from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.errors import CloseCode
from pos_server.core.protocol.server_messages import SUBPROTOCOL
from pos_server.server import RunningServer
from tests.faults.logins import log_in, messages_to_the_end
from tests.faults.wire import CLOSE, CONTINUATION, TEXT, Wire, frame, upgrade_request
from tests.support import (
    Shop,
    authenticate,
    raw_socket,
    receive,
)

pytestmark = pytest.mark.asyncio
TERMINAL = DeviceKind.TERMINAL


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
