"""Balances of merchants and of the house: a sum up to a horizon, and the transfers after it.

The horizon is commit-safe: ids are handed out in order and committed in any, so it moves to an id only once every
transaction that ran when that id was the last one has ended. Whoever reads adds the tail in the same statement, so a
balance is exact at any moment, whether the sum is of now or an hour old.
"""

from dataclasses import dataclass

import asyncpg

from .database import AnyConnection
from .sql import QUERIES
from .transactions import have_ended, wait_until_ended


@dataclass(frozen=True, slots=True)
class AccountBalance:
    """What an account holds, in minor units of its currency: credits less debits. `owner` is for people."""

    account_id: int
    kind: str
    owner: str
    currency: str
    balance_minor: int


class RollUp:
    """Moves the horizon on, a step a call. It belongs to one server at a time; a second one would only wait."""

    def __init__(self) -> None:
        self._last_id = 0
        self._running: list[str] | None = None

    async def step(self, connection: asyncpg.Connection) -> None:
        """Sum up as far as the step before has looked, if that is settled; then look again. Raises asyncpg's errors."""
        if self._running is not None:
            if not await have_ended(connection, self._running):
                return
            await _sum_up_to(connection, self._last_id)
        ((self._last_id, self._running),) = await connection.fetch(QUERIES["last_transfer"])


async def roll_up(connection: asyncpg.Connection) -> int:
    """Sum up all that there is now; returns the horizon, an id. Raises TransactionsOpen, and asyncpg's errors."""
    ((last_id, running),) = await connection.fetch(QUERIES["last_transfer"])
    await wait_until_ended(connection, running)
    return await _sum_up_to(connection, last_id)


async def balances(connection: asyncpg.Connection) -> list[AccountBalance]:
    """The balance of every account that is no wallet, as of one moment. Raises asyncpg's errors."""
    return [AccountBalance(**row) for row in await connection.fetch(QUERIES["account_balances"])]


async def merchant_balance(connection: AnyConnection, merchant_id: int) -> int:
    """What a merchant's account holds now, in minor units of its currency. Raises asyncpg's errors."""
    return int(await connection.fetchval(QUERIES["merchant_balance"], merchant_id))


async def _sum_up_to(connection: asyncpg.Connection, last_id: int) -> int:
    async with connection.transaction():
        horizon_id = int(await connection.fetchval(QUERIES["lock_rollup"]))
        if last_id <= horizon_id:
            return horizon_id
        await connection.execute(QUERIES["roll_up"], horizon_id, last_id)
        return last_id
