"""Keys with which back offices use the REST API."""

from dataclasses import dataclass
from datetime import datetime

import asyncpg

from ..core.credentials.api_keys import ApiKey, Role, api_key_hash
from .database import AnyConnection
from .sql import QUERIES


@dataclass(frozen=True, slots=True)
class ApiKeyRecord:
    """A key as an operator sees it. The key itself is kept nowhere. Times are aware; None where it has not been."""

    id: int
    role: Role
    merchant_id: int | None
    merchant_name: str | None
    name: str
    created_at: datetime
    last_used_at: datetime | None
    ends_at: datetime | None


async def find_api_key(pool: asyncpg.Pool, key: str) -> ApiKey | None:
    """Whose key this is and what it may do; None when it is unknown or has ended. Its use is noted, once a minute."""
    row = await pool.fetchrow(QUERIES["api_key"], api_key_hash(key))
    if row is None:
        return None
    if row["use_is_old"]:
        await pool.execute(QUERIES["api_key_used"], row["id"])
    return ApiKey(row["id"], Role(row["role"]), row["merchant_id"], row["currency"])


async def create_api_key(connection: AnyConnection, key: str, role: Role, merchant_id: int | None, name: str) -> int:
    """Store a key's hash; returns its id. Raises ForeignKeyViolationError for an unknown merchant."""
    return int(await connection.fetchval(QUERIES["create_api_key"], api_key_hash(key), role, merchant_id, name))


async def end_api_key(connection: AnyConnection | asyncpg.Pool, key_id: int, in_s: float = 0) -> bool:
    """End a key in `in_s` seconds, or as before if that is sooner; False when there is none of this id."""
    return await connection.fetchval(QUERIES["end_api_key"], key_id, in_s) is not None


async def list_api_keys(
    connection: AnyConnection | asyncpg.Pool, after_id: int = 0, limit: int | None = None
) -> list[ApiKeyRecord]:
    """Keys with an id above `after_id`, oldest first."""
    rows = await connection.fetch(QUERIES["list_api_keys"], after_id, limit)
    return [ApiKeyRecord(**{**row, "role": Role(row["role"])}) for row in rows]


async def find_api_key_record(connection: AnyConnection, key_id: int) -> ApiKeyRecord | None:
    """The key of this id."""
    records = await list_api_keys(connection, key_id - 1, 1)
    return records[0] if records and records[0].id == key_id else None
