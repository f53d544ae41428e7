"""Responses to requests with an `Idempotency-Key`, stored in the same commit as the object they created."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import asyncpg

from .database import AnyConnection
from .sql import QUERIES


class InProgress(Exception):
    """The same request is still running, at this server or another one."""


class KeyReused(Exception):
    """The key was used for a different request before."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """The first response, as JSON without secrets; `kid` is the master key from which its secrets are derived."""

    json: str
    kid: str
    is_repeat: bool


async def create_once(
    pool: asyncpg.Pool,
    tenant: str,
    key: str,
    fingerprint: bytes,
    kid: str,
    create: Callable[[AnyConnection], Awaitable[str]],
) -> StoredResponse:
    """Run `create` in a transaction, once per tenant and key; a repeat returns the first response.

    Nothing is stored if `create` raises. Raises InProgress, KeyReused, the exceptions of `create` and asyncpg's errors.
    """
    async with pool.acquire() as connection, connection.transaction():
        if not await connection.fetchval(QUERIES["try_idempotency_key"], tenant, key):
            raise InProgress
        row = await connection.fetchrow(QUERIES["idempotency_key"], tenant, key)
        if row is not None:
            if row["fingerprint"] != fingerprint:
                raise KeyReused
            return StoredResponse(row["answer"], row["kid"], is_repeat=True)
        json = await create(connection)
        await connection.execute(QUERIES["store_idempotency_key"], tenant, key, fingerprint, json, kid)
        return StoredResponse(json, kid, is_repeat=False)
