"""What a request with an `Idempotency-Key` made, kept in the same commit."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import asyncpg

from .database import AnyConnection
from .sql import QUERIES


class InProgress(Exception):
    """The same request is being worked on, here or at another server."""


class KeyReused(Exception):
    """The key was sent with another request before."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The first answer, as JSON without secrets; `kid` names the master key that its secrets are made with."""

    answer: str
    kid: str
    is_repeat: bool


async def once(
    pool: asyncpg.Pool,
    tenant: str,
    key: str,
    fingerprint: bytes,
    kid: str,
    make: Callable[[AnyConnection], Awaitable[str]],
) -> Kept:
    """Carry `make` out in a transaction, once for each key of a tenant; a repeat gets the first answer.

    Nothing is kept when `make` raises. Raises InProgress, KeyReused, what `make` raises, and asyncpg's errors.
    """
    async with pool.acquire() as connection, connection.transaction():
        if not await connection.fetchval(QUERIES["try_idempotency_key"], tenant, key):
            raise InProgress
        kept = await connection.fetchrow(QUERIES["idempotency_key"], tenant, key)
        if kept is not None:
            if kept["fingerprint"] != fingerprint:
                raise KeyReused
            return Kept(kept["answer"], kept["kid"], is_repeat=True)
        answer = await make(connection)
        await connection.execute(QUERIES["keep_idempotency_key"], tenant, key, fingerprint, answer, kid)
        return Kept(answer, kid, is_repeat=False)
