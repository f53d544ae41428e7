"""Measure the CPU of WebSocket clients under gevent, as used by locust, for a payment's frames: one sent, two received.

`python -m loadtest.experiments.websocket_clients` starts a server that answers each frame with two frames of a result's
length. Each client runs in a process of its own in which gevent has patched the blocking calls, as in locust's
processes. It must also answer a ping and notice a close. Most frames are scans and results, so their CPU decides.
"""

import argparse
import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

_RESULT = json.dumps({"type": "payment.result", "text": "x" * 320})
_SCAN = json.dumps({"type": "payment.scan", "text": "x" * 200})
_CONNECTIONS = 20
_CLOSE = "close"


async def _serve() -> None:
    """Send a ping and wait for its pong, then answer each frame with two, and `close` with a close."""
    from websockets.asyncio.server import ServerConnection, serve

    async def talk(socket: ServerConnection) -> None:
        await (await socket.ping())
        async for text in socket:
            if text == _CLOSE:
                await socket.close(4000)
                return
            await socket.send(_RESULT)
            await socket.send(_RESULT)

    async with serve(talk, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)  # noqa: T201
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def _websocket_client(url: str) -> tuple[Callable[[str], Any], Callable[[], str | None]]:
    import websocket

    socket = websocket.create_connection(url, enable_multithread=False)

    def receive() -> str | None:
        opcode, data = socket.recv_data()
        return data.decode() if opcode == websocket.ABNF.OPCODE_TEXT else None

    return socket.send, receive


def _websockets_sync(url: str) -> tuple[Callable[[str], Any], Callable[[], str | None]]:
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    socket = connect(url, compression=None, ping_interval=None, legacy=True)

    def receive() -> str | None:
        try:
            return str(socket.recv())
        except ConnectionClosed:
            return None

    return socket.send, receive


def _wsproto(url: str) -> tuple[Callable[[str], Any], Callable[[], str | None]]:
    import socket as sockets
    from urllib.parse import urlsplit

    from wsproto import ConnectionType, WSConnection
    from wsproto.events import AcceptConnection, CloseConnection, Ping, Request, TextMessage

    parts = urlsplit(url)
    socket = sockets.create_connection((parts.hostname or "", parts.port or 80))
    socket.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
    protocol = WSConnection(ConnectionType.CLIENT)
    socket.sendall(protocol.send(Request(host=parts.netloc, target="/")))
    events: list[Any] = []

    def next_event() -> Any:
        while not events:
            protocol.receive_data(socket.recv(65536) or None)
            events.extend(protocol.events())
        return events.pop(0)

    def receive() -> str | None:
        while True:
            match next_event():
                case TextMessage(data=text):
                    return str(text)
                case Ping() as ping:
                    socket.sendall(protocol.send(ping.response()))
                case CloseConnection():
                    return None

    if not isinstance(next_event(), AcceptConnection):
        raise SystemExit("the server did not accept the WebSocket")
    return lambda text: socket.sendall(protocol.send(TextMessage(text))), receive


def _websockets_protocol(url: str) -> tuple[Callable[[str], Any], Callable[[], str | None]]:
    from loadtest.shared.gevent_websocket import Closed, WebSocket

    socket = WebSocket(url)

    def receive() -> str | None:
        try:
            return socket.receive().decode()
        except Closed:
            return None

    return lambda text: socket.send(text.encode()), receive


CLIENTS = {
    "websocket-client": _websocket_client,
    "websockets.sync": _websockets_sync,
    "wsproto on a gevent socket": _wsproto,
    "websockets' protocol on a gevent socket": _websockets_protocol,
}


def _measure(name: str, url: str, rounds: int) -> None:
    """Print the CPU microseconds for one frame out and two in. Runs in a process of its own."""
    from gevent import monkey

    monkey.patch_all()
    import time

    import gevent

    sockets = [CLIENTS[name](url) for _ in range(_CONNECTIONS)]

    def talk(send: Callable[[str], Any], receive: Callable[[], str | None], count: int) -> None:
        for _ in range(count):
            send(_SCAN)
            if (receive(), receive()) != (_RESULT, _RESULT):
                raise SystemExit(f"{name} received an unexpected frame")

    def talk_on_all(count: int) -> None:
        gevent.joinall([gevent.spawn(talk, *socket, count) for socket in sockets], raise_error=True)

    talk_on_all(50)
    start_s = time.process_time()
    talk_on_all(rounds)
    cpu_s = time.process_time() - start_s
    for send, receive in sockets:
        send(_CLOSE)
        if receive() is not None:
            raise SystemExit(f"{name} did not notice the close")
    print(f"{1e6 * cpu_s / rounds / _CONNECTIONS:6.1f} µs  {name}", flush=True)  # noqa: T201


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="CPU of WebSocket clients under gevent")
    parser.add_argument(
        "--rounds", type=int, default=1000, help=f"rounds on each of {_CONNECTIONS} connections (default 1000)"
    )
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(_serve())
        return
    if arguments.measure:
        name, url = arguments.measure
        _measure(name, url, arguments.rounds)
        return
    module = [sys.executable, "-m", "loadtest.experiments.websocket_clients"]
    pipe = subprocess.PIPE
    with subprocess.Popen([*module, "--serve"], stdin=pipe, stdout=pipe, text=True) as server:  # noqa: S603
        port = server.stdout.readline().strip() if server.stdout else ""
        for name in CLIENTS:
            options = ["--measure", name, f"ws://127.0.0.1:{port}", "--rounds", str(arguments.rounds)]
            subprocess.run([*module, *options], check=True)  # noqa: S603
        if server.stdin:
            server.stdin.close()


if __name__ == "__main__":
    main()
