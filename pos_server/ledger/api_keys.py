"""Keys with which a merchant's back office uses the REST API."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from ..core.api_keys import ApiKey, Scope, api_key_hash
from .sql import QUERIES


@dataclass(frozen=True, slots=True)
class ApiKeyRecord:
    """A key as an operator sees it. The key itself is kept nowhere."""

    id: int
    merchant_id: int
    merchant_name: str
    name: str
    scopes: list[str]
    created_at: datetime
    revoked_at: datetime | None


async def find_api_key(pool: asyncpg.Pool, key: str) -> ApiKey | None:
    """Whose key this is and what it may do; None when it is unknown or revoked."""
    row = await pool.fetchrow(QUERIES["api_key"], api_key_hash(key))
    return None if row is None else ApiKey(row["merchant_id"], row["currency"], frozenset(map(Scope, row["scopes"])))


async def create_api_key(
    connection: asyncpg.Connection, key: str, merchant_id: int, name: str, scopes: Sequence[Scope]
) -> int:
    """Store a key's hash; returns its id. Raises ForeignKeyViolationError for an unknown merchant."""
    return int(await connection.fetchval(QUERIES["create_api_key"], api_key_hash(key), merchant_id, name, scopes))


async def revoke_api_key(connection: asyncpg.Connection, key_id: int) -> bool:
    """End a key, for the next request already; False when there is none of this id."""
    return await connection.fetchval(QUERIES["revoke_api_key"], key_id) is not None


async def list_api_keys(connection: asyncpg.Connection) -> list[ApiKeyRecord]:
    """All keys, oldest first."""
    return [ApiKeyRecord(**row) for row in await connection.fetch(QUERIES["list_api_keys"])]
