"""Merchants, stores, terminals, wallets and their devices: creation, status, activation and authentication."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time
from uuid import UUID

import asyncpg
from msgspec.structs import astuple

from ..core.credentials.activation import activation_hash
from ..core.credentials.device_keys import DeviceId, DeviceKind
from ..core.payments.snapshot import HouseAccount, MerchantStatus, TerminalStatus, WalletStatus
from .database import AnyConnection
from .sql import QUERIES


@dataclass(frozen=True, slots=True)
class TerminalRecord:
    """A terminal's data for authentication. `kid` is None before its first activation. `shift_id` is the open shift."""

    kid: str | None
    generation: int
    merchant_id: int
    merchant_name: str
    store_name: str
    currency: str
    shift_id: UUID | None


@dataclass(frozen=True, slots=True)
class WalletDeviceRecord:
    """A wallet device's data for authentication. `kid` is None before its first activation and after its revocation."""

    kid: str | None
    generation: int
    currency: str


@dataclass(frozen=True, slots=True)
class ActivatedDevice:
    """A device activated with a valid code, and the generation of its new key."""

    device: DeviceId
    kid: str
    generation: int
    name: str
    currency: str


async def find_terminal(pool: asyncpg.Pool, number: int) -> TerminalRecord | None:
    """Return the terminal with this number, or None."""
    row = await pool.fetchrow(QUERIES["terminal_to_authenticate"], number)
    return None if row is None else TerminalRecord(**row)


async def find_wallet_device(pool: asyncpg.Pool, number: int, slot: int) -> WalletDeviceRecord | None:
    """Return the device in this slot of this wallet, or None."""
    row = await pool.fetchrow(QUERIES["wallet_device_to_authenticate"], number, slot)
    return None if row is None else WalletDeviceRecord(**row)


async def device_generations(pool: asyncpg.Pool, devices: Sequence[DeviceId]) -> list[int]:
    """Return the current key generation of each device, in the same order; 0 for a revoked or unknown device."""
    kinds, numbers = [device.kind for device in devices], [device.number for device in devices]
    rows = await pool.fetch(QUERIES["device_generations"], kinds, numbers, [device.slot for device in devices])
    return [row["generation"] for row in rows]


async def set_wallet_status(connection: AnyConnection, number: int, status: WalletStatus) -> bool:
    """Freeze, reactivate or close a wallet, effective from the next payment. Returns False for an unknown number."""
    return await connection.fetchval(QUERIES["set_wallet_status"], number, status) is not None


async def set_terminal_status(connection: AnyConnection, number: int, status: TerminalStatus) -> bool:
    """Disable or enable a terminal. Returns False for an unknown number."""
    return await connection.fetchval(QUERIES["set_terminal_status"], number, status) is not None


async def set_merchant_status(connection: AnyConnection, merchant_id: int, status: MerchantStatus) -> bool:
    """Activate or deactivate a merchant. Returns False for an unknown id."""
    return await connection.fetchval(QUERIES["set_merchant_status"], merchant_id, status) is not None


async def set_terms(
    connection: AnyConnection,
    merchant_id: int,
    *,
    fee_bps: int | None,
    fee_fixed_minor: int | None,
    time_zone: str | None,
    cut_off: time | None,
) -> asyncpg.Record | None:
    """Change a merchant's fees (from the next sale) and business day (from the next settlement); None: unchanged.

    Returns the merchant as `find_merchant` does, or None. Raises asyncpg's CheckViolationError.
    """
    return await connection.fetchrow(QUERIES["set_terms"], merchant_id, fee_bps, fee_fixed_minor, time_zone, cut_off)


async def reset_pin(connection: AnyConnection, wallet_number: int) -> bool:
    """Remove a forgotten or locked PIN, so that the customer can set a new one. Returns False for an unknown wallet."""
    return await connection.fetchval(QUERIES["reset_pin"], wallet_number) is not None


async def create_merchant(connection: AnyConnection, name: str, currency: str) -> int:
    """Create a merchant and its account; return the merchant's id."""
    async with connection.transaction():
        await connection.execute(QUERIES["create_house_accounts"], list(HouseAccount), currency)
        account_id = await connection.fetchval(QUERIES["create_account"], "merchant", name, currency)
        return int(await connection.fetchval(QUERIES["create_merchant"], account_id, name, currency))


async def find_merchant(connection: AnyConnection | asyncpg.Pool, merchant_id: int) -> asyncpg.Record | None:
    """Return a merchant and its terms, or None."""
    return await connection.fetchrow(QUERIES["merchant"], merchant_id)


async def list_merchants(pool: asyncpg.Pool, after_id: int, limit: int) -> list[asyncpg.Record]:
    """Return the merchants with an id above `after_id`, oldest first, as `find_merchant` does."""
    return await pool.fetch(QUERIES["list_merchants"], after_id, limit)


async def create_store(connection: AnyConnection, merchant_id: int, name: str) -> int:
    """Create a store of a merchant; return its id."""
    return int(await connection.fetchval(QUERIES["create_store"], merchant_id, name))


async def create_terminal(connection: AnyConnection, store_id: int, name: str) -> int:
    """Create a terminal in a store, not yet activated; return its number."""
    return int(await connection.fetchval(QUERIES["create_terminal"], store_id, name))


async def create_wallet(connection: AnyConnection, name: str, currency: str) -> int:
    """Create an empty wallet and its account; return the wallet's number."""
    async with connection.transaction():
        await connection.execute(QUERIES["create_house_accounts"], list(HouseAccount), currency)
        account_id = await connection.fetchval(QUERIES["create_account"], "wallet", name, currency)
        return int(await connection.fetchval(QUERIES["create_wallet"], account_id, name, currency))


async def issue_activation(connection: AnyConnection, device: DeviceId, code: str, *, ttl_s: float) -> datetime:
    """Store an activation code that can be used once for `device` within `ttl_s`; return its expiry, an aware time.

    Creates the wallet's slot if it does not exist.
    """
    async with connection.transaction():
        if device.kind is DeviceKind.WALLET:
            await connection.execute(QUERIES["create_wallet_device"], device.number, device.slot)
        expires_at: datetime = await connection.fetchval(
            QUERIES["create_activation"], activation_hash(code), device.kind, device.number, device.slot, ttl_s
        )
        return expires_at


async def use_activation(connection: AnyConnection, code: str, request_id: UUID, kid: str) -> ActivatedDevice | None:
    """Activate a device with a code, which gives it a new key; None if the code is unknown, expired or used.

    A repeat with the same `request_id` returns the same result until the code expires or the device is activated again,
    so that a lost response can be fetched again.
    """
    code_hash = activation_hash(code)
    async with connection.transaction():
        row = await connection.fetchrow(QUERIES["lock_activation"], code_hash)
        if row is None or row["request_id"] not in (None, request_id):
            return None
        device = DeviceId(DeviceKind(row["kind"]), row["number"], row["slot"])
        is_terminal = device.kind is DeviceKind.TERMINAL
        if row["request_id"] is None:
            if is_terminal:
                generation = await connection.fetchval(QUERIES["rekey_terminal"], device.number, kid)
            else:
                # A payment locks the wallet before the device too.
                await connection.execute(QUERIES["lock_wallet"], device.number)
                generation = await connection.fetchval(QUERIES["rekey_wallet_device"], device.number, device.slot, kid)
            await connection.execute(QUERIES["use_activation"], code_hash, request_id, kid, generation)
        else:
            kid, generation = row["kid"], row["generation"]
            if generation != await connection.fetchval(QUERIES["device_generation"], *astuple(device)):
                return None
        label = await connection.fetchrow(QUERIES["terminal_label" if is_terminal else "wallet_label"], device.number)
        if label is None:
            raise AssertionError(f"activation code for {device}, which does not exist")
        return ActivatedDevice(device, kid, generation, label["name"], label["currency"])
