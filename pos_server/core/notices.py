"""Who is told what about an outcome."""

from typing import NamedTuple

from .declines import DECLINE_TEXTS
from .device_keys import DeviceKind
from .errors import ErrorCode
from .messages import Error, ServerMessage, TerminalPaymentResult, WalletPaymentResult
from .money import format_amount
from .payments import Decision, IdReused, Payment, Scan

ERROR_TEXTS = {
    ErrorCode.ID_REUSED: "this payment_id belongs to a payment with another body; make a new id for a new payment",
    ErrorCode.BUSY: "the server is busy and did not act on this message; send it again",
    ErrorCode.UNKNOWN_OUTCOME: "the outcome is not known yet; send the same message again with the same payment_id",
    ErrorCode.WRONG_CURRENCY: "this terminal's merchant takes another currency",
    ErrorCode.TOO_MANY_MESSAGES: "too many messages a second; this one was not acted on, send it again later",
    ErrorCode.DRAINING: "the server is restarting and did not act on this message; reconnect and send it again",
    ErrorCode.TOO_MANY_BAD_CODES: "too many forged codes were scanned here; wait before the next scan",
}


class Recipient(NamedTuple):
    """A terminal, or all devices of a wallet."""

    kind: DeviceKind
    number: int


class NotDecided(NamedTuple):
    """A scan that got no decision: BUSY (nothing has happened) or UNKNOWN_OUTCOME (it may have)."""

    scan: Scan
    code: ErrorCode


Outcome = Decision | NotDecided


def notices(outcome: Outcome, reply_to: str) -> list[tuple[Recipient, ServerMessage]]:
    """Every message an outcome causes. `reply_to` is the `message_id` of the scan."""
    terminal = Recipient(DeviceKind.TERMINAL, outcome.scan.terminal_number)
    if isinstance(outcome, IdReused):
        return [(terminal, _error_notice(ErrorCode.ID_REUSED, reply_to))]
    if isinstance(outcome, NotDecided):
        return [(terminal, _error_notice(outcome.code, reply_to))]
    payment, till = outcome.payment, outcome.till
    told: list[tuple[Recipient, ServerMessage]] = [(terminal, terminal_notice(payment, reply_to))]
    if outcome.wallet is not None:
        wallet = Recipient(DeviceKind.WALLET, outcome.wallet.number)
        told.append((wallet, wallet_notice(payment, till.merchant_name, till.store_name, outcome.wallet.balance_minor)))
    return told


def _error_notice(code: ErrorCode, reply_to: str) -> Error:
    return Error(reply_to=reply_to, code=code.value, message=ERROR_TEXTS[code], retryable=code.retryable)


def terminal_notice(payment: Payment, reply_to: str | None) -> TerminalPaymentResult:
    """What the till hears of a payment; `reply_to` is None when it did not ask on this connection."""
    decline = DECLINE_TEXTS[payment.decline_code] if payment.decline_code else None
    return TerminalPaymentResult(
        reply_to=reply_to,
        payment_id=payment.payment_id,
        version=payment.version,
        reference=payment.reference,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        status=payment.status.value,
        decline_code=payment.decline_code.value if payment.decline_code else None,
        retryable=decline.retryable if decline else False,
        text=decline.cashier if decline else f"Paid {format_amount(payment.amount_minor, payment.currency)}.",
        paid_by=payment.paid_by,
        decided_at_ms=payment.changed_at_ms,
    )


def wallet_notice(payment: Payment, merchant_name: str, store_name: str, balance_minor: int) -> WalletPaymentResult:
    """What the customer hears of a payment; `balance_minor` is the balance of now."""
    decline = DECLINE_TEXTS[payment.decline_code] if payment.decline_code else None
    amount = format_amount(payment.amount_minor, payment.currency)
    return WalletPaymentResult(
        payment_id=payment.payment_id,
        version=payment.version,
        merchant_name=merchant_name,
        store_name=store_name,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        status=payment.status.value,
        decline_code=payment.decline_code.value if payment.decline_code else None,
        text=decline.customer if decline else f"You paid {amount} to {merchant_name}.",
        balance_minor=balance_minor,
        decided_at_ms=payment.changed_at_ms,
    )
