"""Measure the cost of an idle connection: memory and CPU of the server with many authenticated, idle wallets.

    python -m loadtest.experiments.idle --connections 10000 --seconds 60 [--json FILE]

In the same run a bare `websockets` echo server (without compression) holds as many connections, as the reference for
the ratio of memory. Both servers are processes of their own. Memory is the growth of the resident set per connection.
All traffic stays on loopback.
"""

import argparse
import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect
from websockets.protocol import State

from loadtest.shared.process import Server, print_progress, seeded_pos_server, serving
from loadtest.shared.session import open_session

_CONNECTING_AT_ONCE = 100
_SETTLE_S = 2.0
_SPARE_FILES = 500
_ECHO_SERVER = """
import asyncio, sys
from websockets.asyncio.server import serve

async def echo(websocket):
    async for message in websocket:
        await websocket.send(message)

async def main():
    async with serve(echo, "127.0.0.1", 0, compression=None, max_size=4096) as server:
        print("serves http://127.0.0.1:%d" % server.sockets[0].getsockname()[1], file=sys.stderr, flush=True)
        await asyncio.get_running_loop().create_future()

asyncio.run(main())
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one server's open connections."""

    kib_per_connection: float
    idle_cpu_share: float


async def measure(
    server: Server, count: int, seconds: float, open_one: Callable[[int], Awaitable[ClientConnection]]
) -> Cost:
    """Open `count` connections to a server, hold them for `seconds`, and return their cost."""
    sockets: list[ClientConnection] = []
    try:
        # The first connection also loads modules and caches.
        sockets.append(await open_one(0))
        start_kib = server.resident_kib()
        for start in range(1, count, _CONNECTING_AT_ONCE):
            numbers = range(start, min(count, start + _CONNECTING_AT_ONCE))
            sockets += await asyncio.gather(*map(open_one, numbers))
            if start // _CONNECTING_AT_ONCE % 10 == 9:
                print_progress(f"  {len(sockets)} connected")
        await asyncio.sleep(_SETTLE_S)
        kib = (server.resident_kib() - start_kib) / (len(sockets) - 1)
        start_cpu_s, start_s = server.cpu_s(), time.monotonic()
        await asyncio.sleep(seconds)
        share = (server.cpu_s() - start_cpu_s) / (time.monotonic() - start_s)
        lost_count = sum(socket.state is not State.OPEN for socket in sockets)
        if lost_count:
            raise SystemExit(f"{lost_count} of {count} connections were lost while idle")
        print_progress(f"  {kib:.1f} KiB per connection, {share:.1%} of a core while idle")
        return Cost(round(kib, 1), round(share, 4))
    finally:
        for socket in sockets:
            socket.transport.abort()


async def echo_session(url: str) -> ClientConnection:
    """Open a connection and exchange one message."""
    socket = await connect(url.replace("http", "ws", 1), compression=None, ping_interval=None)
    await socket.send("hello")
    await socket.recv()
    return socket


async def run(count: int, seconds: float) -> dict[str, float]:
    """Measure both servers, one after the other, and return the figures."""
    print_progress(f"A bare websockets echo server with {count} connections:")
    async with serving([sys.executable, "-c", _ECHO_SERVER]) as echo:
        echo_cost = await measure(echo, count, seconds, lambda number: echo_session(echo.url))
    print_progress(f"pos-server with {count} authenticated wallets:")
    async with seeded_pos_server(terminals=1, wallets=count, balance_minor=0) as (server, shop):
        cost = await measure(server, count, seconds, lambda number: open_session(server.url, shop.wallets[number]))
    return {
        "connections": count,
        "kib_per_connection": cost.kib_per_connection,
        "peer_kib_per_connection": echo_cost.kib_per_connection,
        "memory_ratio": round(cost.kib_per_connection / echo_cost.kib_per_connection, 2),
        "idle_cpu_share": cost.idle_cpu_share,
        "peer_idle_cpu_share": echo_cost.idle_cpu_share,
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="memory and CPU of idle connections, relative to a bare echo server")
    parser.add_argument("--connections", type=int, default=10_000, help="connections per server (default 10000)")
    parser.add_argument("--seconds", type=float, default=60, help="duration of the idle time (default 60)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = arguments.connections + _SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < files:
        raise SystemExit(
            f"this needs {files} open files and {hard} are allowed: raise the limit or lower --connections"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, files), hard))
    text = json.dumps(asyncio.run(run(arguments.connections, arguments.seconds)), indent=2)
    print(text)  # noqa: T201
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
