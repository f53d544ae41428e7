"""Loads what decisions need and stores what they decided: one statement each, one commit a batch."""

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from ..core import payment_code
from ..core.payments import (
    Book,
    Changes,
    DeclineCode,
    DeviceStatus,
    MerchantStatus,
    Payment,
    Scan,
    Status,
    TerminalStatus,
    Till,
    Wallet,
    WalletDevice,
    WalletStatus,
)
from .sql import QUERIES

# What says that another server was faster: load again, decide again.
LEDGER_CONFLICT = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.UniqueViolationError,
)


async def load_book(connection: asyncpg.Connection, scans: Sequence[Scan]) -> Book:
    """The committed rows that a decision about `scans` depends on. Raises asyncpg's errors."""
    codes = [payment_code.parse(scan.code) for scan in scans]
    rows = await connection.fetch(
        QUERIES["load_book"],
        [scan.payment_id for scan in scans],
        [scan.terminal_number for scan in scans],
        [scan.merchant_id for scan in scans],
        [scan.reference for scan in scans],
        [code.wallet_number if code else None for code in codes],
        [code.slot if code else None for code in codes],
    )
    book = Book()
    for scan, row in zip(scans, rows, strict=True):
        book.tills[scan.terminal_number] = Till(
            terminal_status=TerminalStatus(row["terminal_status"]),
            merchant_status=MerchantStatus(row["merchant_status"]),
            merchant_account_id=row["merchant_account_id"],
            merchant_name=row["merchant_name"],
            store_name=row["store_name"],
        )
        if row["wallet_number"] is not None:
            book.wallets[row["wallet_number"]] = Wallet(
                number=row["wallet_number"],
                account_id=row["account_id"],
                currency=row["wallet_currency"],
                balance_minor=row["balance_minor"],
                status=WalletStatus(row["wallet_status"]),
                version=row["wallet_version"],
            )
        if row["slot"] is not None and row["kid"] is not None:
            device = _device(row)
            book.devices[device.wallet_number, device.slot] = device
        if row["id"] is not None:
            payment = _payment(row)
            book.payments[payment.payment_id] = payment
        if row["open_payment_id"] is not None:
            book.open_payments[scan.merchant_id, scan.reference] = _uuid(row["open_payment_id"])
    return book


async def apply_changes(connection: asyncpg.Connection, changes: Changes, now_ms: int) -> None:
    """Write a batch whole, or not at all. Raises one of LEDGER_CONFLICT when rows have changed since the load."""
    wallets = sorted(changes.wallets.values(), key=lambda wallet: wallet.number)
    devices = list(changes.devices.values())
    payments = changes.payments
    transfers = changes.transfers
    await connection.fetchval(
        QUERIES["apply_changes"],
        [wallet.number for wallet in wallets],
        [changes.wallet_versions[wallet.number] for wallet in wallets],
        [wallet.version for wallet in wallets],
        [wallet.balance_minor for wallet in wallets],
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
        [transfer.source_id for transfer in transfers],
        now_ms,
        [transfer.debit_account_id for transfer in transfers],
        [transfer.credit_account_id for transfer in transfers],
        [transfer.amount_minor for transfer in transfers],
        [transfer.currency for transfer in transfers],
        [transfer.wallet_number for transfer in transfers],
    )


async def terminal_payments_since(
    pool: asyncpg.Pool, terminal_number: int, since_ms: int, payments_max: int
) -> list[Payment]:
    """A till's payments that changed after `since_ms`, oldest first."""
    rows = await pool.fetch(QUERIES["terminal_payments_since"], terminal_number, since_ms, payments_max)
    return [_payment(row) for row in rows]


async def wallet_payments_since(
    pool: asyncpg.Pool, wallet_number: int, since_ms: int, payments_max: int
) -> list[tuple[Payment, str, str]]:
    """A wallet's payments that changed after `since_ms`, oldest first, each with merchant's and store's name."""
    rows = await pool.fetch(QUERIES["wallet_payments_since"], wallet_number, since_ms, payments_max)
    return [(_payment(row), row["merchant_name"], row["store_name"]) for row in rows]


def _device(row: asyncpg.Record) -> WalletDevice:
    return WalletDevice(
        wallet_number=row["device_wallet_number"],
        slot=row["slot"],
        kid=row["kid"],
        generation=row["generation"],
        status=DeviceStatus(row["device_status"]),
        spent_mark=row["spent_mark"],
    )


def _payment(row: asyncpg.Record) -> Payment:
    return Payment(
        payment_id=_uuid(row["id"]),
        fingerprint=row["fingerprint"],
        terminal_number=row["terminal_number"],
        merchant_id=row["merchant_id"],
        wallet_number=row["payment_wallet_number"],
        reference=row["reference"],
        amount_minor=row["amount_minor"],
        currency=row["currency"],
        status=Status(row["payment_status"]),
        decline_code=DeclineCode(row["decline_code"]) if row["decline_code"] else None,
        paid_by=_uuid(row["paid_by"]) if row["paid_by"] else None,
        version=row["payment_version"],
        changed_at_ms=row["changed_at_ms"],
    )


def _uuid(value: UUID) -> UUID:
    # asyncpg returns a subclass of its own, which orjson does not encode.
    return UUID(int=value.int)
