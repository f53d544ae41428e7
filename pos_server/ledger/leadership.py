"""Work that only one of several servers does: the one that holds an advisory lock. If it dies, another takes over."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import asyncpg

from .database import connect
from .failures import DATABASE_ERRORS, Phase, report
from .sql import QUERIES

# An arbitrary constant that nothing else in the database uses: the ASCII of "pos-lead".
_ADVISORY_LOCK = int.from_bytes(b"pos-lead")


async def lead(
    dsn: str,
    duties: Sequence[Callable[[asyncpg.Connection], Awaitable[None]]],
    *,
    every_s: float,
    timeout_s: float,
) -> None:
    """Run all `duties` every `every_s` while this server leads; otherwise try to become the leader. Never returns.

    `timeout_s` limits each duty. The lock is held by the connection that the duties use, so a server that loses its
    database also loses the lead. Raises ExceptionGroup for duties with unexpected errors, after the others have run.
    """
    connection: asyncpg.Connection | None = None
    is_leader = False
    try:
        while True:
            try:
                if connection is None:
                    connection, is_leader = await connect(dsn, timeout_s=timeout_s), False
                if not is_leader:
                    async with asyncio.timeout(timeout_s):
                        is_leader = await connection.fetchval(QUERIES["try_lead"], _ADVISORY_LOCK)
                if is_leader:
                    await _run_all(duties, connection, timeout_s)
            except DATABASE_ERRORS as error:
                failure = report(error, Phase.WRITE, during="leading")
                if connection is not None and not failure.keeps_connection:
                    connection.terminate()
                    connection = None
            await asyncio.sleep(every_s)
    finally:
        if connection is not None:
            connection.terminate()


async def _run_all(
    duties: Sequence[Callable[[asyncpg.Connection], Awaitable[None]]], connection: asyncpg.Connection, timeout_s: float
) -> None:
    """Run every duty, so that one that fails or takes too long does not stop the others. Raises their errors."""
    failures: list[Exception] = []
    for duty in duties:
        try:
            async with asyncio.timeout(timeout_s):
                await duty(connection)
        except Exception as failure:
            failures.append(failure)
    unexpected = [failure for failure in failures if not isinstance(failure, DATABASE_ERRORS)]
    if unexpected:
        raise ExceptionGroup("duties of the leader failed", unexpected)
    if failures:
        raise failures[0]
