"""Stored PINs. Failed attempts are counted on the wallet row, whose version also guards payments."""

from dataclasses import dataclass
from uuid import UUID

import asyncpg

from ..core.credentials.pins import PinHash
from .sql import QUERIES


@dataclass(frozen=True, slots=True)
class StoredPin:
    """A wallet's stored PIN; `hash` is None without a PIN. `generation` counts its changes.

    `request_id` is the id of the last processed `pin.set`; `request_done` tells whether it changed the PIN.
    """

    hash: PinHash | None
    generation: int
    locked_until_ms: int
    request_id: UUID | None
    request_done: bool


async def find_pin(pool: asyncpg.Pool, wallet_number: int) -> StoredPin:
    """Return the PIN of an existing wallet."""
    (row,) = await pool.fetch(QUERIES["wallet_pin"], wallet_number)
    return StoredPin(
        hash=None if row["pin_hash"] is None else PinHash(row["pin_kid"], row["pin_hash"]),
        generation=row["pin_generation"],
        locked_until_ms=row["pin_locked_until_ms"],
        request_id=row["pin_request_id"],
        request_done=row["pin_request_done"],
    )


async def is_pin_awaited(
    pool: asyncpg.Pool, wallet_number: int, merchant_id: int, payment_id: UUID, version: int
) -> bool:
    """Return whether this version of a merchant's payment waits for this wallet's PIN."""
    return bool(await pool.fetchval(QUERIES["is_pin_awaited"], wallet_number, merchant_id, payment_id, version))


async def set_pin(pool: asyncpg.Pool, wallet_number: int, generation: int, new: PinHash, request_id: UUID) -> bool:
    """Store a new PIN. Returns False if the PIN's generation is no longer `generation`."""
    new_generation = await pool.fetchval(
        QUERIES["set_pin"], wallet_number, generation, new.encoded, new.kid, request_id
    )
    return new_generation is not None


async def count_wrong_pin(
    pool: asyncpg.Pool, wallet_number: int, generation: int, failures_max: int, lock_until_ms: int, request_id: UUID
) -> None:
    """Count a wrong old PIN. The last allowed failure locks the PIN until `lock_until_ms`."""
    await pool.execute(QUERIES["count_wrong_pin"], wallet_number, generation, failures_max, lock_until_ms, request_id)
