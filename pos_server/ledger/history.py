"""Payments that devices query, and payments they may have missed while disconnected."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self
from uuid import UUID

import asyncpg

from ..core.credentials.device_keys import DeviceKind
from ..core.errors import ErrorCode
from ..core.payments.payment import OCCUPYING, Payment
from ..core.payments.snapshot import Wallet
from .durability import fetch_durable
from .rows import payment_of, wallet_of
from .sql import QUERIES

_CHANGED_SINCE = {DeviceKind.TERMINAL: "terminals_changed_since", DeviceKind.WALLET: "wallets_changed_since"}


class Cursor(NamedTuple):
    """A position among the changes of a device's payments: the last payment of a page."""

    changed_at_ms: int
    payment_id: UUID
    merchant_id: int

    @classmethod
    def before(cls, time_ms: int) -> Self:
        """Return the position before all changes at `time_ms` (Unix ms)."""
        return cls(max(time_ms, 0), UUID(int=0), 0)

    @classmethod
    def of(cls, payment: Payment) -> Self:
        """Return the position of a payment."""
        return cls(payment.changed_at_ms, payment.payment_id, payment.merchant_id)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the position that a device sent, a text that the protocol's pattern has accepted.

        A history's cursor of an older server names no merchant. With 0, the history goes on after all payments with
        this time and id.
        """
        changed_at_ms, payment_id, *merchant_id = text.split(".")
        return cls(int(changed_at_ms), UUID(payment_id), int(merchant_id[0]) if merchant_id else 0)

    @property
    def text(self) -> str:
        """The position as a device receives it."""
        return ".".join(map(str, self))


@dataclass(frozen=True, slots=True)
class WalletPayment:
    """A payment with the names that a wallet displays."""

    payment: Payment
    merchant_name: str
    store_name: str


async def terminal_payments_after(
    pool: asyncpg.Pool, terminal_number: int, after: Cursor, payments_max: int
) -> list[Payment]:
    """Return a terminal's payments after a position, oldest change first."""
    rows = await fetch_durable(pool, QUERIES["terminal_payments_after"], terminal_number, *after, payments_max)
    return [payment_of(row) for row in rows]


async def terminal_recent(pool: asyncpg.Pool, terminal_number: int, payments_max: int) -> list[Payment]:
    """Return a terminal's last payments, latest change first."""
    return [
        payment_of(row) for row in await fetch_durable(pool, QUERIES["terminal_recent"], terminal_number, payments_max)
    ]


async def find_payment(
    pool: asyncpg.Pool, merchant_id: int, payment_id: UUID | None, reference: str | None
) -> Payment | ErrorCode:
    """Return a merchant's payment by its id, or by its reference if `payment_id` is None.

    For a reference this is the payment that occupies it, else the last one that failed. Without a payment the result is
    PAYMENT_UNKNOWN, or PAYMENT_ARCHIVED if an archived payment has the id or occupies the reference.
    """
    if payment_id is not None:
        rows = await fetch_durable(pool, QUERIES["payment_by_id"], merchant_id, payment_id)
    else:
        rows = await fetch_durable(pool, QUERIES["payment_by_reference"], merchant_id, reference)
    payment = payment_of(rows[0]) if rows else None
    if payment is not None and (payment_id is not None or payment.status in OCCUPYING):
        return payment
    # The archive is read after the ledger, so that a payment moved in between is found.
    if await pool.fetchval(QUERIES["archived_payment"], merchant_id, payment_id, reference):
        return ErrorCode.PAYMENT_ARCHIVED
    return payment or ErrorCode.PAYMENT_UNKNOWN


async def wallet_payments_after(
    pool: asyncpg.Pool, wallet_number: int, after: Cursor, payments_max: int
) -> list[WalletPayment]:
    """Return a wallet's payments after a position, oldest change first."""
    rows = await fetch_durable(pool, QUERIES["wallet_payments_after"], wallet_number, *after, payments_max)
    return [_wallet_payment(row) for row in rows]


async def changed_since(pool: asyncpg.Pool, kind: DeviceKind, numbers: Sequence[int], since_ms: int) -> set[int]:
    """Return those of these terminals or wallets that have payments which changed since `since_ms` (Unix ms)."""
    rows = await pool.fetch(QUERIES[_CHANGED_SINCE[kind]], numbers, since_ms)
    return {row["number"] for row in rows}


async def wallet_pending(pool: asyncpg.Pool, wallet_number: int, payments_max: int) -> list[WalletPayment]:
    """Return the payments that wait for this wallet's PIN, oldest first."""
    rows = await fetch_durable(pool, QUERIES["wallet_pending"], wallet_number, payments_max)
    return [_wallet_payment(row) for row in rows]


async def wallet_history(
    pool: asyncpg.Pool, wallet_number: int, after: Cursor | None, payments_max: int
) -> list[WalletPayment]:
    """Return a page of a wallet's payments, latest change first, starting `after` the previous page."""
    rows = await fetch_durable(
        pool, QUERIES["wallet_history"], wallet_number, *(after or (None, None, None)), payments_max
    )
    return [_wallet_payment(row) for row in rows]


async def merchants_of_wallet_payment(pool: asyncpg.Pool, wallet_number: int, payment_id: UUID) -> list[int]:
    """Return the merchants to which a wallet has made a payment with this id, at most two of them."""
    rows = await pool.fetch(QUERIES["merchants_of_wallet_payment"], wallet_number, payment_id)
    return [row["merchant_id"] for row in rows]


async def find_wallet(pool: asyncpg.Pool, number: int) -> Wallet | None:
    """Return the wallet with this number, or None."""
    row = await pool.fetchrow(QUERIES["wallet"], number)
    return None if row is None else wallet_of(row)


def _wallet_payment(row: asyncpg.Record) -> WalletPayment:
    return WalletPayment(payment_of(row), row["merchant_name"], row["store_name"])
