"""What merchants' back offices read: lists a page at a time, in bounded time, beside payments and not in their way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg

from ..core.errors import PosError
from ..core.payments.payment import Payment, Refund, Status
from .database import AnyConnection
from .rows import payment_of, refund_of
from .sql import QUERIES


class TakesTooLong(PosError):
    """A report was given up: it would read too much."""


class PageCursor(NamedTuple):
    """Where a page ended: the time that the list is ordered by, and the id that decides between equal ones."""

    at: datetime
    id: UUID


@dataclass(frozen=True, slots=True)
class PaymentFilter:
    """Which payments a list shows; None: whatever it is. Times are aware, of the last change, `until` not included."""

    reference: str | None = None
    store_id: int | None = None
    terminal_number: int | None = None
    status: Status | None = None
    since: datetime | None = None
    until: datetime | None = None


class Reports:
    """Lends connections of the pool to reports: few at once, so that they leave some to everybody else."""

    def __init__(self, pool: asyncpg.Pool, *, at_once_max: int, timeout_s: float) -> None:
        self._pool = pool
        self._room = asyncio.Semaphore(at_once_max)
        self._timeout_ms = str(int(timeout_s * 1000))

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AnyConnection]:
        """A connection in a transaction whose statements are bounded. Raises TakesTooLong, and asyncpg's errors."""
        async with self._room, self._pool.acquire() as connection:
            try:
                async with connection.transaction():
                    await connection.execute(QUERIES["limit_statements"], self._timeout_ms)
                    yield connection
            except asyncpg.QueryCanceledError:
                raise TakesTooLong from None


async def list_payments(
    connection: AnyConnection, merchant_id: int, asked: PaymentFilter, after: PageCursor | None, limit: int
) -> list[tuple[Payment, PageCursor]]:
    """A merchant's payments, latest change first, after the page that ended at `after`; each with its place."""
    query = "merchant_payments" if asked.reference is None else "merchant_payments_of_order"
    rows = await connection.fetch(
        QUERIES[query],
        merchant_id,
        asked.store_id,
        asked.terminal_number,
        asked.status,
        asked.since,
        asked.until,
        *(after or (None, None)),
        limit,
        *(() if asked.reference is None else (asked.reference,)),
    )
    return [(payment_of(row), PageCursor(row["changed_at"], row["id"])) for row in rows]


async def list_refunds(
    connection: AnyConnection | asyncpg.Pool, payment_id: UUID, after: PageCursor | None, limit: int
) -> list[tuple[Refund, PageCursor]]:
    """A payment's refunds, oldest first, after the page that ended at `after`; each with its place."""
    rows = await connection.fetch(QUERIES["payment_refunds"], payment_id, *(after or (None, None)), limit)
    return [(refund_of(row), PageCursor(row["created_at"], row["id"])) for row in rows]


async def list_shifts(
    connection: AnyConnection, merchant_id: int, terminal_number: int | None, after: PageCursor | None, limit: int
) -> list[asyncpg.Record]:
    """A merchant's shifts, opened last first, after the page that ended at `after`."""
    return await connection.fetch(
        QUERIES["merchant_shifts"], merchant_id, terminal_number, *(after or (None, None)), limit
    )


async def find_shift_terminal(connection: AnyConnection, merchant_id: int, shift_id: UUID) -> int | None:
    """The terminal of the merchant's shift of this id; None also when it is another merchant's."""
    number: int | None = await connection.fetchval(QUERIES["shift_terminal"], merchant_id, shift_id)
    return number


async def list_statements(
    connection: AnyConnection, merchant_id: int, business_date: date | None, before: date | None, limit: int
) -> list[asyncpg.Record]:
    """A merchant's statements, latest day first: that of one day, those before a day, or all."""
    return await connection.fetch(QUERIES["merchant_statements"], merchant_id, business_date, before, limit)
