"""Stored API keys of the REST API."""

from dataclasses import dataclass
from datetime import datetime

import asyncpg

from ..core.credentials.api_keys import ApiKey, Role, api_key_hash
from .database import AnyConnection
from .sql import QUERIES


@dataclass(frozen=True, slots=True)
class ApiKeyRecord:
    """A stored API key without its secret. Times are aware; None for an event that has not happened."""

    id: int
    role: Role
    merchant_id: int | None
    merchant_name: str | None
    name: str
    created_at: datetime
    last_used_at: datetime | None
    ends_at: datetime | None


async def find_api_key(pool: asyncpg.Pool, key: str) -> ApiKey | None:
    """Return the API key with this secret, or None if it is unknown or no longer valid.

    The time of use is recorded, at most once a minute.
    """
    row = await pool.fetchrow(QUERIES["api_key"], api_key_hash(key))
    if row is None:
        return None
    if row["use_is_old"]:
        await pool.execute(QUERIES["api_key_used"], row["id"])
    return ApiKey(row["id"], Role(row["role"]), row["merchant_id"], row["currency"])


async def create_api_key(connection: AnyConnection, key: str, role: Role, merchant_id: int | None, name: str) -> int:
    """Store the hash of a key and return the key's id. Raises ForeignKeyViolationError for an unknown merchant."""
    return int(await connection.fetchval(QUERIES["create_api_key"], api_key_hash(key), role, merchant_id, name))


async def end_api_key(connection: AnyConnection | asyncpg.Pool, key_id: int, in_s: float = 0) -> bool:
    """End a key's validity in `in_s` seconds, but never later than before. Returns False for an unknown id."""
    return await connection.fetchval(QUERIES["end_api_key"], key_id, in_s) is not None


async def list_api_keys(
    connection: AnyConnection | asyncpg.Pool, after_id: int = 0, limit: int | None = None
) -> list[ApiKeyRecord]:
    """Return the keys with an id above `after_id`, oldest first."""
    rows = await connection.fetch(QUERIES["list_api_keys"], after_id, limit)
    return [ApiKeyRecord(**{**row, "role": Role(row["role"])}) for row in rows]


async def find_api_key_record(connection: AnyConnection, key_id: int) -> ApiKeyRecord | None:
    """Return the key with this id, or None."""
    records = await list_api_keys(connection, key_id - 1, 1)
    return records[0] if records and records[0].id == key_id else None
