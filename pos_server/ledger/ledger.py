"""Loads what decisions need and stores what they decided: one statement each, one commit a batch."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple
from uuid import UUID

import asyncpg

from ..core import payment_code
from ..core.book import Book, Changes, HouseAccount, OpenPayment, TerminalStatus
from ..core.operations import Cancel, Confirm, CreateRefund, Expire, MoveCash, Operation, Reject, Scan
from ..core.payments import Status
from .database import AnyConnection
from .rows import device_of, payment_of, plain_uuid, refund_of, till_of, wallet_of
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


async def load_book(
    connection: AnyConnection, operations: Sequence[Operation], house: HouseAccounts | None = None
) -> Book:
    """The committed rows that decisions about `operations` depend on. Raises asyncpg's errors.

    `house` keeps the house's accounts from batch to batch: they are made with a currency's first merchant or wallet.
    """
    house = HouseAccounts() if house is None else house
    book = Book(house=house.ids)
    refund_ids = [operation.refund_id for operation in operations if isinstance(operation, CreateRefund)]
    if refund_ids:
        # Before the payments: a refund that is found is one that its payment knows of.
        for row in await connection.fetch(QUERIES["load_refunds"], refund_ids):
            if row["id"] is not None:
                refund = refund_of(row)
                book.refunds[refund.refund_id] = refund
            if row["archived_id"] is not None:
                book.archived_refunds.add(plain_uuid(row["archived_id"]))
    wanted = [_wanted(operation) for operation in operations]
    rows = await connection.fetch(
        QUERIES["load_book"], *(list(column) for column in zip(*wanted, strict=True)) if wanted else [[]] * 6
    )
    for want, row in zip(wanted, rows, strict=True):
        if row["till_merchant_id"] is not None:
            till = till_of(row)
            if want.terminal_number is None or (row["id"] is not None and row["terminal_number"] is None):
                # What a back office does, or did.
                office = replace(till, terminal_status=TerminalStatus.ACTIVE, store_name="", shift_id=None)
                book.offices[row["till_merchant_id"]] = office
            if row["till_currency"] not in house.currencies:
                await house.read(connection)
            if row["till_number"] is not None:
                book.tills[row["till_number"]] = till
            if row["other_till_number"] is not None:
                book.tills[row["other_till_number"]] = replace(
                    till,
                    terminal_status=TerminalStatus(row["other_terminal_status"]),
                    store_name=row["other_store_name"],
                    shift_id=row["other_terminal_shift_id"] and plain_uuid(row["other_terminal_shift_id"]),
                )
        if row["wallet_number"] is not None:
            book.wallets[row["wallet_number"]] = wallet_of(row)
        if row["slot"] is not None and row["kid"] is not None:
            device = device_of(row)
            book.devices[device.wallet_number, device.slot] = device
        if row["id"] is not None:
            payment = payment_of(row)
            book.payments[payment.payment_id] = payment
        for archived in (row["archived_payment_id"], row["archived_order_id"]):
            if archived is not None:
                book.archived.add(plain_uuid(archived))
        if row["open_payment_id"] is not None and want.merchant_id is not None and want.reference is not None:
            occupant = OpenPayment(plain_uuid(row["open_payment_id"]), Status(row["open_payment_status"]))
            book.open_payments[want.merchant_id, want.reference] = occupant
    return book


class _Wanted(NamedTuple):
    """Which rows an operation needs: a row of load_book's arguments."""

    payment_id: UUID | None = None
    terminal_number: int | None = None
    merchant_id: int | None = None
    reference: str | None = None
    wallet_number: int | None = None
    slot: int | None = None


def _wanted(operation: Operation) -> _Wanted:
    match operation:
        case Scan():
            code = payment_code.parse(operation.code)
            return _Wanted(
                operation.payment_id,
                operation.terminal_number,
                operation.merchant_id,
                operation.reference,
                code.wallet_number if code else None,
                code.slot if code else None,
            )
        case Cancel():
            return _Wanted(operation.payment_id, operation.terminal_number, operation.merchant_id, operation.reference)
        case MoveCash():
            return _Wanted(
                operation.payment_id, None, operation.merchant_id, operation.reference, operation.wallet_number
            )
        case CreateRefund():
            return _Wanted(operation.payment_id, operation.terminal_number)
        case Confirm() | Reject() | Expire():
            return _Wanted(operation.payment_id)


async def apply_changes(connection: AnyConnection, changes: Changes, now_ms: int) -> None:
    """Write a batch whole, or not at all. Raises one of LEDGER_CONFLICT when rows have changed since the load."""
    wallets = sorted(changes.wallets.values(), key=lambda wallet: wallet.number)
    devices = list(changes.devices.values())
    payments = list(changes.payments.values())
    refunds = changes.refunds
    transfers = changes.transfers
    await connection.fetchval(
        QUERIES["apply_changes"],
        [wallet.number for wallet in wallets],
        [changes.wallet_versions[wallet.number] for wallet in wallets],
        [wallet.version for wallet in wallets],
        [wallet.balance_minor for wallet in wallets],
        [wallet.pin_failures for wallet in wallets],
        [wallet.pin_locked_until_ms for wallet in wallets],
        [wallet.day_start_ms for wallet in wallets],
        [wallet.day_spent_minor for wallet in wallets],
        [wallet.day_pin_free_minor for wallet in wallets],
        [wallet.day_pin_free_count for wallet in wallets],
        [device.wallet_number for device in devices],
        [device.slot for device in devices],
        [device.spent_mark for device in devices],
        [payment.payment_id for payment in payments],
        [payment.fingerprint for payment in payments],
        [payment.terminal_number for payment in payments],
        [payment.merchant_id for payment in payments],
        [payment.wallet_number for payment in payments],
        [payment.reference for payment in payments],
        [payment.amount_minor for payment in payments],
        [payment.currency for payment in payments],
        [payment.status for payment in payments],
        [payment.decline_code for payment in payments],
        [payment.paid_by for payment in payments],
        [changes.payment_versions[payment.payment_id] for payment in payments],
        [payment.version for payment in payments],
        [payment.approved_at_ms for payment in payments],
        [payment.expires_at_ms for payment in payments],
        [payment.pin_failures for payment in payments],
        [payment.refunded_minor for payment in payments],
        [payment.refunds for payment in payments],
        now_ms,
        [refund.refund_id for refund in refunds],
        [refund.payment_id for refund in refunds],
        [refund.merchant_id for refund in refunds],
        [refund.terminal_number for refund in refunds],
        [refund.wallet_number for refund in refunds],
        [refund.amount_minor for refund in refunds],
        [refund.currency for refund in refunds],
        [transfer.kind for transfer in transfers],
        [transfer.source_id for transfer in transfers],
        [transfer.debit_account_id for transfer in transfers],
        [transfer.credit_account_id for transfer in transfers],
        [transfer.amount_minor for transfer in transfers],
        [transfer.currency for transfer in transfers],
        [transfer.wallet_number for transfer in transfers],
        [payment.purpose for payment in payments],
        [payment.fee_minor for payment in payments],
        [payment.shift_id for payment in payments],
        [payment.canceled_shift_id for payment in payments],
        [refund.shift_id for refund in refunds],
        list(changes.shifts),
        list(changes.shifts.values()),
    )
