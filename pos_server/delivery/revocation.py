"""Closes live connections whose device has a new key or none, wherever the key was changed."""

import asyncio

import asyncpg

from ..ledger.directory import device_generations
from ..ledger.failures import DATABASE_ERRORS, Phase, report
from .connections import Connections

_DEVICES_PER_QUERY = 1000


async def watch_revocations(pool: asyncpg.Pool, connections: Connections, every_s: float) -> None:
    """Compare live connections with the current keys, until canceled. The server that made a change acts at once.

    A check compares all connections, so the first one after a failure misses no key that changed meanwhile.
    """
    while True:
        try:
            await close_revoked(pool, connections)
        except DATABASE_ERRORS as error:
            report(error, Phase.READ, during="revocation check")
        await asyncio.sleep(every_s)


async def close_revoked(pool: asyncpg.Pool, connections: Connections) -> None:
    """Close every connection that was authenticated with a key that is no longer valid."""
    devices = [connection.device for connection in connections]
    for start in range(0, len(devices), _DEVICES_PER_QUERY):
        part = devices[start : start + _DEVICES_PER_QUERY]
        for device, generation in zip(part, await device_generations(pool, part), strict=True):
            connections.revoke(device, generation)
