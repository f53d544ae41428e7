"""Conversion of database rows to records of the core.

These functions run several times per payment and are therefore optimized: they read several columns with one call, and
they look statuses up in a dict, which takes a tenth of the time of calling the enum.
"""

from operator import itemgetter
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from ..core.payments.declines import DeclineCode
from ..core.payments.payment import Payment, Purpose, Refund, Status
from ..core.payments.snapshot import (
    Acceptor,
    DeviceStatus,
    MerchantStatus,
    OwnLimits,
    TerminalStatus,
    Wallet,
    WalletDevice,
    WalletStatus,
)

_TERMINAL_STATUSES = {str(status): status for status in TerminalStatus}
_MERCHANT_STATUSES = {str(status): status for status in MerchantStatus}
_WALLET_STATUSES = {str(status): status for status in WalletStatus}
_DEVICE_STATUSES = {str(status): status for status in DeviceStatus}

_acceptor = itemgetter(
    *("terminal_status", "merchant_status", "merchant_account_id", "merchant_name", "store_name", "fee_bps"),
    *("fee_fixed_minor", "terminal_shift_id"),
)
_wallet = itemgetter("wallet_number", "account_id", "wallet_currency", "balance_minor")
_wallet_state = itemgetter(
    *("wallet_version", "pin_set", "pin_generation", "pin_failures", "pin_locked_until_ms", "day_start_ms"),
    *("day_spent_minor", "day_pin_free_minor", "day_pin_free_count"),
)
_device = itemgetter("device_wallet_number", "slot", "kid", "generation", "device_status", "spent_mark")


def acceptor_of(row: asyncpg.Record) -> Acceptor:
    status, merchant_status, account_id, merchant_name, store_name, fee_bps, fee_fixed_minor, shift_id = _acceptor(row)
    return Acceptor(
        # A back office has no terminal and cannot be disabled.
        TerminalStatus.ACTIVE if status is None else _TERMINAL_STATUSES[status],
        _MERCHANT_STATUSES[merchant_status],
        account_id,
        merchant_name,
        store_name or "",
        fee_bps,
        fee_fixed_minor,
        _uuid_or_none(shift_id),
    )


def wallet_of(row: asyncpg.Record) -> Wallet:
    limits = None if row["wallet_limits"] is None else OwnLimits(**orjson.loads(row["wallet_limits"]))
    fields: list[Any] = [*_wallet(row), _WALLET_STATUSES[row["wallet_status"]], *_wallet_state(row), limits]
    return Wallet(*fields)


def device_of(row: asyncpg.Record) -> WalletDevice:
    wallet_number, slot, kid, generation, status, spent_mark = _device(row)
    return WalletDevice(wallet_number, slot, kid, generation, _DEVICE_STATUSES[status], spent_mark)


def payment_of(row: asyncpg.Record) -> Payment:
    return Payment(
        payment_id=plain_uuid(row["id"]),
        fingerprint=row["fingerprint"],
        terminal_number=row["terminal_number"],
        merchant_id=row["merchant_id"],
        wallet_number=row["payment_wallet_number"],
        reference=row["reference"],
        amount_minor=row["amount_minor"],
        currency=row["currency"],
        status=Status(row["payment_status"]),
        decline_code=DeclineCode(row["decline_code"]) if row["decline_code"] else None,
        paid_by=_uuid_or_none(row["paid_by"]),
        version=row["payment_version"],
        changed_at_ms=row["changed_at_ms"],
        approved_at_ms=row["approved_at_ms"],
        expires_at_ms=row["expires_at_ms"],
        pin_failures=row["payment_pin_failures"],
        refunded_minor=row["refunded_minor"],
        refunds=row["refunds"],
        purpose=Purpose(row["purpose"]),
        fee_minor=row["fee_minor"],
        shift_id=_uuid_or_none(row["shift_id"]),
        canceled_shift_id=_uuid_or_none(row["canceled_shift_id"]),
    )


def refund_of(row: asyncpg.Record) -> Refund:
    return Refund(
        refund_id=plain_uuid(row["id"]),
        payment_id=plain_uuid(row["payment_id"]),
        merchant_id=row["merchant_id"],
        terminal_number=row["terminal_number"],
        wallet_number=row["wallet_number"],
        amount_minor=row["amount_minor"],
        currency=row["currency"],
        created_at_ms=row["created_at_ms"],
        shift_id=_uuid_or_none(row["shift_id"]),
    )


def plain_uuid(value: UUID) -> UUID:
    """Return a plain UUID. asyncpg returns a subclass, which orjson cannot encode."""
    return UUID(int=value.int)


def _uuid_or_none(value: UUID | None) -> UUID | None:
    return None if value is None else plain_uuid(value)
