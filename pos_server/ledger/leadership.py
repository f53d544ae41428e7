"""Work that one of many servers does: who holds an advisory lock in the database. When it dies, another one does."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import asyncpg
import structlog

from .database import DATABASE_AWAY, connect
from .sql import QUERIES

log = structlog.get_logger(__name__)

# Any constant will do, as long as nothing else in the database uses it: the ASCII of "pos-lead".
_ADVISORY_LOCK = int.from_bytes(b"pos-lead")


async def lead(
    dsn: str,
    work: Sequence[Callable[[asyncpg.Connection], Awaitable[None]]],
    *,
    every_s: float,
    timeout_s: float,
) -> None:
    """Do all the `work` every `every_s` while this server leads, and try to lead while it does not; for ever.

    The lock lives as long as the connection, which `work` may use: a server that lost its database leads no more.
    """
    connection: asyncpg.Connection | None = None
    is_leader = False
    try:
        while True:
            try:
                if connection is None:
                    connection, is_leader = await connect(dsn, timeout_s=timeout_s), False
                async with asyncio.timeout(timeout_s):
                    if not is_leader:
                        is_leader = await connection.fetchval(QUERIES["try_lead"], _ADVISORY_LOCK)
                    for task in work if is_leader else ():
                        await task(connection)
            except DATABASE_AWAY as away:
                log.warning("database_away", during="leading", cause=type(away).__name__)
                if connection is not None:
                    connection.terminate()
                connection = None
            except Exception:
                log.exception("leader_work_failed")
            await asyncio.sleep(every_s)
    finally:
        if connection is not None:
            connection.terminate()
