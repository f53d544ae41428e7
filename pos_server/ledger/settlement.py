"""Settles merchants' business days: a statement each, and the transfer that pays what is owed."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import asyncpg

from ..core.accounting.settlement import Statement
from ..core.errors import PosError
from .sql import QUERIES
from .transactions import wait_until_ended

_ADVISORY_LOCK = int.from_bytes(b"pos-sett")
# Longer than servers' clocks may differ and than a batch may take from its time stamp to its commit.
OVERLAP = timedelta(seconds=30)


class DayNotOver(PosError):
    """The day cannot be settled yet; the text says when."""

    def __init__(self, business_date: date, until: datetime) -> None:
        super().__init__(business_date, until)
        self.business_date = business_date
        self.until = until

    def __str__(self) -> str:
        return f"day {self.business_date} is not over everywhere: settle it after {self.until:%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True, slots=True)
class SettledDay:
    """All merchants' statements of a business day; `made` counts those that were made now."""

    business_date: date
    statements: list[Statement]
    made: int


async def settle(connection: asyncpg.Connection, business_date: date, now: datetime) -> SettledDay:
    """Settle a business day for every merchant, and the days before it that are not settled yet; each in one commit.

    Safe to run twice and at several places at once. A merchant's day ends at its own cut-off in its own time zone; a
    transfer belongs to the day of its time stamp. Raises DayNotOver, TransactionsOpen, and asyncpg's errors; days
    that were settled by then stay settled.
    """
    await connection.execute("select pg_advisory_lock($1)", _ADVISORY_LOCK)
    try:
        over = await connection.fetchval(QUERIES["settlement_day_ends"], business_date)
        if over is not None and now < over + OVERLAP:
            raise DayNotOver(business_date, (over + OVERLAP).astimezone(UTC))
        # One that runs now may still commit a transfer of the day.
        ((_, running),) = await connection.fetch(QUERIES["last_transfer"])
        await wait_until_ended(connection, running)
        first = await connection.fetchval(QUERIES["first_unsettled_date"], business_date)
        made = 0
        day = min(first or business_date, business_date)
        while day <= business_date:
            made = int(await connection.fetchval(QUERIES["settle_day"], day))
            day += timedelta(days=1)
        rows = await connection.fetch(QUERIES["statements"], business_date)
        return SettledDay(business_date, [Statement(**row) for row in rows], made)
    finally:
        if not connection.is_closed():
            await connection.execute("select pg_advisory_unlock($1)", _ADVISORY_LOCK)
