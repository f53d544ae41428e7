"""Who is told what about an outcome."""

from .declines import DECLINE_TEXTS
from .errors import ErrorCode
from .messages import Error, TerminalPaymentResult, WalletPaymentResult
from .money import format_amount
from .payments import Decided

_ERROR_TEXTS = {
    ErrorCode.ID_REUSED: "this payment_id belongs to a payment with another body; make a new id for a new payment",
    ErrorCode.BUSY: "the server is busy and nothing has happened; send the same message again",
    ErrorCode.UNKNOWN_OUTCOME: "the outcome is not known yet; send the same message again with the same payment_id",
    ErrorCode.WRONG_CURRENCY: "this terminal's merchant takes another currency",
    ErrorCode.TOO_MANY_BAD_CODES: "too many forged codes were scanned here; wait before the next scan",
}


def terminal_notice(decided: Decided, reply_to: str | None) -> TerminalPaymentResult:
    """What the till hears of a decided payment."""
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


def wallet_notice(decided: Decided) -> WalletPaymentResult | None:
    """What the customer hears; None when the code proved no wallet (forged or malformed)."""
    payment, wallet, till = decided.payment, decided.wallet, decided.till
    if wallet is None:
        return None
    decline = DECLINE_TEXTS[payment.decline_code] if payment.decline_code else None
    return WalletPaymentResult(
        payment_id=payment.payment_id,
        version=payment.version,
        merchant_name=till.merchant_name,
        store_name=till.store_name,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        status=payment.status.value,
        decline_code=payment.decline_code.value if payment.decline_code else None,
        text=decline.customer
        if decline
        else f"You paid {format_amount(payment.amount_minor, payment.currency)} to {till.merchant_name}.",
        balance_minor=wallet.balance_minor,
        decided_at_ms=payment.changed_at_ms,
    )


def error_notice(code: ErrorCode, reply_to: str | None, *, retry_after_s: int | None = None) -> Error:
    """The `error` message for a scan that was not decided."""
    return Error(
        reply_to=reply_to,
        code=code.value,
        message=_ERROR_TEXTS[code],
        retryable=code.retryable,
        retry_after_s=retry_after_s,
    )
