"""Connections and requests that a stop of the server finds half-way, one phase at a time."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.utils import ClientDisconnected

from pos_server.api.support.error_responses import answered_at_shutdown
from pos_server.server import listen, uvicorn_config
from tests.faults.wire import upgrade_request
from tests.support import settings

pytestmark = pytest.mark.asyncio
TIMEOUT_S = 10
HALF_BODY = b"POST /v1/activations HTTP/1.1\r\nHost: x\r\nContent-Length: 200\r\n\r\n{"


class _App:
    """An application that has received a connection or a request, and does nothing until `go_on`."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.go_on = asyncio.Event()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.entered.set()
        await self.go_on.wait()
        if scope["type"] == "http":
            while (message := await receive())["type"] == "http.request" and message["more_body"]:
                pass
            self.ended.set_result(message["type"])
            return
        try:
            await send({"type": "websocket.accept", "subprotocol": "pos.v1"})
        except ClientDisconnected:
            self.ended.set_result("the peer is gone")


@asynccontextmanager
async def stopping(app: ASGIApp) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    limits = settings()
    listener = listen(limits)
    server = uvicorn.Server(uvicorn_config(app, limits))
    task = asyncio.create_task(server._serve([listener]))
    port = listener.getsockname()[1]
    try:
        yield server, port
    finally:
        server.should_exit = True
        await task


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - a condition of uvicorn has no event
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("data", "end"),
    [
        pytest.param(upgrade_request(), "the peer is gone", id="an upgrade that is not answered"),
        pytest.param(HALF_BODY, "http.disconnect", id="half a body"),
        pytest.param(HALF_BODY[:20], None, id="half a head"),
        pytest.param(upgrade_request()[:60], None, id="half an upgrade"),
    ],
)
async def test_what_has_half_arrived_gets_503(data: bytes, end: str | None, caplog: pytest.LogCaptureFixture) -> None:
    app = _App()
    async with asyncio.timeout(TIMEOUT_S), stopping(app) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        if end is not None:
            await app.entered.wait()
        else:
            await _until(lambda: any(each.conn.trailing_data[0] for each in server.server_state.connections))  # type: ignore[union-attr]
        server.should_exit = True
        head = await reader.read()
        app.go_on.set()
        if end is not None:
            assert await app.ended == end
        writer.close()
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1\r\n" in head.lower()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize(("method", "code"), [("GET", b"busy"), ("POST", b"unknown_outcome")])
async def test_a_request_that_is_cut_off_gets_503(method: str, code: bytes) -> None:
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    async def receive() -> Message:
        raise AssertionError("the application does not read")

    app = _App()
    task = asyncio.create_task(answered_at_shutdown(app)({"type": "http", "method": method}, receive, send))
    await app.entered.wait()
    task.cancel()
    await task
    assert messages[0]["status"] == 503
    assert code in messages[1]["body"]
