"""Shifts as they are stored. core/accounting/shifts.py says what their figures mean.

Closing is two commits. The first takes the shift off its terminal, which waits for what is being added to it, for
milliseconds: nothing is added afterwards. The second sums it up, for as long as that takes, and holds nobody up. What
was killed between them is summed up by whoever looks at the shift next, with the same result.
"""

from uuid import UUID

import asyncpg
import orjson

from ..core.accounting.shifts import Shift, Total, TotalKind
from ..core.errors import ErrorCode
from ..core.payments.snapshot import TerminalStatus
from .database import AnyConnection
from .rows import plain_uuid
from .sql import QUERIES


async def open_shift(
    pool: asyncpg.Pool, shift_id: UUID, terminal_number: int, operator: str, opening_cash_minor: int, now_ms: int
) -> ErrorCode | None:
    """Open a shift at a terminal, once per id; why it cannot be, or None. `now_ms` is Unix milliseconds."""
    async with pool.acquire() as connection, connection.transaction():
        ((status, open_id),) = await connection.fetch(QUERIES["terminal_to_open_shift"], terminal_number)
        if open_id is None and status == TerminalStatus.ACTIVE:
            await connection.execute(
                QUERIES["open_shift"], shift_id, terminal_number, operator, opening_cash_minor, now_ms
            )
        opened = await connection.fetchrow(QUERIES["shift_opened"], shift_id)
        if opened is None:
            return ErrorCode.TERMINAL_DISABLED if open_id is None else ErrorCode.SHIFT_ALREADY_OPEN
        return None if tuple(opened) == (terminal_number, operator, opening_cash_minor) else ErrorCode.ID_REUSED


async def close_shift(
    pool: asyncpg.Pool, shift_id: UUID, terminal_number: int, counted_cash_minor: int | None, now_ms: int
) -> ErrorCode | None:
    """Close a terminal's shift, once; why it cannot be, or None. A repeat must have counted the same."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(QUERIES["terminal_to_open_shift"], terminal_number)
        shift = await connection.fetchrow(QUERIES["shift_to_close"], shift_id, terminal_number)
        if shift is None:
            return ErrorCode.SHIFT_UNKNOWN
        if shift["closed"]:
            return None if shift["counted_cash_minor"] == counted_cash_minor else ErrorCode.ID_REUSED
        if shift["payment_pending"]:
            return ErrorCode.PAYMENT_PENDING
        await connection.execute(QUERIES["close_shift"], shift_id, terminal_number, now_ms, counted_cash_minor)
    return None


async def find_shift(
    connection: AnyConnection | asyncpg.Pool, terminal_number: int, shift_id: UUID | None, now_ms: int
) -> Shift | None:
    """A terminal's shift as it is now, or the one that is open; None when there is none."""
    if shift_id is not None:
        await connection.execute(QUERIES["sum_up_shift"], shift_id)
    row = await connection.fetchrow(QUERIES["shift"], terminal_number, shift_id, now_ms)
    if row is None:
        return None
    columns = dict(row)
    figures = orjson.loads(columns.pop("figures"))
    return Shift(
        shift_id=plain_uuid(columns.pop("id")),
        made_at_ms=now_ms if columns["closed_at_ms"] is None else columns["closed_at_ms"],
        totals={TotalKind(kind): Total(*total) for kind, total in figures.items()},
        **columns,
    )
