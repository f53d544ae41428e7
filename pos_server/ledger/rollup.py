"""Balances of merchants and the house: a stored sum up to a horizon, plus the transfers after it.

The sum moves to an id only when no smaller id can appear any more (horizon.py). Each read adds the later transfers in
the same statement, so a balance is always exact, however old the stored sum is.
"""

from dataclasses import dataclass

import asyncpg

from .database import AnyConnection
from .horizon import have_ended, wait_until_ended
from .sql import QUERIES


@dataclass(frozen=True, slots=True)
class AccountBalance:
    """Balance of an account in minor units of its currency: credits minus debits. `owner` is a name for people."""

    account_id: int
    kind: str
    owner: str
    currency: str
    balance_minor: int


class RollUp:
    """Advance the horizon step by step. Only the leading server runs it; a second one would only wait."""

    def __init__(self) -> None:
        self._last_id = 0
        self._writers: list[str] | None = None

    async def step(self, connection: asyncpg.Connection) -> None:
        """Sum up to the id that the previous step read, if its transactions have ended; then read the next id.

        Raises asyncpg's errors.
        """
        if self._writers is not None:
            if not await have_ended(connection, self._writers):
                return
            await _sum_up_to(connection, self._last_id)
        ((self._last_id, self._writers),) = await connection.fetch(QUERIES["last_transfer"])


async def roll_up(connection: asyncpg.Connection) -> int:
    """Sum up all current transfers and return the horizon, an id. Raises WriterOpen and asyncpg's errors."""
    ((last_id, writers),) = await connection.fetch(QUERIES["last_transfer"])
    await wait_until_ended(connection, writers)
    return await _sum_up_to(connection, last_id)


async def balances(connection: asyncpg.Connection) -> list[AccountBalance]:
    """Return the balances of all accounts except wallets, in one snapshot. Raises asyncpg's errors."""
    return [AccountBalance(**row) for row in await connection.fetch(QUERIES["account_balances"])]


async def merchant_balance(connection: AnyConnection, merchant_id: int) -> int:
    """Return a merchant's current balance in minor units of its currency. Raises asyncpg's errors."""
    return int(await connection.fetchval(QUERIES["merchant_balance"], merchant_id))


async def _sum_up_to(connection: asyncpg.Connection, last_id: int) -> int:
    async with connection.transaction():
        horizon_id = int(await connection.fetchval(QUERIES["lock_rollup"]))
        if last_id <= horizon_id:
            return horizon_id
        await connection.execute(QUERIES["roll_up"], horizon_id, last_id)
        return last_id
