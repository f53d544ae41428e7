"""Detect a silent server: nothing received, not even a ping, for one heartbeat interval plus a grace period.

The server pings every `hello.heartbeat_s`, so the client does not ping. The keepalive of `websockets` is off: its
interval would have to be set before `hello` arrives. Any received bytes count, even a partial frame.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from websockets.asyncio.client import ClientConnection

HEARTBEAT_GRACE_S = 10.0
"""Allowed delay of a ping beyond `heartbeat_s`, for a busy server and a slow network."""
HEARTBEAT_S_MAX = 120
"""Upper bound of the server's `heartbeat_s`; a longer one is cut to this."""


class Observed(Protocol):
    """A connection that calls `on_bytes`, if set, whenever bytes arrive."""

    on_bytes: Callable[[], None] | None


class ObservedConnection(ClientConnection):
    """A WebSocket that reports received bytes. Pings are handled inside the library and visible nowhere else."""

    on_bytes: Callable[[], None] | None = None

    def data_received(self, data: bytes) -> None:
        """Handle bytes from the network; called by asyncio."""
        if self.on_bytes is not None:
            self.on_bytes()
        super().data_received(data)


@asynccontextmanager
async def silence_timeout(connection: Observed, heartbeat_s: int) -> AsyncIterator[asyncio.Timeout]:
    """Raise TimeoutError in the body when nothing has arrived for `heartbeat_s` plus HEARTBEAT_GRACE_S."""
    clock = asyncio.get_running_loop().time
    limit_s = min(heartbeat_s, HEARTBEAT_S_MAX) + HEARTBEAT_GRACE_S
    async with asyncio.timeout(limit_s) as timeout:

        def restart() -> None:
            if not timeout.expired():
                timeout.reschedule(clock() + limit_s)

        connection.on_bytes = restart
        try:
            yield timeout
        finally:
            connection.on_bytes = None
