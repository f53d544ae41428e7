"""Wait until all transfers up to an id are visible: ids are assigned in order but committed in any order.

The query that reads the last id also reads the transactions running at that moment. Once all of them have ended, no
smaller id can appear.
"""

import asyncio
from collections.abc import Sequence

import asyncpg

from ..core.errors import PosError
from .sql import QUERIES

TRANSACTIONS_TIMEOUT_S = 60.0
_CHECK_S = 0.05


class TransactionsOpen(PosError):
    """A transaction stayed open for too long, so the transfers up to an id are not final."""

    def __str__(self) -> str:
        return (
            f"a database transaction has been open for more than {TRANSACTIONS_TIMEOUT_S:g} s. "
            "End it, then repeat the command"
        )


async def have_ended(connection: asyncpg.Connection, running: Sequence[str]) -> bool:
    """Return whether all these transactions (`virtualtransaction` of pg_locks) have ended. Raises asyncpg's errors."""
    return bool(await connection.fetchval(QUERIES["all_ended"], running))


async def wait_until_ended(connection: asyncpg.Connection, running: Sequence[str]) -> None:
    """Wait until these transactions have ended.

    Raises TransactionsOpen after TRANSACTIONS_TIMEOUT_S, and asyncpg's errors.
    """
    try:
        async with asyncio.timeout(TRANSACTIONS_TIMEOUT_S):
            while not await have_ended(connection, running):  # noqa: ASYNC110 - Postgres sends no event
                await asyncio.sleep(_CHECK_S)
    except TimeoutError:
        raise TransactionsOpen from None
