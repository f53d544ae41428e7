"""Load the snapshot of a batch and store its changeset: one statement each, one commit per batch."""

from collections.abc import Sequence
from operator import itemgetter

from msgspec.structs import replace

from ..core.payments.operations import CreateRefund, Operation
from ..core.payments.payment import Status
from ..core.payments.snapshot import Changeset, HouseAccount, OpenPayment, Snapshot, TerminalStatus
from .batch_rows import changeset_rows, operation_key
from .database import AnyConnection
from .durability import durable_commits
from .rows import acceptor_of, device_of, payment_of, plain_uuid, refund_of, wallet_of
from .sql import QUERIES


class HouseAccounts:
    """Ids of the house's accounts. They never change, so they are read once, when a currency first occurs."""

    def __init__(self) -> None:
        self.ids: dict[tuple[HouseAccount, str], int] = {}
        self.currencies: set[str] = set()

    async def read(self, connection: AnyConnection) -> None:
        """Read the accounts of all currencies. Raises asyncpg's errors."""
        for row in await connection.fetch(QUERIES["house_accounts"]):
            self.ids[HouseAccount(row["name"]), row["currency"]] = row["id"]
            self.currencies.add(row["currency"])


# Columns that tell which parts of a row are present.
_presence_columns = itemgetter(
    *("position", "till_merchant_id", "till_currency", "till_number", "other_till", "wallet_number", "kid", "payment")
)
_occupant_columns = itemgetter("archived_payment_id", "archived_order_id", "open_payment_id")


async def load_snapshot(
    connection: AnyConnection, operations: Sequence[Operation], house: HouseAccounts | None = None
) -> Snapshot:
    """Load the committed rows that decisions about `operations` depend on. Raises asyncpg's errors.

    `house` caches the house's accounts across batches.
    """
    house = HouseAccounts() if house is None else house
    snapshot = Snapshot(house=house.ids)
    refund_keys = [(each.merchant_id, each.refund_id) for each in operations if isinstance(each, CreateRefund)]
    if refund_keys:
        # Before the payments, so that the loaded payment includes every loaded refund.
        for row in await connection.fetch(QUERIES["load_refunds"], *zip(*refund_keys, strict=True)):
            if row["id"] is not None:
                refund = refund_of(row)
                snapshot.refunds[refund.key] = refund
            if row["archived"]:
                snapshot.archived_refunds.add((row["searched_merchant_id"], plain_uuid(row["searched_id"])))
    keys = [operation_key(operation) for operation in operations]
    for row in await connection.fetch(QUERIES["load_snapshot"], keys):
        position, merchant_id, currency, till_number, other_till, wallet_number, kid, stored = _presence_columns(row)
        key = keys[position - 1]
        if merchant_id is not None:
            if currency not in house.currencies:
                await house.read(connection)
            acceptor = acceptor_of(row)
            if key.terminal_number is None or (stored is not None and stored["terminal_number"] is None):
                # The operation or the stored payment comes from a back office.
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
        if kid is not None:
            device = device_of(row)
            snapshot.devices[device.wallet_number, device.slot] = device
        if stored is not None:
            payment = payment_of(stored)
            snapshot.payments[payment.key] = payment
        archived_payment_id, archived_order_id, occupant_id = _occupant_columns(row)
        if key.merchant_id is None:
            continue
        if archived_payment_id is not None:
            snapshot.archived.add((key.merchant_id, plain_uuid(archived_payment_id)))
        if archived_order_id is not None:
            snapshot.archived.add((key.merchant_id, plain_uuid(archived_order_id)))
        if occupant_id is not None and key.reference is not None:
            occupant = OpenPayment(plain_uuid(occupant_id), Status(row["open_payment_status"]))
            snapshot.open_payments[key.merchant_id, key.reference] = occupant
    return snapshot


async def warm_up(connection: AnyConnection) -> None:
    """Plan the statements of a batch in advance, so that no operation waits for it. Raises asyncpg's errors."""
    await load_snapshot(connection, [])
    rows = changeset_rows(Changeset(), 0)
    await connection.fetchval(QUERIES["apply_new_payments"], *rows[:-1])
    await connection.fetchval(QUERIES["apply_changes"], *rows)


async def apply_changes(connection: AnyConnection, changes: Changeset, now_ms: int) -> None:
    """Store all changes of a batch or none. Raises NotDurable and asyncpg's errors.

    If rows have changed since the load, `failures.classify` tells to decide again.
    """
    rows = changeset_rows(changes, now_ms)
    with durable_commits(connection):
        if changes.refunds or any(changes.payment_versions.values()):
            await connection.fetchval(QUERIES["apply_changes"], *rows)
        else:
            # The usual case. This statement saves a fifth of the work for a lone payment.
            await connection.fetchval(QUERIES["apply_new_payments"], *rows[:-1])
