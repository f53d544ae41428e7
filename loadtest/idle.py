"""What an idle connection costs: memory and CPU of the server with many authenticated wallets that only hold the line.

    python -m loadtest.idle --connections 10000 --seconds 60 [--json FILE]

In the same run a bare `websockets` echo server (compression off) holds as many connections, and memory is given as a
ratio to it. Both servers are processes of their own; memory is what their resident set grew by, per connection. All
traffic stays on loopback.
"""

import argparse
import asyncio
import json
import os
import re
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect
from websockets.protocol import State
from websockets.typing import Subprotocol

from loadtest.seed import KEYRING, MASTER_KEYS, Device, Shop, seed_shop
from pos_server.core.device_keys import authentication_mac
from pos_server.ledger.database import connect as connect_database
from pos_server.ledger.embedded import EmbeddedPostgres

_CONNECTING_AT_ONCE = 100
_SETTLE_S = 2.0
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
    """Of one server with all connections open."""

    kib_per_connection: float
    idle_cpu_share: float


def say(text: str) -> None:
    """Progress, for a person."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


async def measure(
    command: Sequence[str | Path],
    count: int,
    seconds: float,
    open_one: Callable[[str, int], Awaitable[ClientConnection]],
) -> Cost:
    """Start a server, open `count` connections, watch it hold them for `seconds`."""
    process = await asyncio.create_subprocess_exec(
        *command, stderr=asyncio.subprocess.PIPE, env=os.environ | {"POS_MASTER_KEYS": MASTER_KEYS}
    )
    sockets: list[ClientConnection] = []
    drain = None
    try:
        url = await _url(process)
        drain = asyncio.create_task(_drain(process))
        # The first connection pays for what is loaded once.
        sockets.append(await open_one(url, 0))
        before_kib = _resident_kib(process.pid)
        for start in range(1, count, _CONNECTING_AT_ONCE):
            numbers = range(start, min(count, start + _CONNECTING_AT_ONCE))
            sockets += await asyncio.gather(*(open_one(url, number) for number in numbers))
            if start // _CONNECTING_AT_ONCE % 10 == 9:
                say(f"  {len(sockets)} connected")
        await asyncio.sleep(_SETTLE_S)
        kib = (_resident_kib(process.pid) - before_kib) / (len(sockets) - 1)
        cpu_s, started_s = _cpu_s(process.pid), time.monotonic()
        await asyncio.sleep(seconds)
        share = (_cpu_s(process.pid) - cpu_s) / (time.monotonic() - started_s)
        lost = sum(socket.state is not State.OPEN for socket in sockets)
        if lost:
            raise SystemExit(f"{lost} of {count} connections were lost while idle")
        say(f"  {kib:.1f} KiB a connection, {share:.1%} of a core while idle")
        return Cost(round(kib, 1), round(share, 4))
    finally:
        for socket in sockets:
            socket.transport.abort()
        if process.returncode is None:
            process.terminate()
        await process.wait()
        if drain is not None:
            await drain


async def wallet_session(shop: Shop, url: str, number: int) -> ClientConnection:
    """An authenticated wallet, after `ready`."""
    device: Device = shop.wallets[number]
    address = f"{url.replace('http', 'ws', 1)}/v1/wallet"
    socket = await connect(address, subprotocols=[Subprotocol("pos.v1")], compression=None, ping_interval=None)
    hello = json.loads(await socket.recv())
    mac = authentication_mac(device.key, bytes.fromhex(hello["nonce"]), device.device.number)
    identity = {"id": device.device.number, "slot": 0, "kid": KEYRING.current, "mac": mac.hex()}
    await socket.send(json.dumps({"type": "authenticate", "message_id": "1", **identity}))
    ready = json.loads(await socket.recv())
    if ready["type"] != "ready":
        raise SystemExit(f"not ready: {ready}")
    return socket


async def echo_session(url: str, number: int) -> ClientConnection:
    """A connection that has sent and received one message."""
    socket = await connect(url.replace("http", "ws", 1), compression=None, ping_interval=None)
    await socket.send("hello")
    await socket.recv()
    return socket


async def run(count: int, seconds: float) -> dict[str, float]:
    """Both servers, one after the other; returns the figures."""
    echo = [sys.executable, "-c", _ECHO_SERVER]
    say(f"A bare websockets echo server with {count} connections:")
    peer = await measure(echo, count, seconds, echo_session)
    data_dir = Path(tempfile.mkdtemp(prefix="pos-idle-"))
    postgres = EmbeddedPostgres(data_dir)
    try:
        dsn = await asyncio.to_thread(postgres.start)
        server = Path(sys.executable).with_name("pos-server")
        migrate = await asyncio.create_subprocess_exec(server, "migrate", "--data-dir", data_dir, stdout=sys.stderr)
        await migrate.wait()
        connection = await connect_database(dsn, timeout_s=30, role=None)
        shop = await seed_shop(connection, terminals=1, wallets=count, balance_minor=0)
        await connection.close()
        say(f"pos-server with {count} authenticated wallets:")
        command: Sequence[str | Path] = [server, "run", "--port", "0", "--data-dir", data_dir]
        ours = await measure(command, count, seconds, lambda url, number: wallet_session(shop, url, number))
    finally:
        await asyncio.to_thread(postgres.stop)
        shutil.rmtree(data_dir, ignore_errors=True)
    return {
        "connections": count,
        "kib_per_connection": ours.kib_per_connection,
        "peer_kib_per_connection": peer.kib_per_connection,
        "memory_ratio": round(ours.kib_per_connection / peer.kib_per_connection, 2),
        "idle_cpu_share": ours.idle_cpu_share,
        "peer_idle_cpu_share": peer.idle_cpu_share,
    }


async def _url(process: asyncio.subprocess.Process) -> str:
    if process.stderr is None:
        raise AssertionError("stderr is a pipe")
    async for line in process.stderr:
        if match := re.search(r"serves (http://[^ \n]+)", line.decode()):
            return match[1]
    raise SystemExit("a server ended before it served")


async def _drain(process: asyncio.subprocess.Process) -> None:
    if process.stderr is not None:
        while await process.stderr.read(65536):
            pass


def _resident_kib(pid: int) -> int:
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1])  # type: ignore[index]


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="memory and CPU of idle connections, as a ratio to a bare echo server")
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60, help="how long the connections are held and watched")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = arguments.connections + 500
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise SystemExit(f"{needed} open files are needed and {hard} allowed: raise the limit or take less")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    figures = asyncio.run(run(arguments.connections, arguments.seconds))
    text = json.dumps(figures, indent=2)
    print(text)  # noqa: T201
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
