"""Ends a server in order, before its sockets are closed."""

import asyncio

import structlog

from ..core.errors import CloseCode
from ..core.protocol.codec import (
    encode,
)
from ..core.protocol.server_messages import (
    Draining,
)
from ..delivery.connections import Connections
from ..engine.authorizer import Authorizer
from ..limits import DrainLimits

log = structlog.get_logger(__name__)


async def drain(limits: DrainLimits, authorizer: Authorizer, connections: Connections) -> None:
    """Accept nothing new, decide and push what was accepted, and send every device away. Bounded by a timeout."""
    authorizer.close()
    try:
        async with asyncio.timeout(limits.timeout_s):
            await authorizer.drained()
            goodbye = encode(Draining(reconnect_within_s=limits.reconnect_within_s))
            for connection in connections:
                connection.deliver(goodbye)
                connection.close(CloseCode.DRAINING, "the server is restarting")
            await connections.all_gone()
    except TimeoutError:
        log.warning("drain_timed_out", connections=len(connections))
