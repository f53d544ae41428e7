"""From rows to the core's data: one function for each kind of row that several queries return."""

from uuid import UUID

import asyncpg
import orjson

from ..core.book import (
    DeviceStatus,
    MerchantStatus,
    OwnLimits,
    TerminalStatus,
    Till,
    Wallet,
    WalletDevice,
    WalletStatus,
)
from ..core.payments import DeclineCode, Payment, Purpose, Refund, Status


def till_of(row: asyncpg.Record) -> Till:
    return Till(
        # A back office has no terminal that could be disabled.
        terminal_status=TerminalStatus(row["terminal_status"] or TerminalStatus.ACTIVE),
        merchant_status=MerchantStatus(row["merchant_status"]),
        merchant_account_id=row["merchant_account_id"],
        merchant_name=row["merchant_name"],
        store_name=row["store_name"] or "",
        fee_bps=row["fee_bps"],
        fee_fixed_minor=row["fee_fixed_minor"],
        shift_id=_uuid_or_none(row["terminal_shift_id"]),
    )


def wallet_of(row: asyncpg.Record) -> Wallet:
    return Wallet(
        number=row["wallet_number"],
        account_id=row["account_id"],
        currency=row["wallet_currency"],
        balance_minor=row["balance_minor"],
        status=WalletStatus(row["wallet_status"]),
        version=row["wallet_version"],
        pin_set=row["pin_set"],
        pin_generation=row["pin_generation"],
        pin_failures=row["pin_failures"],
        pin_locked_until_ms=row["pin_locked_until_ms"],
        day_start_ms=row["day_start_ms"],
        day_spent_minor=row["day_spent_minor"],
        day_pin_free_minor=row["day_pin_free_minor"],
        day_pin_free_count=row["day_pin_free_count"],
        limits=None if row["wallet_limits"] is None else OwnLimits(**orjson.loads(row["wallet_limits"])),
    )


def device_of(row: asyncpg.Record) -> WalletDevice:
    return WalletDevice(
        wallet_number=row["device_wallet_number"],
        slot=row["slot"],
        kid=row["kid"],
        generation=row["generation"],
        status=DeviceStatus(row["device_status"]),
        spent_mark=row["spent_mark"],
    )


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
    """asyncpg returns a subclass of its own, which orjson does not encode."""
    return UUID(int=value.int)


def _uuid_or_none(value: UUID | None) -> UUID | None:
    return None if value is None else plain_uuid(value)
