"""SIGTERM at random moments of handshakes and requests: a clear answer or a clean close, and no traceback."""

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import asyncpg
import pytest

from pos_server.core.errors import CloseCode
from tests.end_to_end.server_process import running_server
from tests.end_to_end.test_crash import free_port
from tests.faults.wire import CLOSE, TEXT, frame, upgrade_request
from tests.support import MASTER_KEYS, TestDevice, authenticate, build_shop, new_id
from tests.tiers import short_and_long

pytestmark = pytest.mark.asyncio

CLIENTS = 40
DRAIN_TIMEOUT_S = 5
# 1012: the server stopped before the handshake was done.
CLOSES = {CloseCode.DRAINING, CloseCode.SUPERSEDED, 1012}
ACTIVATION = json.dumps({"activation_code": "AAAA-AAAA-AAAA-AAAA", "request_id": str(new_id())}).encode()
HALF = b"POST /v1/activations HTTP/1.1\r\nHost: x\r\nContent-Length: 200\r\n\r\n{"
REQUESTS = [
    b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/merchants HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer nobody\r\n\r\n",
    b"POST /v1/activations HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(ACTIVATION), ACTIVATION),
    HALF,
    HALF[:30],
]
STATUSES = {200, 400, 401, 404, 429, 503}


class _Client:
    """A connection that sends its bytes in pieces, with random pauses. An end of the stream raises EOFError."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        cuts = sorted(random.sample(range(len(data)), 2)) if random.random() < 0.5 else []
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            self.writer.write(data[start:end])
            await self.writer.drain()
            await asyncio.sleep(random.choice([0, 0, 0.001, 0.01]))

    async def status(self) -> int:
        head = await self._reader.readuntil(b"\r\n\r\n")
        if (length := re.search(rb"(?i)content-length: (\d+)", head)) is not None:
            await self._reader.readexactly(int(length[1]))
        return int(head.split()[1])

    async def frame(self) -> tuple[int, bytes]:
        head = await self._reader.readexactly(2)
        length = head[1]
        if length == 126:
            length = int.from_bytes(await self._reader.readexactly(2), "big")
        return head[0] & 0x0F, await self._reader.readexactly(length)


async def handshake(client: _Client, device: TestDevice) -> str:
    """Sign in and stay until the end. Returns the outcome."""
    await client.send(upgrade_request(f"/v1/{device.device.kind}"))
    status = await client.status()
    if status != 101:
        return f"HTTP {status}"
    while True:
        opcode, payload = await client.frame()
        if opcode == CLOSE:
            return f"close {int.from_bytes(payload[:2], 'big')}"
        if opcode == TEXT and (message := json.loads(payload))["type"] == "hello":
            await asyncio.sleep(random.choice([0, 0.01, 0.3]))
            await client.send(frame(TEXT, json.dumps(authenticate(device, message["nonce"], since_ms=1)).encode()))


async def request(client: _Client, device: TestDevice) -> str:
    """Send a REST request. Returns the outcome."""
    await client.send(random.choice(REQUESTS))
    return f"HTTP {await client.status()}"


async def outcome(port: int, act: Callable[[_Client, TestDevice], Awaitable[str]], device: TestDevice) -> str:
    writer = None
    try:
        client = _Client(*await asyncio.open_connection("127.0.0.1", port))
        writer = client.writer
        async with asyncio.timeout(DRAIN_TIMEOUT_S + 10):
            return await act(client, device)
    except (ConnectionError, asyncio.IncompleteReadError):
        await asyncio.sleep(0.01)
        return "end"
    finally:
        if writer is not None:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@short_and_long("rounds", 3, 30)
async def test_every_phase_of_a_drain_has_a_clear_answer_and_no_traceback(
    rounds: int, dsn: str, connection: asyncpg.Connection
) -> None:
    shop = await build_shop(connection, terminals=CLIENTS, wallets=CLIENTS, balance_minor=0)
    outcomes = Counter[str]()
    for _ in range(rounds):
        port, stopping = free_port(), asyncio.Event()

        async def connect_again(device: TestDevice, port: int = port, stopping: asyncio.Event = stopping) -> None:
            while not stopping.is_set():
                act = request if random.random() < 0.3 else handshake
                outcomes[await outcome(port, act, device)] += 1

        variables = {"POS_DATABASE_URL": dsn, "POS_MASTER_KEYS": MASTER_KEYS}
        async with running_server(port=port, POS_DRAIN_TIMEOUT_S=str(DRAIN_TIMEOUT_S), **variables) as server:
            clients = [asyncio.create_task(connect_again(device)) for device in [*shop.terminals, *shop.wallets]]
            await asyncio.sleep(random.uniform(0, 0.4))
            started_s = asyncio.get_running_loop().time()
            assert await server.stop() == 0
            assert asyncio.get_running_loop().time() - started_s < DRAIN_TIMEOUT_S, server.log[-3000:]
            stopping.set()
            await asyncio.gather(*clients)
            assert "Traceback" not in server.log, server.log
            assert '"level": "error"' not in server.log, server.log
    expected = {f"HTTP {status}" for status in STATUSES} | {f"close {code:d}" for code in CLOSES} | {"end"}
    assert set(outcomes) <= expected, outcomes
    assert {"HTTP 503", "close 4000"} <= set(outcomes), outcomes
