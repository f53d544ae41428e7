"""Loads what decisions need and stores what they decided: one statement each, one commit a batch."""

from collections.abc import Sequence
from operator import itemgetter

import asyncpg
from msgspec.structs import replace

from ..core.payments.operations import CreateRefund, Operation
from ..core.payments.payment import Status
from ..core.payments.snapshot import Changeset, HouseAccount, OpenPayment, Snapshot, TerminalStatus
from .batch_rows import key_of, rows_of
from .database import AnyConnection
from .rows import acceptor_of, device_of, payment_of, plain_uuid, refund_of, wallet_of
from .sql import QUERIES

# What says that another server was faster: load again, decide again.
LEDGER_CONFLICT = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.UniqueViolationError,
)


class HouseAccounts:
    """The ids of the house's accounts. They never change, so they are read when a currency is met first."""

    def __init__(self) -> None:
        self.ids: dict[tuple[HouseAccount, str], int] = {}
        self.currencies: set[str] = set()

    async def read(self, connection: AnyConnection) -> None:
        """Know the accounts of every currency that there is now. Raises asyncpg's errors."""
        for row in await connection.fetch(QUERIES["house_accounts"]):
            self.ids[HouseAccount(row["name"]), row["currency"]] = row["id"]
            self.currencies.add(row["currency"])


# What tells which of a row's parts are there.
_found = itemgetter(
    *("position", "till_merchant_id", "till_currency", "till_number", "other_till", "wallet_number", "kid", "payment")
)
_elsewhere = itemgetter("archived_payment_id", "archived_order_id", "open_payment_id")


async def load_snapshot(
    connection: AnyConnection, operations: Sequence[Operation], house: HouseAccounts | None = None
) -> Snapshot:
    """The committed rows that decisions about `operations` depend on. Raises asyncpg's errors.

    `house` keeps the house's accounts from batch to batch: they are made with a currency's first merchant or wallet.
    """
    house = HouseAccounts() if house is None else house
    snapshot = Snapshot(house=house.ids)
    refund_ids = [operation.refund_id for operation in operations if isinstance(operation, CreateRefund)]
    if refund_ids:
        # Before the payments: a refund that is found is one that its payment knows of.
        for row in await connection.fetch(QUERIES["load_refunds"], refund_ids):
            if row["id"] is not None:
                refund = refund_of(row)
                snapshot.refunds[refund.refund_id] = refund
            if row["archived_id"] is not None:
                snapshot.archived_refunds.add(plain_uuid(row["archived_id"]))
    keys = [key_of(operation) for operation in operations]
    for row in await connection.fetch(QUERIES["load_snapshot"], keys):
        position, merchant_id, currency, till_number, other_till, wallet_number, device_kid, stored = _found(row)
        key = keys[position - 1]
        if merchant_id is not None:
            if currency not in house.currencies:
                await house.read(connection)
            acceptor = acceptor_of(row)
            if key.terminal_number is None or (stored is not None and stored["terminal_number"] is None):
                # What a back office does, or did.
                snapshot.back_offices[merchant_id] = replace(
                    acceptor, terminal_status=TerminalStatus.ACTIVE, store_name="", shift_id=None
                )
            if till_number is not None:
                snapshot.terminals[till_number] = acceptor
            if other_till is not None:
                snapshot.terminals[other_till["number"]] = replace(
                    acceptor,
                    terminal_status=TerminalStatus(other_till["status"]),
                    store_name=other_till["store_name"],
                    shift_id=other_till["shift_id"] and plain_uuid(other_till["shift_id"]),
                )
        if wallet_number is not None:
            snapshot.wallets[wallet_number] = wallet_of(row)
        if device_kid is not None:
            device = device_of(row)
            snapshot.devices[device.wallet_number, device.slot] = device
        if stored is not None:
            payment = payment_of(stored)
            snapshot.payments[payment.payment_id] = payment
        archived_payment_id, archived_order_id, occupant_id = _elsewhere(row)
        if archived_payment_id is not None:
            snapshot.archived.add(plain_uuid(archived_payment_id))
        if archived_order_id is not None:
            snapshot.archived.add(plain_uuid(archived_order_id))
        if occupant_id is not None and key.merchant_id is not None and key.reference is not None:
            occupant = OpenPayment(plain_uuid(occupant_id), Status(row["open_payment_status"]))
            snapshot.open_payments[key.merchant_id, key.reference] = occupant
    return snapshot


async def warm_up(connection: AnyConnection) -> None:
    """Have the statements of a batch planned, so that the first operation waits for none. Raises asyncpg's errors."""
    await load_snapshot(connection, [])
    rows = rows_of(Changeset(), 0)
    await connection.fetchval(QUERIES["apply_new_payments"], *rows[:-1])
    await connection.fetchval(QUERIES["apply_changes"], *rows)


async def apply_changes(connection: AnyConnection, changes: Changeset, now_ms: int) -> None:
    """Write a batch whole, or not at all. Raises one of LEDGER_CONFLICT when rows have changed since the load."""
    rows = rows_of(changes, now_ms)
    if changes.refunds or any(changes.payment_versions.values()):
        await connection.fetchval(QUERIES["apply_changes"], *rows)
    else:
        # Most batches: a fifth less work for a lone payment.
        await connection.fetchval(QUERIES["apply_new_payments"], *rows[:-1])
