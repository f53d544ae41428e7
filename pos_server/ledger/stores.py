"""A merchant's stores and terminals, as its back office sees them."""

import asyncpg

from .database import AnyConnection
from .sql import QUERIES


async def list_stores(
    connection: AnyConnection | asyncpg.Pool, merchant_id: int, after_id: int, limit: int
) -> list[asyncpg.Record]:
    """A merchant's stores with an id above `after_id`, oldest first."""
    return await connection.fetch(QUERIES["stores"], merchant_id, after_id, limit)


async def find_store(
    connection: AnyConnection | asyncpg.Pool, merchant_id: int, store_id: int
) -> asyncpg.Record | None:
    """The merchant's store of this id; None also when it is another merchant's."""
    rows = await list_stores(connection, merchant_id, store_id - 1, 1)
    return rows[0] if rows and rows[0]["store_id"] == store_id else None


async def list_terminals(
    connection: AnyConnection | asyncpg.Pool,
    merchant_id: int,
    after_number: int,
    limit: int,
    *,
    store_id: int | None = None,
) -> list[asyncpg.Record]:
    """A merchant's terminals with a number above `after_number`, oldest first."""
    return await connection.fetch(QUERIES["terminals"], merchant_id, after_number, limit, store_id)


async def find_terminal(
    connection: AnyConnection | asyncpg.Pool, merchant_id: int, number: int
) -> asyncpg.Record | None:
    """The merchant's terminal of this number; None also when it is another merchant's."""
    rows = await list_terminals(connection, merchant_id, number - 1, 1)
    return rows[0] if rows and rows[0]["terminal_number"] == number else None
