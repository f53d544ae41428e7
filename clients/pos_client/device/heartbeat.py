"""Notice a server that went silent: nothing heard for a heartbeat and some grace, not even a ping.

The server pings every `hello.heartbeat_s`, so a client need not ping as well: websockets' own keepalive, whose interval
is fixed before `hello` is known, is off. Whatever arrives counts, be it half of a frame.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from websockets.asyncio.client import ClientConnection

HEARTBEAT_GRACE_S = 10.0
"""How much later than `heartbeat_s` a ping may come: what a busy server and a slow network need."""
HEARTBEAT_S_MAX = 120
"""A longer heartbeat is not waited for."""


class Audible(Protocol):
    """A connection that calls `on_bytes`, where set, whenever something arrives."""

    on_bytes: Callable[[], None] | None


class AudibleConnection(ClientConnection):
    """A WebSocket that tells when anything arrives: pings are answered inside the library and seen nowhere else."""

    on_bytes: Callable[[], None] | None = None

    def data_received(self, data: bytes) -> None:
        """asyncio's callback for bytes from the network."""
        if self.on_bytes is not None:
            self.on_bytes()
        super().data_received(data)


@asynccontextmanager
async def ended_by_silence(connection: Audible, heartbeat_s: int) -> AsyncIterator[asyncio.Timeout]:
    """Raise TimeoutError out of the body when nothing has arrived for `heartbeat_s` and HEARTBEAT_GRACE_S."""
    clock = asyncio.get_running_loop().time
    limit_s = min(heartbeat_s, HEARTBEAT_S_MAX) + HEARTBEAT_GRACE_S
    async with asyncio.timeout(limit_s) as silence:

        def heard() -> None:
            if not silence.expired():
                silence.reschedule(clock() + limit_s)

        connection.on_bytes = heard
        try:
            yield silence
        finally:
            connection.on_bytes = None
