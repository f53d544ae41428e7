"""The horizon: a transfer id up to which all transfers are visible.

Ids are assigned in order but committed in any order. A transaction locks the table (RowExclusiveLock) before it draws
an id, and keeps the lock until it ends. A smaller id that is not visible yet therefore belongs to one that holds this
lock at the moment when the last id is read. The query that reads the last id also reads the holders. Once they
have ended, no smaller id can appear.

Prepared transactions hold the lock too, even after a restart. Vacuum, dumps, and everything in other databases do not.
"""

import asyncio
from collections.abc import Sequence

import asyncpg

from ..core.errors import PosError
from .sql import QUERIES

WRITERS_TIMEOUT_S = 60.0
_CHECK_S = 0.05


class WriterOpen(PosError):
    """A transaction that may add transfers stayed open for too long; the text names it."""

    def __init__(self, writer: str) -> None:
        super().__init__(writer)
        self.writer = writer

    def __str__(self) -> str:
        return (
            f"{self.writer} may add transfers and has been open for more than {WRITERS_TIMEOUT_S:g} s. "
            "End it, then repeat the command"
        )


async def have_ended(connection: asyncpg.Connection, writers: Sequence[str]) -> bool:
    """Return whether all these transactions (`virtualtransaction` of pg_locks) have ended. Raises asyncpg's errors."""
    return bool(await connection.fetchval(QUERIES["writers_ended"], writers))


async def wait_until_ended(connection: asyncpg.Connection, writers: Sequence[str]) -> None:
    """Wait until these transactions have ended. Raises WriterOpen after WRITERS_TIMEOUT_S, and asyncpg's errors."""
    try:
        async with asyncio.timeout(WRITERS_TIMEOUT_S):
            while not await have_ended(connection, writers):  # noqa: ASYNC110 - Postgres sends no event
                await asyncio.sleep(_CHECK_S)
    except TimeoutError:
        pass
    else:
        return
    writer = await connection.fetchval(QUERIES["first_writer"], writers)
    if writer is not None:
        raise WriterOpen(writer)
