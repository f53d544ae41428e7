"""Rows that a batch passes to Postgres: tuples in the column order of the types in migration 0014 and later."""

from operator import attrgetter
from typing import Any, NamedTuple
from uuid import UUID

from ..core.payments.operations import Cancel, Confirm, CreateRefund, Expire, MoveCash, Operation, Reject, Scan
from ..core.payments.snapshot import Changeset

# The record attributes in each type. For wallets and payments the loaded version precedes them.
ATTRIBUTES = {
    "wallet_change": (
        *("number", "version", "balance_minor", "pin_failures", "pin_locked_until_ms", "day_start_ms"),
        *("day_spent_minor", "day_pin_free_minor", "day_pin_free_count"),
    ),
    "spent_code": ("wallet_number", "slot", "spent_mark"),
    "payment_change": (
        *("payment_id", "fingerprint", "terminal_number", "merchant_id", "wallet_number", "reference", "amount_minor"),
        *("currency", "status", "decline_code", "paid_by", "version", "approved_at_ms", "expires_at_ms"),
        *("pin_failures", "refunded_minor", "refunds", "purpose", "fee_minor", "shift_id", "canceled_shift_id"),
    ),
    "new_refund": (
        *("refund_id", "payment_id", "merchant_id", "terminal_number", "wallet_number", "amount_minor", "currency"),
        "shift_id",
    ),
    "new_transfer": (
        *("kind", "source_id", "debit_account_id", "credit_account_id", "amount_minor", "currency", "wallet_number"),
        "merchant_id",
    ),
}
_wallet, _code, _payment, _refund, _transfer = (attrgetter(*names) for names in ATTRIBUTES.values())

_key_order = attrgetter("payment_id", "merchant_id")


class OperationKey(NamedTuple):
    """Keys of the rows that an operation needs."""

    payment_id: UUID | None = None
    terminal_number: int | None = None
    merchant_id: int | None = None
    reference: str | None = None
    wallet_number: int | None = None
    slot: int | None = None


def operation_key(operation: Operation) -> OperationKey:
    """Return the keys of the rows that an operation needs."""
    match operation:
        case Scan():
            code = operation.parsed_code
            return OperationKey(
                operation.payment_id,
                operation.terminal_number,
                operation.merchant_id,
                operation.reference,
                code.wallet_number if code else None,
                code.slot if code else None,
            )
        case Cancel():
            return OperationKey(
                operation.payment_id, operation.terminal_number, operation.merchant_id, operation.reference
            )
        case MoveCash():
            return OperationKey(
                operation.payment_id, None, operation.merchant_id, operation.reference, operation.wallet_number
            )
        case CreateRefund():
            return OperationKey(operation.payment_id, operation.terminal_number, operation.merchant_id)
        case Confirm() | Reject() | Expire():
            return OperationKey(operation.payment_id, merchant_id=operation.merchant_id)


def changeset_rows(changes: Changeset, now_ms: int) -> tuple[Any, ...]:
    """Return the arguments of the statement `apply_changes`; all but the last are those of `apply_new_payments`."""
    wallet_versions, payment_versions = changes.wallet_versions, changes.payment_versions
    # All servers lock and insert rows in the order of their keys. A wallet's row also guards its devices and transfers.
    return (
        [(wallet_versions[number], *_wallet(wallet)) for number, wallet in sorted(changes.wallets.items())],
        list(map(_code, changes.devices.values())),
        [
            (payment_versions[payment.key], *_payment(payment))
            for payment in sorted(changes.payments.values(), key=_key_order)
        ],
        now_ms,
        list(map(_transfer, changes.transfers)),
        list(changes.shifts.items()),
        list(map(_refund, sorted(changes.refunds, key=attrgetter("refund_id", "merchant_id")))),
    )
