"""Wallets, their limits, devices and transfers, for the REST endpoints of the role `issuer`."""

from uuid import UUID

import asyncpg
from msgspec.structs import astuple

from ..core.credentials.device_keys import SLOT_MAX, DeviceKind
from ..core.errors import ErrorCode
from ..core.payments.payment import Payment, Purpose
from ..core.payments.snapshot import OwnLimits
from .database import AnyConnection
from .durability import fetch_durable
from .rows import payment_of
from .sql import QUERIES


async def find_wallet(connection: AnyConnection | asyncpg.Pool, number: int) -> asyncpg.Record | None:
    """Return a wallet with the fields of core.rest.issuer.Wallet, or None."""
    return await connection.fetchrow(QUERIES["wallet_resource"], number)


async def list_wallets(pool: asyncpg.Pool, after_number: int, limit: int) -> list[asyncpg.Record]:
    """Return the wallets with a number above `after_number`, oldest first, as `find_wallet` does."""
    return await pool.fetch(QUERIES["list_wallets"], after_number, limit)


async def find_own_limits(
    connection: AnyConnection | asyncpg.Pool, number: int, *, for_update: bool = False
) -> OwnLimits | None:
    """Return a wallet's own limits; None for an unknown wallet. `for_update` locks the wallet."""
    row = await connection.fetchrow(QUERIES["own_limits_for_update" if for_update else "own_limits"], number)
    return None if row is None else OwnLimits(**row)


async def set_own_limits(connection: AnyConnection, number: int, limits: OwnLimits) -> None:
    """Replace a wallet's own limits, effective from the next payment."""
    await connection.execute(QUERIES["set_own_limits"], number, *astuple(limits))


async def list_devices(pool: asyncpg.Pool, number: int) -> list[asyncpg.Record]:
    """Return a wallet's devices with the fields of core.rest.issuer.WalletDevice, by slot."""
    return await pool.fetch(QUERIES["wallet_devices"], number)


async def lock_wallet(connection: AnyConnection, number: int) -> bool:
    """Lock the wallet until the transaction ends. Returns False for an unknown wallet."""
    return await connection.fetchval(QUERIES["lock_wallet"], number) is not None


async def free_slot(connection: AnyConnection, number: int) -> int | None:
    """Return the first slot without a device and without an open activation code, or None."""
    slot: int | None = await connection.fetchval(QUERIES["free_slot"], number, SLOT_MAX)
    return slot


async def revoke_device(connection: AnyConnection, number: int, slot: int) -> int | None:
    """Revoke a device's key and its open activation codes; return its new generation, or None for an unknown device.

    Needs a transaction. The codes are revoked first, which waits for an activation in progress.
    """
    await connection.execute(QUERIES["end_activations"], DeviceKind.WALLET, number, slot)
    await lock_wallet(connection, number)
    generation: int | None = await connection.fetchval(QUERIES["revoke_wallet_device"], number, slot)
    return generation


async def merchants_of_cash(pool: asyncpg.Pool, payment_id: UUID, purpose: Purpose) -> list[int]:
    """Return the merchants with a payment of this id and purpose, or an archived one of any purpose; at most two."""
    rows = await pool.fetch(QUERIES["merchants_of_cash"], payment_id, purpose)
    return [row["merchant_id"] for row in rows]


async def is_paid_elsewhere(pool: asyncpg.Pool, payment_id: UUID, merchant_id: int) -> bool:
    """Return whether the API has created a payment with this id for another merchant."""
    return bool(await pool.fetchval(QUERIES["is_paid_elsewhere"], payment_id, merchant_id))


async def find_cash(pool: asyncpg.Pool, payment_id: UUID, merchant_id: int, purpose: Purpose) -> Payment | ErrorCode:
    """Return a merchant's payment by id and purpose, or PAYMENT_UNKNOWN, or PAYMENT_ARCHIVED (for any purpose)."""
    rows = await fetch_durable(pool, QUERIES["payment_of_purpose"], payment_id, merchant_id, purpose)
    if rows:
        return payment_of(rows[0])
    # The archive is read after the ledger, so that a payment moved in between is found.
    archived = await pool.fetchval(QUERIES["is_archived"], payment_id, merchant_id)
    return ErrorCode.PAYMENT_ARCHIVED if archived else ErrorCode.PAYMENT_UNKNOWN


async def list_transfers(pool: asyncpg.Pool, number: int, before_id: int | None, limit: int) -> list[asyncpg.Record]:
    """Return a wallet's transfers below an id, newest first; archived transfers come last, as one with the id 0."""
    return await pool.fetch(QUERIES["wallet_transfers"], number, before_id, limit)
