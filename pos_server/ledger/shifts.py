"""Stored shifts. core/accounting/shifts.py defines their totals.

A shift is closed in two commits. The first detaches the shift from its terminal; it waits milliseconds for operations
that are being added, and no operation is added afterwards. The second stores the totals, without blocking anyone. If
the server is killed between the two, the next read of the shift stores the totals, with the same result.
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
    """Open a shift at a terminal, once per merchant and id. Returns None, or the reason for the refusal.

    `now_ms` is in Unix milliseconds.
    """
    async with pool.acquire() as connection, connection.transaction():
        ((status, open_id),) = await connection.fetch(QUERIES["lock_terminal"], terminal_number)
        if open_id is None and status == TerminalStatus.ACTIVE:
            await connection.execute(
                QUERIES["open_shift"], shift_id, terminal_number, operator, opening_cash_minor, now_ms
            )
        opened = await connection.fetchrow(QUERIES["shift_opened"], shift_id, terminal_number)
        if opened is None:
            return ErrorCode.TERMINAL_DISABLED if open_id is None else ErrorCode.SHIFT_ALREADY_OPEN
        return None if tuple(opened) == (terminal_number, operator, opening_cash_minor) else ErrorCode.ID_REUSED


async def close_shift(
    pool: asyncpg.Pool, shift_id: UUID, terminal_number: int, counted_cash_minor: int | None, now_ms: int
) -> ErrorCode | None:
    """Close a terminal's shift, once. Returns None, or the reason for the refusal.

    A repeat must state the same counted cash.
    """
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(QUERIES["lock_terminal"], terminal_number)
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
    """Return a terminal's shift with its current totals (`shift_id` None: the open shift), or None."""
    if shift_id is not None:
        await connection.execute(QUERIES["sum_up_shift"], shift_id, terminal_number)
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
