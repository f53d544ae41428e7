"""Settle merchants' business days: one statement per day, and the transfer of the payout.

A merchant's days begin with the day of its first transfer. Each starts where the previous one has ended, so they join
without gap and overlap, whatever becomes of the merchant's time zone and cut-off (`business_days.joined_day`).
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import asyncpg

from ..business_days import day_of, day_start, joined_day
from ..core.accounting.settlement import SETTLEMENT_PAUSE_S, Statement
from ..core.errors import PosError
from .exclusive import Command, exclusive
from .horizon import wait_until_ended
from .sql import QUERIES

_PAUSE = timedelta(seconds=SETTLEMENT_PAUSE_S)
_DAY = timedelta(days=1)


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


class DayBeforeLedger(PosError):
    """The day is before the first transfer of any merchant; the text has the first business day."""

    def __init__(self, business_date: date, first: date) -> None:
        super().__init__(business_date, first)
        self.business_date = business_date
        self.first = first

    def __str__(self) -> str:
        return f"there is nothing to settle on {self.business_date}: the first business day is {self.first}"


@dataclass(frozen=True, slots=True)
class SettledDay:
    """All merchants' statements of a business day; `created` of them are new."""

    business_date: date
    statements: list[Statement]
    created: int


@dataclass(frozen=True, slots=True)
class _Day:
    """A merchant's day that needs a statement."""

    merchant_id: int
    starts_at: datetime
    ends_at: datetime


async def settle(connection: asyncpg.Connection, business_date: date, now: datetime) -> SettledDay:
    """Settle a business day for all merchants, and all unsettled days before it, each day in one commit.

    Safe to repeat and to run concurrently. A merchant's day ends at its own cut-off in its own time zone; a transfer
    belongs to the day of its timestamp. Raises DayNotOver, DayBeforeLedger, AlreadyRunning,
    WriterOpen and asyncpg's errors; days that were settled before the error remain settled.
    """
    async with exclusive(connection, Command.SETTLE):
        last_end = day_start(business_date + _DAY, UTC)
        if now < last_end - _DAY / 2:  # no zone is further ahead of UTC
            raise DayNotOver(business_date, last_end + _PAUSE)
        # A transaction that is running now may still commit a transfer of the day.
        ((_, writers),) = await connection.fetch(QUERIES["last_transfer"])
        await wait_until_ended(connection, writers)
        days, first_date = await _unsettled_days(connection, business_date)
        ends = [day.ends_at for day in days.get(business_date, ())]
        if ends and now < max(ends) + _PAUSE:
            raise DayNotOver(business_date, max(ends) + _PAUSE)
        created = 0
        for day, due in sorted(days.items()):
            columns = zip(*((each.merchant_id, each.starts_at, each.ends_at) for each in due), strict=True)
            created = int(await connection.fetchval(QUERIES["settle_day"], day, *columns))
        rows = await connection.fetch(QUERIES["statements"], business_date)
        if not rows and first_date is not None:
            raise DayBeforeLedger(business_date, await connection.fetchval(QUERIES["first_settled_date"]) or first_date)
        return SettledDay(business_date, [Statement(**row) for row in rows], created)


async def first_unsettled_date(connection: asyncpg.Connection, until: date) -> date | None:
    """Return the first business day up to `until` for which a merchant needs a statement; None without any."""
    _, first_date = await _unsettled_days(connection, until)
    return first_date if first_date is not None and first_date <= until else None


async def _unsettled_days(connection: asyncpg.Connection, until: date) -> tuple[dict[date, list[_Day]], date | None]:
    """Return the days up to `until` that need a statement, by date, and the first date without one."""
    days = defaultdict[date, list[_Day]](list)
    first_dates = []
    for row in await connection.fetch(QUERIES["merchants_to_settle"]):
        first_date, merchant_days = _days_of(row, until)
        first_dates.append(first_date)
        for business_date, day in merchant_days:
            days[business_date].append(day)
    return days, min(first_dates, default=None)


def _days_of(row: asyncpg.Record, until: date) -> tuple[date, Iterator[tuple[date, _Day]]]:
    """Return a merchant's first unsettled date, and its days from then on."""
    zone, cut_off = ZoneInfo(row["time_zone"]), row["cut_off"]
    last_date = row["last_date"]
    first_date = day_of(row["first_at"], zone, cut_off) if last_date is None else last_date + _DAY

    def days() -> Iterator[tuple[date, _Day]]:
        business_date, end = first_date, row["last_ends_at"]
        while business_date <= until:
            start, end = joined_day(business_date, zone, cut_off, end)
            yield business_date, _Day(row["merchant_id"], start, end)
            business_date += _DAY

    return first_date, days()
