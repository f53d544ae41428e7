"""Runs the Autobahn WebSocket cases (package `kosoku`) against a server, with the servers that the cases need."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from pos_server.gateway.direct_socket import FAILURE, direct_socket
from pos_server.server import listen, uvicorn_config
from pos_server.settings import Settings
from tests.support import TestDevice, authenticate

KOSOKU = Path(sys.executable).with_name("kosoku")
PASSED = {"OK", "NON-STRICT", "INFORMATIONAL"}
CONCURRENCY = 8
RUN_TIMEOUT_S = 80


@dataclass(frozen=True, slots=True)
class Result:
    """Autobahn's result of a case: behavior, behavior at the close, and the server's close code."""

    case: str
    behavior: str
    behavior_close: str
    close_code: int | None

    @property
    def passed(self) -> bool:
        return self.behavior in PASSED and self.behavior_close in PASSED


async def run_cases(url: str, reports: Path) -> dict[str, Result]:
    """Run every case against the server at `url`, in a separate process, because kosoku changes its interpreter."""
    process = await asyncio.create_subprocess_exec(
        KOSOKU,
        *("--parallelism", str(CONCURRENCY), "--outdir", reports, url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(RUN_TIMEOUT_S):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode in (0, 1), out.decode()[-2000:]
    (by_case,) = json.loads((reports / "index.json").read_text()).values()
    return {
        case: Result(case, report["behavior"], report["behaviorClose"], report["remoteCloseCode"])
        for case, report in by_case.items()
    }


class _Uvicorn(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Behind(Exception):
    """A text that the peer does not accept at the moment."""


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    socket = direct_socket(WebSocket(scope, receive, send))
    # Texts are echoed directly by the socket, as in the application; a slow peer gets them by `send`.
    socket.listen(lambda text: None if socket.send_now(text) else _Behind(text))
    while (event := await receive())["type"] == "websocket.receive":
        if FAILURE in event:
            event = {"text": str(event[FAILURE])}
        message: Message = {"type": "websocket.send", "text": event.get("text"), "bytes": event.get("bytes")}
        with suppress(OSError):  # the peer is gone, and the next event is its disconnect
            await send(message)


@asynccontextmanager
async def echo_server(settings: Settings) -> AsyncIterator[str]:
    """Run the server's stack below the application, with an echo as the application. Yields its URL."""
    listener = listen(settings)
    server = _Uvicorn(uvicorn_config(_echo, settings))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def logging_in(server_url: str, tills: list[TestDevice]) -> AsyncIterator[str]:
    """Run a proxy whose connections reach the server as authenticated tills, each as one of `tills`. Yields its URL.

    The cases use no subprotocol and expect silence after the upgrade. The proxy therefore offers `pos.v1`, answers
    `hello` and waits for `ready` itself. After that it forwards every byte unchanged.
    """
    host, port = re.findall(r"http://(.+):(\d+)", server_url)[0]
    free = asyncio.Queue[TestDevice]()
    for till in tills:
        free.put_nowait(till)
    handling = set[asyncio.Task[None]]()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handling.add(task)
        till = await free.get()
        try:
            upstream = await asyncio.open_connection(host, int(port))
            try:
                request = await reader.readuntil(b"\r\n\r\n")
                upstream[1].write(request[:-2] + b"Sec-WebSocket-Protocol: pos.v1\r\n\r\n")
                response = await upstream[0].readuntil(b"\r\n\r\n")
                await _log_in(*upstream, till)
                writer.write(re.sub(rb"(?i)sec-websocket-protocol: pos\.v1\r\n", b"", response))
                await _forward((reader, upstream[1]), (upstream[0], writer))
            finally:
                upstream[1].close()
        finally:
            writer.close()
            free.put_nowait(till)
            handling.discard(task)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/terminal"
        for task in list(handling):
            task.cancel()
        await asyncio.gather(*handling, return_exceptions=True)


async def _log_in(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, till: TestDevice) -> None:
    hello = json.loads(await _text_frame(reader))
    answer = json.dumps(authenticate(till, hello["nonce"])).encode()
    # FIN and text, masked with zeros (RFC 6455 section 5.3).
    writer.write(b"\x81" + bytes([0x80 | 126]) + len(answer).to_bytes(2, "big") + bytes(4) + answer)
    ready = json.loads(await _text_frame(reader))
    assert ready["type"] == "ready", ready


async def _text_frame(reader: asyncio.StreamReader) -> bytes:
    opcode, length = await reader.readexactly(2)
    assert opcode == 0x81
    if length == 126:
        length = int.from_bytes(await reader.readexactly(2), "big")
    return await reader.readexactly(length)


async def _forward(*directions: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()

    to_server, to_client = (asyncio.create_task(pump(*direction)) for direction in directions)
    try:
        # A closing server may leave data of the client unread; only the server's last frames count.
        await asyncio.wait((to_server, to_client), return_when=asyncio.FIRST_COMPLETED)
        if not to_client.done():
            with suppress(OSError):
                directions[0][1].write_eof()
            await asyncio.wait((to_client,), timeout=2)
    finally:
        to_server.cancel()
        to_client.cancel()
        await asyncio.gather(to_server, to_client, return_exceptions=True)
