"""Notices: the messages that an outcome causes, and their recipients."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial

from msgspec import Struct

from ..accounting.shifts import Shift, TotalKind, report_text
from ..credentials.device_keys import TERMINAL, WALLET, DeviceKind
from ..errors import ErrorCode, MessageError
from ..money import format_amount
from ..payments.declines import ADVICE, ADVICE_CANCELED, ADVICE_EXPIRED, Advice
from ..payments.operations import (
    Cancel,
    Confirm,
    CreateRefund,
    Decided,
    Operation,
    Outcome,
    Refunded,
    Refused,
    Reject,
    Scan,
)
from ..payments.payment import APPROVED, CANCELED, EXPIRED, PENDING, SALE, WITHDRAWAL, Payment
from ..payments.snapshot import TerminalStatus, Wallet, WalletStatus
from ..texts import decline_text, text
from .server_messages import (
    ConfirmationRequired,
    Error,
    PaymentPending,
    ServerMessage,
    ShiftReport,
    ShiftTotal,
    StatusChanged,
    TerminalPaymentResult,
    TerminalRefundResult,
    WalletPaymentResult,
    WalletRefundResult,
)

Render = Callable[[str], ServerMessage]
"""Render a message in a language of `texts.LANGUAGES`. Devices of one wallet may use different languages."""


class Recipient(Struct, frozen=True, gc=False):
    """A terminal, or devices of a wallet: all, one (`slot`), or all but one (`not_slot`)."""

    kind: DeviceKind
    number: int
    slot: int | None = None
    not_slot: int | None = None


class Notice(Struct, frozen=True):
    """A message to render, and its recipient."""

    recipient: Recipient
    render: Render


def notices(outcome: Outcome, reply_to: str | None, *, wallet_online: bool = True) -> list[Notice]:
    """Return all messages that an outcome causes.

    `reply_to` is the `message_id` of the request, None if it did not come over a WebSocket. `wallet_online` is false if
    no device of the wallet is connected, which the till shows while it waits for the PIN.
    """
    if isinstance(outcome, Refused):
        # A scan through the REST API is refused there, since its till has sent no request.
        asker = None if reply_to is None else asker_of(outcome.operation)
        return [] if asker is None else [Notice(asker, lambda _: error_message(message_error(outcome.code, reply_to)))]
    if isinstance(outcome, Refunded):
        return _refund_notices(outcome, reply_to)
    return _payment_notices(outcome, reply_to, wallet_online)


def error_message(error: MessageError) -> Error:
    """Return the message that reports an error to a client."""
    return Error(
        reply_to=error.reply_to,
        code=error.code.value,
        message=error.detail,
        field=error.field,
        retryable=error.code.retryable,
        retry_after_s=error.retry_after_s,
    )


def message_error(
    code: ErrorCode, reply_to: str | None, *, field: str | None = None, retry_after_s: int | None = None
) -> MessageError:
    """Return the error of this code with its usual text, in answer to the message `reply_to`."""
    return MessageError(code, code.description, field=field, reply_to=reply_to, retry_after_s=retry_after_s)


def status_notice(number: int, status: TerminalStatus | WalletStatus) -> Notice:
    """Return the notice of a new status for the terminal, or for all devices of the wallet, with this number."""
    if isinstance(status, TerminalStatus):
        kind, key = TERMINAL, f"cashier.terminal_{status}"
    else:
        kind, key = WALLET, f"customer.wallet_{status}"
    return Notice(
        Recipient(kind, number), lambda language: StatusChanged(status=status.value, text=text(language, key))
    )


def asker_of(operation: Operation) -> Recipient | None:
    """Return the device that requested an operation; None for the REST API and for expiry."""
    match operation:
        case Scan():
            return Recipient(TERMINAL, operation.terminal_number)
        case Cancel(terminal_number=int(number)) | CreateRefund(terminal_number=int(number)):
            return Recipient(TERMINAL, number)
        case Confirm() | Reject():
            return Recipient(WALLET, operation.wallet_number, slot=operation.slot)
    return None


def _payment_notices(decided: Decided, reply_to: str | None, wallet_online: bool) -> list[Notice]:
    payment, acceptor, wallet = decided.payment, decided.acceptor, decided.wallet
    asker = asker_of(decided.operation)
    # A repeated scan notifies both sides again; any other repeat is answered to the asker alone.
    only_asker = decided.replayed and not isinstance(decided.operation, Scan)

    for_terminal = partial(terminal_notice, payment, wallet_online=wallet_online)
    result = []
    number = payment.terminal_number
    if asker is not None and asker.kind is TERMINAL:
        result.append(Notice(asker, partial(for_terminal, reply_to)))
        if asker.number == number:
            number = None
    if number is not None and not only_asker and not _is_wrong_pin(decided):
        result.append(Notice(Recipient(TERMINAL, number), partial(for_terminal, None)))
    if wallet is None:
        return result
    for_wallet = partial(
        wallet_notice, payment, acceptor.merchant_name, acceptor.store_name, wallet, decided.pin_tries_left
    )
    others = Recipient(WALLET, wallet.number)
    if asker is not None and asker.kind is WALLET:
        result.append(Notice(asker, partial(for_wallet, reply_to)))
        others = Recipient(WALLET, wallet.number, not_slot=asker.slot)
    if not only_asker:
        result.append(Notice(others, partial(for_wallet, None)))
    return result


def _is_wrong_pin(decided: Decided) -> bool:
    """Return True for a wrong PIN that may be tried again: the till is not notified of it."""
    return isinstance(decided.operation, Confirm) and decided.payment.status is PENDING


def _refund_notices(refunded: Refunded, reply_to: str | None) -> list[Notice]:
    asker = asker_of(refunded.operation)
    result = []
    if asker is not None:
        result.append(Notice(asker, partial(_terminal_refund, refunded, reply_to)))
    if refunded.replayed:
        return result
    number = refunded.payment.terminal_number
    if number is not None and (asker is None or asker.number != number):
        result.append(Notice(Recipient(TERMINAL, number), partial(_terminal_refund, refunded, None)))
    wallet = Recipient(WALLET, refunded.wallet.number)
    result.append(Notice(wallet, partial(_wallet_refund, refunded)))
    return result


def _terminal_refund(refunded: Refunded, reply_to: str | None, language: str) -> TerminalRefundResult:
    refund, payment = refunded.refund, refunded.payment
    return TerminalRefundResult(
        reply_to=reply_to,
        refund_id=refund.refund_id,
        payment_id=payment.payment_id,
        version=payment.version,
        reference=payment.reference or "",
        amount_minor=refund.amount_minor,
        currency=refund.currency,
        refunded_minor=payment.refunded_minor,
        refundable_minor=payment.refundable_minor,
        text=text(language, "cashier.refund", amount=format_amount(refund.amount_minor, refund.currency)),
        decided_at_ms=refund.created_at_ms,
    )


def _wallet_refund(refunded: Refunded, language: str) -> WalletRefundResult:
    refund, payment, acceptor = refunded.refund, refunded.payment, refunded.acceptor
    amount = format_amount(refund.amount_minor, refund.currency)
    return WalletRefundResult(
        refund_id=refund.refund_id,
        payment_id=payment.payment_id,
        merchant_id=payment.merchant_id,
        version=payment.version,
        merchant_name=acceptor.merchant_name,
        store_name=acceptor.store_name,
        amount_minor=refund.amount_minor,
        currency=refund.currency,
        refunded_minor=payment.refunded_minor,
        text=text(language, "customer.refund", amount=amount, merchant=acceptor.merchant_name),
        balance_minor=refunded.wallet.balance_minor,
        decided_at_ms=refund.created_at_ms,
    )


def terminal_notice(
    payment: Payment, reply_to: str | None, language: str, *, wallet_online: bool = True
) -> TerminalPaymentResult | PaymentPending:
    """Return the state of a payment for its till; `reply_to` is None if the till did not ask on this connection."""
    if payment.status is PENDING:
        return PaymentPending(
            reply_to=reply_to,
            payment_id=payment.payment_id,
            version=payment.version,
            reference=payment.reference or "",
            amount_minor=payment.amount_minor,
            currency=payment.currency,
            purpose=str(payment.purpose),
            expires_at_ms=payment.expires_at_ms or 0,
            wallet_online=wallet_online,
            text=text(language, "cashier.pending" if wallet_online else "cashier.pending_offline"),
            decided_at_ms=payment.changed_at_ms,
        )
    advice = _advice(payment)
    return TerminalPaymentResult(
        reply_to=reply_to,
        payment_id=payment.payment_id,
        version=payment.version,
        reference=payment.reference,
        amount_minor=payment.amount_minor or None,
        currency=payment.currency,
        purpose=str(payment.purpose),
        status=str(payment.status),
        decline_code=str(payment.decline_code) if payment.decline_code else None,
        retryable=advice.retryable if advice else False,
        next_step=advice.next_step.value if advice else None,
        text=_payment_text(language, "cashier", payment, ""),
        paid_by=payment.paid_by,
        refunded_minor=payment.refunded_minor,
        decided_at_ms=payment.changed_at_ms,
    )


def shift_notice(shift: Shift, reply_to: str, language: str) -> ShiftReport:
    """Return the report of a shift for its till: the X-report while it is open, then the Z-report."""
    return ShiftReport(
        reply_to=reply_to,
        report="Z" if shift.is_closed else "X",
        shift_id=shift.shift_id,
        shift_number=shift.number,
        terminal_number=shift.terminal_number,
        merchant_name=shift.merchant_name,
        store_name=shift.store_name,
        operator=shift.operator,
        currency=shift.currency,
        opened_at_ms=shift.opened_at_ms,
        closed_at_ms=shift.closed_at_ms,
        made_at_ms=shift.made_at_ms,
        totals=tuple(ShiftTotal(kind=kind.value, **asdict(shift.total(kind))) for kind in TotalKind),
        net_sales_minor=shift.net_sales_minor,
        opening_cash_minor=shift.opening_cash_minor,
        expected_cash_minor=shift.expected_cash_minor,
        counted_cash_minor=shift.counted_cash_minor,
        cash_difference_minor=shift.cash_difference_minor,
        text=report_text(shift, language),
    )


def wallet_notice(
    payment: Payment,
    merchant_name: str,
    store_name: str,
    wallet: Wallet,
    tries_left: int,
    reply_to: str | None,
    language: str,
) -> WalletPaymentResult | ConfirmationRequired:
    """Return the state of a payment for the customer, with the wallet's current balance."""
    if payment.status is PENDING:
        key = "confirm" if wallet.pin_set else "confirm_no_pin"
        if payment.purpose is WITHDRAWAL and wallet.pin_set:
            key = "confirm_withdrawal"
        if payment.pin_failures:
            key = "confirm_again"
        amount = format_amount(payment.amount_minor, payment.currency)
        return ConfirmationRequired(
            reply_to=reply_to,
            payment_id=payment.payment_id,
            merchant_id=payment.merchant_id,
            version=payment.version,
            merchant_name=merchant_name,
            store_name=store_name,
            amount_minor=payment.amount_minor,
            currency=payment.currency,
            purpose=str(payment.purpose),
            expires_at_ms=payment.expires_at_ms or 0,
            pin_tries_left=tries_left,
            text=text(language, f"customer.{key}", amount=amount, merchant=merchant_name, tries=tries_left),
            decided_at_ms=payment.changed_at_ms,
        )
    return WalletPaymentResult(
        reply_to=reply_to,
        payment_id=payment.payment_id,
        merchant_id=payment.merchant_id,
        version=payment.version,
        merchant_name=merchant_name,
        store_name=store_name,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        purpose=str(payment.purpose),
        status=str(payment.status),
        decline_code=str(payment.decline_code) if payment.decline_code else None,
        text=_payment_text(language, "customer", payment, merchant_name),
        refunded_minor=payment.refunded_minor,
        balance_minor=wallet.balance_minor,
        decided_at_ms=payment.changed_at_ms,
    )


def _advice(payment: Payment) -> Advice | None:
    if payment.decline_code is not None:
        return ADVICE[payment.decline_code]
    if payment.status is EXPIRED:
        return ADVICE_EXPIRED
    return ADVICE_CANCELED if payment.status is CANCELED else None


def _payment_text(language: str, side: str, payment: Payment, merchant_name: str) -> str:
    if payment.decline_code is not None:
        return decline_text(language, side, payment.decline_code)
    amount = format_amount(payment.amount_minor, payment.currency)
    if payment.refunded_minor:
        refunded = format_amount(payment.refunded_minor, payment.currency)
        return text(language, f"{side}.approved_refunded", amount=amount, refunded=refunded, merchant=merchant_name)
    key = str(payment.status)
    if payment.status is APPROVED and payment.purpose is not SALE:
        key = str(payment.purpose)
    elif payment.status is CANCELED and payment.approved_at_ms is not None:
        key = "canceled_returned" if payment.purpose is SALE else f"canceled_{payment.purpose}"
    return text(language, f"{side}.{key}", amount=amount, merchant=merchant_name)
