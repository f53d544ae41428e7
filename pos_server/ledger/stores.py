"""A merchant's stores and terminals for its back office. Other merchants' objects are not found."""

import asyncpg

from .database import AnyConnection
from .sql import QUERIES


async def list_stores(
    connection: AnyConnection | asyncpg.Pool, merchant_id: int, after_id: int, limit: int
) -> list[asyncpg.Record]:
    """Return a merchant's stores with an id above `after_id`, oldest first."""
    return await connection.fetch(QUERIES["stores"], merchant_id, after_id, limit)


async def find_store(
    connection: AnyConnection | asyncpg.Pool, merchant_id: int, store_id: int
) -> asyncpg.Record | None:
    """Return the merchant's store with this id, or None."""
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
    """Return a merchant's terminals, or those of one store, with a number above `after_number`, oldest first."""
    return await connection.fetch(QUERIES["terminals"], merchant_id, after_number, limit, store_id)


async def find_terminal(
    connection: AnyConnection | asyncpg.Pool, merchant_id: int, number: int
) -> asyncpg.Record | None:
    """Return the merchant's terminal with this number, or None."""
    rows = await list_terminals(connection, merchant_id, number - 1, 1)
    return rows[0] if rows and rows[0]["terminal_number"] == number else None
