"""Who is told what about an outcome."""

from typing import NamedTuple

from .declines import DECLINE_TEXTS
from .device_keys import DeviceKind
from .errors import ErrorCode
from .messages import Error, ServerMessage, TerminalPaymentResult, WalletPaymentResult
from .money import format_amount
from .payments import Decided, Decision, IdReused, Scan

ERROR_TEXTS = {
    ErrorCode.ID_REUSED: "this payment_id belongs to a payment with another body; make a new id for a new payment",
    ErrorCode.BUSY: "the server is busy and did not act on this message; send it again",
    ErrorCode.UNKNOWN_OUTCOME: "the outcome is not known yet; send the same message again with the same payment_id",
    ErrorCode.WRONG_CURRENCY: "this terminal's merchant takes another currency",
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
    told: list[tuple[Recipient, ServerMessage]] = [(terminal, _terminal_notice(outcome, reply_to))]
    if outcome.wallet is not None:
        told.append(
            (Recipient(DeviceKind.WALLET, outcome.wallet.number), _wallet_notice(outcome, outcome.wallet.balance_minor))
        )
    return told


def _error_notice(code: ErrorCode, reply_to: str) -> Error:
    return Error(reply_to=reply_to, code=code.value, message=ERROR_TEXTS[code], retryable=code.retryable)


def _terminal_notice(decided: Decided, reply_to: str) -> TerminalPaymentResult:
    payment = decided.payment
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


def _wallet_notice(decided: Decided, balance_minor: int) -> WalletPaymentResult:
    payment, till = decided.payment, decided.till
    decline = DECLINE_TEXTS[payment.decline_code] if payment.decline_code else None
    amount = format_amount(payment.amount_minor, payment.currency)
    return WalletPaymentResult(
        payment_id=payment.payment_id,
        version=payment.version,
        merchant_name=till.merchant_name,
        store_name=till.store_name,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        status=payment.status.value,
        decline_code=payment.decline_code.value if payment.decline_code else None,
        text=decline.customer if decline else f"You paid {amount} to {till.merchant_name}.",
        balance_minor=balance_minor,
        decided_at_ms=payment.changed_at_ms,
    )
