"""Work that only one of several servers does: the one that holds an advisory lock. If it dies, another takes over."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import asyncpg
import structlog

from .database import connect
from .failures import DATABASE_ERRORS, Phase, report
from .sql import QUERIES

log = structlog.get_logger(__name__)

# An arbitrary constant that nothing else in the database uses: the ASCII of "pos-lead".
_ADVISORY_LOCK = int.from_bytes(b"pos-lead")


async def lead(
    dsn: str,
    work: Sequence[Callable[[asyncpg.Connection], Awaitable[None]]],
    *,
    every_s: float,
    timeout_s: float,
) -> None:
    """Run all `work` every `every_s` while this server leads; otherwise try to become the leader. Never returns.

    The lock is held by the connection that `work` uses, so a server that loses its database also loses the lead.
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
            except DATABASE_ERRORS as error:
                failure = report(error, Phase.WRITE, during="leading")
                if connection is not None and not failure.keeps_connection:
                    connection.terminate()
                    connection = None
            except Exception:
                log.exception("leader_work_failed")
            await asyncio.sleep(every_s)
    finally:
        if connection is not None:
            connection.terminate()
