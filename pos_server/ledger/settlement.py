"""Settle merchants' business days: one statement per day, and the transfer of the payout."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import asyncpg

from ..core.accounting.settlement import Statement
from ..core.errors import PosError
from .sql import QUERIES
from .transactions import wait_until_ended

_ADVISORY_LOCK = int.from_bytes(b"pos-sett")
# Longer than the servers' clocks may differ plus the time from a batch's timestamp to its commit.
OVERLAP = timedelta(seconds=30)


class DayNotOver(PosError):
    """The day cannot be settled yet; the text says from when on it can."""

    def __init__(self, business_date: date, until: datetime) -> None:
        super().__init__(business_date, until)
        self.business_date = business_date
        self.until = until

    def __str__(self) -> str:
        return (
            f"business day {self.business_date} has not ended for all merchants. "
            f"Settle it after {self.until:%Y-%m-%d %H:%M:%S} UTC"
        )


@dataclass(frozen=True, slots=True)
class SettledDay:
    """All merchants' statements of a business day; `created` of them are new."""

    business_date: date
    statements: list[Statement]
    created: int


async def settle(connection: asyncpg.Connection, business_date: date, now: datetime) -> SettledDay:
    """Settle a business day for all merchants, and all unsettled days before it, each day in one commit.

    Safe to repeat and to run concurrently. A merchant's day ends at its own cut-off in its own time zone; a transfer
    belongs to the day of its timestamp. Raises DayNotOver, TransactionsOpen and asyncpg's errors; days that were
    settled before the error remain settled.
    """
    await connection.execute("select pg_advisory_lock($1)", _ADVISORY_LOCK)
    try:
        end = await connection.fetchval(QUERIES["settlement_day_end"], business_date)
        if end is not None and now < end + OVERLAP:
            raise DayNotOver(business_date, (end + OVERLAP).astimezone(UTC))
        # A transaction that is running now may still commit a transfer of the day.
        ((_, running),) = await connection.fetch(QUERIES["last_transfer"])
        await wait_until_ended(connection, running)
        first = await connection.fetchval(QUERIES["first_unsettled_date"], business_date)
        created = 0
        day = min(first or business_date, business_date)
        while day <= business_date:
            created = int(await connection.fetchval(QUERIES["settle_day"], day))
            day += timedelta(days=1)
        rows = await connection.fetch(QUERIES["statements"], business_date)
        return SettledDay(business_date, [Statement(**row) for row in rows], created)
    finally:
        if not connection.is_closed():
            await connection.execute("select pg_advisory_unlock($1)", _ADVISORY_LOCK)
