"""Lists and reports for merchants' back offices, in pages, with bounded time and few connections."""

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


class QueryTimeout(PosError):
    """A report exceeded its time limit and was aborted."""


class PageCursor(NamedTuple):
    """The position of a page's last item: the time that orders the list, and the id that orders equal times."""

    at: datetime
    id: UUID


@dataclass(frozen=True, slots=True)
class PaymentFilter:
    """Filters of a list of payments; None: no restriction.

    `since` (inclusive) and `until` (exclusive) are aware times of the last change.
    """

    reference: str | None = None
    store_id: int | None = None
    terminal_number: int | None = None
    status: Status | None = None
    since: datetime | None = None
    until: datetime | None = None


class Reports:
    """Connections for reports: at most `concurrent_max` from the pool, so that enough remain for everything else."""

    def __init__(self, pool: asyncpg.Pool, *, concurrent_max: int, timeout_s: float) -> None:
        self._pool = pool
        self._slots = asyncio.Semaphore(concurrent_max)
        self._timeout_ms = str(int(timeout_s * 1000))

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AnyConnection]:
        """Acquire a connection in a transaction with a statement timeout. Raises QueryTimeout and asyncpg's errors."""
        async with self._slots, self._pool.acquire() as connection:
            try:
                async with connection.transaction():
                    await connection.execute(QUERIES["limit_statements"], self._timeout_ms)
                    yield connection
            except asyncpg.QueryCanceledError:
                raise QueryTimeout from None


async def list_payments(
    connection: AnyConnection,
    merchant_id: int,
    payment_filter: PaymentFilter,
    after: PageCursor | None,
    limit: int,
) -> list[tuple[Payment, PageCursor]]:
    """Return a merchant's payments and their cursors, latest change first, starting after `after`."""
    reference = payment_filter.reference
    if reference is not None:
        query = "merchant_payments_of_order"
    elif payment_filter.status in (None, Status.APPROVED):
        query = "merchant_payments"
    else:
        query = "merchant_payments_not_approved"
    rows = await connection.fetch(
        QUERIES[query],
        merchant_id,
        payment_filter.store_id,
        payment_filter.terminal_number,
        payment_filter.status,
        payment_filter.since,
        payment_filter.until,
        *(after or (None, None)),
        limit,
        *(() if reference is None else (reference,)),
    )
    return [(payment_of(row), PageCursor(row["changed_at"], row["id"])) for row in rows]


async def list_refunds(
    connection: AnyConnection | asyncpg.Pool,
    merchant_id: int,
    payment_id: UUID,
    after: PageCursor | None,
    limit: int,
) -> list[tuple[Refund, PageCursor]]:
    """Return a payment's refunds and their cursors, oldest first, starting after `after`."""
    rows = await connection.fetch(QUERIES["payment_refunds"], merchant_id, payment_id, *(after or (None, None)), limit)
    return [(refund_of(row), PageCursor(row["created_at"], row["id"])) for row in rows]


async def list_shifts(
    connection: AnyConnection, merchant_id: int, terminal_number: int | None, after: PageCursor | None, limit: int
) -> list[asyncpg.Record]:
    """Return a merchant's shifts, most recently opened first, starting after `after`."""
    return await connection.fetch(
        QUERIES["merchant_shifts"], merchant_id, terminal_number, *(after or (None, None)), limit
    )


async def find_shift_terminal(connection: AnyConnection, merchant_id: int, shift_id: UUID) -> int | None:
    """Return the terminal of a merchant's shift; None if the merchant has no such shift."""
    number: int | None = await connection.fetchval(QUERIES["shift_terminal"], merchant_id, shift_id)
    return number


async def list_statements(
    connection: AnyConnection, merchant_id: int, business_date: date | None, before: date | None, limit: int
) -> list[asyncpg.Record]:
    """Return a merchant's statements, latest day first: those of one day, those before a day, or all."""
    return await connection.fetch(QUERIES["merchant_statements"], merchant_id, business_date, before, limit)
