"""Waiting until everything up to a transfer's id is known: ids are handed out in order and committed in any.

A query that reads the last id reads the transactions that run at that moment too; once they have all ended, no smaller
id can still come.
"""

import asyncio
from collections.abc import Sequence

import asyncpg

from ..core.errors import PosError
from .sql import QUERIES

TRANSACTIONS_TIMEOUT_S = 60.0
_CHECK_S = 0.05


class TransactionsOpen(PosError):
    """Transactions have been running for so long that it is not known what they will still add."""

    def __str__(self) -> str:
        return f"a transaction has been open for more than {TRANSACTIONS_TIMEOUT_S:g} s: end it, then run this again"


async def have_ended(connection: asyncpg.Connection, running: Sequence[str]) -> bool:
    """Whether none of these transactions (`virtualtransaction` of pg_locks) runs any more. Raises asyncpg's errors."""
    return bool(await connection.fetchval(QUERIES["all_ended"], running))


async def wait_until_ended(connection: asyncpg.Connection, running: Sequence[str]) -> None:
    """Wait for these transactions. Raises TransactionsOpen after TRANSACTIONS_TIMEOUT_S, and asyncpg's errors."""
    try:
        async with asyncio.timeout(TRANSACTIONS_TIMEOUT_S):
            while not await have_ended(connection, running):  # noqa: ASYNC110 - nobody tells us
                await asyncio.sleep(_CHECK_S)
    except TimeoutError:
        raise TransactionsOpen from None
