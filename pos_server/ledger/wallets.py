"""Wallets as their issuer sees and changes them: the rows behind the REST API's part for the role `issuer`."""

from uuid import UUID

import asyncpg
from msgspec.structs import astuple

from ..core.credentials.device_keys import SLOT_MAX, DeviceKind
from ..core.errors import ErrorCode
from ..core.payments.payment import Payment, Purpose
from ..core.payments.snapshot import OwnLimits
from .database import AnyConnection
from .rows import payment_of
from .sql import QUERIES


async def find_wallet(connection: AnyConnection | asyncpg.Pool, number: int) -> asyncpg.Record | None:
    """A wallet by the fields of core.rest.issuer.Wallet, or None."""
    return await connection.fetchrow(QUERIES["wallet_shown"], number)


async def list_wallets(pool: asyncpg.Pool, after_number: int, limit: int) -> list[asyncpg.Record]:
    """Wallets with a number above `after_number`, as `find_wallet` gives them, oldest first."""
    return await pool.fetch(QUERIES["list_wallets"], after_number, limit)


async def find_own_limits(
    connection: AnyConnection | asyncpg.Pool, number: int, *, to_change: bool = False
) -> OwnLimits | None:
    """A wallet's own limits; None when there is no such wallet. `to_change` keeps others from changing it."""
    row = await connection.fetchrow(QUERIES["own_limits_to_change" if to_change else "own_limits"], number)
    return None if row is None else OwnLimits(**row)


async def set_own_limits(connection: AnyConnection, number: int, limits: OwnLimits) -> None:
    """Give a wallet these limits, for the next payment already."""
    await connection.execute(QUERIES["set_own_limits"], number, *astuple(limits))


async def list_devices(pool: asyncpg.Pool, number: int) -> list[asyncpg.Record]:
    """A wallet's devices by the fields of core.rest.issuer.WalletDevice, in the order of their slots."""
    return await pool.fetch(QUERIES["wallet_devices"], number)


async def lock_wallet(connection: AnyConnection, number: int) -> bool:
    """Keep others from changing the wallet until the transaction ends; False when there is no such wallet."""
    return await connection.fetchval(QUERIES["wallet_to_change"], number) is not None


async def free_slot(connection: AnyConnection, number: int) -> int | None:
    """The first slot without a device and without an open activation code; None when there is none."""
    slot: int | None = await connection.fetchval(QUERIES["free_slot"], number, SLOT_MAX)
    return slot


async def revoke_device(connection: AnyConnection, number: int, slot: int) -> int | None:
    """End a device's key and its open activation codes; returns its generation then, None when there is none.

    In a transaction. The codes first: whoever is being activated with one is waited for.
    """
    await connection.execute(QUERIES["end_activations"], DeviceKind.WALLET, number, slot)
    await lock_wallet(connection, number)
    generation: int | None = await connection.fetchval(QUERIES["revoke_wallet_device"], number, slot)
    return generation


async def find_cash(pool: asyncpg.Pool, payment_id: UUID, purpose: Purpose) -> Payment | ErrorCode:
    """The payment of this id and purpose. Else why not: PAYMENT_UNKNOWN, or PAYMENT_ARCHIVED of whatever purpose."""
    row = await pool.fetchrow(QUERIES["payment_of_purpose"], payment_id, purpose)
    if row is not None:
        return payment_of(row)
    # After the ledger: what is moved meanwhile is found in the one or in the other.
    archived = await pool.fetchval(QUERIES["is_archived"], payment_id)
    return ErrorCode.PAYMENT_ARCHIVED if archived else ErrorCode.PAYMENT_UNKNOWN


async def list_transfers(pool: asyncpg.Pool, number: int, before_id: int | None, limit: int) -> list[asyncpg.Record]:
    """A wallet's transfers below an id, newest first; what is archived comes last, as one with the id 0."""
    return await pool.fetch(QUERIES["wallet_transfers"], number, before_id, limit)
