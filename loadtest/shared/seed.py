"""Fill a database with a shop and many wallets in a few statements, and derive the keys of their devices."""

import base64
from dataclasses import dataclass

import asyncpg

from pos_client import Credentials
from pos_server.core.credentials.device_keys import DeviceId, DeviceKind, Keyring
from pos_server.gateway.pin_hasher import PinHasher
from pos_server.ledger import directory
from pos_server.settings import Settings

KEYRING = Keyring({"load": bytes(range(32))}, current="load")
MASTER_KEYS = f"load:{base64.b64encode(KEYRING.keys['load']).decode()}"
CURRENCY = "EUR"
PIN = "2580"
_GENERATION = 1

_TERMINALS = """
insert into terminal (store_id, name, kid, generation)
select $1, 'Till ' || i, 'load', 1 from generate_series(1, $2::integer) i returning number
"""
_WALLETS = """
with made as (
    insert into account (kind, name, currency) select 'wallet', 'Customer ' || i, 'EUR' from generate_series(1, $1) i
    returning id, name
), wallets as (
    insert into wallet (account_id, name, currency, balance_minor) select id, name, 'EUR', $2 from made
    returning number, account_id
), devices as (
    insert into wallet_device (wallet_number, slot, kid, generation)
    select number, slot, 'load', 1 from wallets cross join generate_series(0, $5::integer - 1) as slot
), topped as materialized (
    select gen_random_uuid() as id, account_id, number from wallets where $2 > 0
), paid as (
    insert into payment (id, fingerprint, merchant_id, wallet_number, reference, amount_minor, currency, status,
        version, changed_at, approved_at, purpose)
    select id, 'seed', $4, number, 'seed-' || number, $2, 'EUR', 'approved', 1, now() - interval '1 day',
        now() - interval '1 day', 'top_up' from topped
), posted as (
    insert into transfer (kind, source_id, debit_account_id, credit_account_id, amount_minor, currency, wallet_number,
        merchant_id, created_at)
    select 'top_up', id, $3, account_id, $2, 'EUR', number, $4, now() - interval '1 day' from topped
)
select number from wallets
"""


@dataclass(frozen=True, slots=True)
class Device:
    """A device and its key."""

    device: DeviceId
    key: bytes


@dataclass(frozen=True, slots=True)
class Shop:
    """A merchant with its tills and customers."""

    merchant_id: int
    terminals: list[Device]
    wallets: list[Device]


async def seed_shop(
    connection: asyncpg.Connection, *, terminals: int, wallets: int, balance_minor: int, devices: int = 1
) -> Shop:
    """Create a merchant with one store, `terminals` tills and `wallets` wallets of `balance_minor` each.

    A wallet has `devices` devices; the result contains the first of each. `connection` needs all privileges. The server
    must run with MASTER_KEYS.
    """
    async with connection.transaction():
        merchant_id = await directory.create_merchant(connection, "Load & Sons", CURRENCY)
        store_id = await directory.create_store(connection, merchant_id, "Hall")
        house = await connection.fetchval(
            "select id from account where kind = 'house' and name = 'cash_in' and currency = $1", CURRENCY
        )
        terminal_rows = await connection.fetch(_TERMINALS, store_id, terminals)
        wallet_rows = await connection.fetch(_WALLETS, wallets, balance_minor, house, merchant_id, devices)
    return Shop(
        merchant_id,
        [device_of(DeviceKind.TERMINAL, row["number"]) for row in terminal_rows],
        [device_of(DeviceKind.WALLET, row["number"]) for row in wallet_rows],
    )


async def seed_pins(connection: asyncpg.Connection, wallet_numbers: list[int], settings: Settings) -> None:
    """Set the PIN of these wallets, hashed like a server with these settings does, in about 20 ms each."""
    hasher = PinHasher(settings.pin_hasher_limits(), KEYRING)
    try:
        for number in wallet_numbers:
            pin_hash = await hasher.hash(number, PIN)
            await connection.execute(
                "update wallet set pin_hash = $2, pin_kid = $3, pin_generation = 1 where number = $1",
                *(number, pin_hash.encoded, pin_hash.kid),
            )
    finally:
        hasher.close()


def device_of(kind: DeviceKind, number: int, slot: int = 0) -> Device:
    """Return a seeded terminal, or a device of a seeded wallet, with its key."""
    device = DeviceId(kind, number, slot)
    key = KEYRING.device_key(KEYRING.current, device, _GENERATION)
    if key is None:
        raise AssertionError("the keyring lacks its current key")
    return Device(device, key)


def credentials_of(kind: DeviceKind, number: int, url: str) -> Credentials:
    """Return the credentials of a seeded device, as after its activation."""
    device = device_of(kind, number)
    return Credentials(
        server=url,
        kind=kind,
        number=number,
        slot=device.device.slot,
        kid=KEYRING.current,
        device_key=device.key,
        currency=CURRENCY,
        name="under load",
    )
