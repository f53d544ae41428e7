"""The demo's town: one merchant, two stores, three terminals, ten wallets. Made once, topped up each time."""

import secrets
import time
from dataclasses import dataclass

import asyncpg
import uuid_utils.compat

from ..core.activation import ACTIVATION_BYTES, activation_code
from ..core.device_keys import DeviceId
from ..ledger import directory
from ..ledger.sql import QUERIES

CURRENCY = "EUR"
_MERCHANT = "Corner Canteen"
_TILLS = {"Main hall": ("Till 1", "Till 2"), "Garden kiosk": ("Till 3",)}
_CUSTOMERS = ("Ada", "Bo", "Chen", "Dina", "Emil", "Fay", "Goran", "Hana", "Ines")
POOR_CUSTOMER = "Jo"
_FULL_MINOR = 60_00
_POOR_MINOR = 3_00


@dataclass(frozen=True, slots=True)
class Terminal:
    number: int
    store: str
    name: str


@dataclass(frozen=True, slots=True)
class Customer:
    number: int
    name: str


@dataclass(frozen=True, slots=True)
class Town:
    terminals: list[Terminal]
    wallets: list[Customer]


async def build_town(connection: asyncpg.Connection) -> Town:
    """Find the town in this database or make it, and see to it that everybody has money."""
    merchant_id = await connection.fetchval(QUERIES["demo_merchant"], _MERCHANT)
    if merchant_id is None:
        async with connection.transaction():
            merchant_id = await directory.create_merchant(connection, _MERCHANT, CURRENCY)
            for store, tills in _TILLS.items():
                store_id = await directory.create_store(connection, merchant_id, store)
                for name in tills:
                    await directory.create_terminal(connection, store_id, name)
            for name in (*_CUSTOMERS, POOR_CUSTOMER):
                await directory.create_wallet(connection, name, CURRENCY)
    terminals = await connection.fetch(QUERIES["demo_terminals"], merchant_id)
    wallets = await connection.fetch(QUERIES["demo_wallets"])
    for row in wallets:
        missing_minor = (_POOR_MINOR if row["name"] == POOR_CUSTOMER else _FULL_MINOR) - row["balance_minor"]
        if missing_minor > 0:
            top_up_id = uuid_utils.compat.uuid7()
            now_ms = time.time_ns() // 1_000_000
            await directory.top_up(
                connection, top_up_id, merchant_id, row["number"], missing_minor, CURRENCY, now_ms=now_ms
            )
    return Town(
        [Terminal(row["number"], row["store"], row["name"]) for row in terminals],
        [Customer(row["number"], row["name"]) for row in wallets],
    )


async def new_activation(connection: asyncpg.Connection, device: DeviceId, ttl_s: float) -> str:
    """A one-time code that makes whoever enters it this device."""
    code = activation_code(secrets.token_bytes(ACTIVATION_BYTES))
    await directory.issue_activation(connection, device, code, ttl_s=ttl_s)
    return code
