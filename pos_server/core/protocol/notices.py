"""Who is told what about an outcome."""

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

ERROR_TEXTS = {
    ErrorCode.ID_REUSED: "this id belongs to another request with another body; make a new id for a new one",
    ErrorCode.PAYMENT_UNKNOWN: "there is no such payment here",
    ErrorCode.PAYMENT_ARCHIVED: "the payment is in the archive and cannot be changed; ask the operator for it",
    ErrorCode.WALLET_UNKNOWN: "there is no such wallet",
    ErrorCode.FUNDS_SPENT: "the wallet holds less than the top-up brought; it cannot be taken back whole",
    ErrorCode.TERMINAL_DISABLED: "this terminal is disabled; use another one, or have it enabled",
    ErrorCode.CANCEL_TOO_LATE: "the payment is too old to be canceled; refund it instead",
    ErrorCode.ALREADY_REFUNDED: "some of the payment was refunded, so it cannot be canceled; refund the rest instead",
    ErrorCode.NOT_REFUNDABLE: "only an approved payment can be refunded",
    ErrorCode.REFUND_TOO_LATE: "the payment is too old to be refunded",
    ErrorCode.REFUND_EXCEEDS_REMAINING: "the amount is more than what is left of the payment",
    ErrorCode.TOO_MANY_REFUNDS: "the payment was refunded too often",
    ErrorCode.PIN_NOT_SET: "the wallet has no PIN yet; set one first",
    ErrorCode.PIN_TOO_WEAK: "the PIN is too easy to guess; choose another",
    ErrorCode.PIN_WRONG: "the old PIN is wrong",
    ErrorCode.PIN_LOCKED: "the PIN is locked after too many wrong ones; try again later",
    ErrorCode.SHIFT_ALREADY_OPEN: "another shift is open at this terminal; close it first",
    ErrorCode.SHIFT_UNKNOWN: "there is no such shift at this terminal",
    ErrorCode.PAYMENT_PENDING: "a payment of this shift waits for its PIN; wait for it or cancel it, then close again",
    ErrorCode.BUSY: "the server is busy and did not act on this message; send it again",
    ErrorCode.UNKNOWN_OUTCOME: "the outcome is not known yet; send the same message again with the same ids",
    ErrorCode.WRONG_CURRENCY: "this terminal's merchant takes another currency",
    ErrorCode.TOO_MANY_MESSAGES: "too many messages a second; this one was not acted on, send it again later",
    ErrorCode.TOO_MANY_QUERIES: "too many queries; this one was not acted on, send it again later",
    ErrorCode.DRAINING: "the server is restarting and did not act on this message; reconnect and send it again",
    ErrorCode.TOO_MANY_BAD_CODES: "too many forged codes were scanned here; wait before the next scan",
}

Render = Callable[[str], ServerMessage]
"""Makes a message in a language of `texts.LANGUAGES`: devices of one wallet may speak several."""


class Recipient(Struct, frozen=True, gc=False):
    """A terminal, or a wallet: all of its devices, one of them (`slot`), or all but one (`not_slot`)."""

    kind: DeviceKind
    number: int
    slot: int | None = None
    not_slot: int | None = None


class Notice(Struct, frozen=True):
    """A message to be made, and who it is for."""

    recipient: Recipient
    render: Render


def notices(outcome: Outcome, reply_to: str | None, *, wallet_online: bool = True) -> list[Notice]:
    """Every message an outcome causes.

    `reply_to` is the `message_id` of the request, None when it did not come over a WebSocket. `wallet_online`: whether
    any device of the wallet is connected, which the till is told while it waits for the PIN.
    """
    if isinstance(outcome, Refused):
        # A scan that came through the API is refused there: its till has asked for nothing.
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
    return MessageError(code, ERROR_TEXTS[code], field=field, reply_to=reply_to, retry_after_s=retry_after_s)


def status_notice(number: int, status: TerminalStatus | WalletStatus) -> Notice:
    """Tells the terminal, or all devices of the wallet, of this number what its status is now."""
    if isinstance(status, TerminalStatus):
        kind, key = TERMINAL, f"cashier.terminal_{status}"
    else:
        kind, key = WALLET, f"customer.wallet_{status}"
    return Notice(
        Recipient(kind, number), lambda language: StatusChanged(status=status.value, text=text(language, key))
    )


def asker_of(operation: Operation) -> Recipient | None:
    """The device that asked for an operation; None for the API and the sweeper."""
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
    # A scan that is sent again tells both sides again; of anything else, nobody but who asked.
    only_asker = decided.replayed and not isinstance(decided.operation, Scan)

    at_till = partial(terminal_notice, payment, wallet_online=wallet_online)
    told = []
    number = payment.terminal_number
    if asker is not None and asker.kind is TERMINAL:
        told.append(Notice(asker, partial(at_till, reply_to)))
        if asker.number == number:
            number = None
    if number is not None and not only_asker and not _is_between_customer_and_server(decided):
        told.append(Notice(Recipient(TERMINAL, number), partial(at_till, None)))
    if wallet is None:
        return told
    on_phone = partial(
        wallet_notice, payment, acceptor.merchant_name, acceptor.store_name, wallet, decided.pin_tries_left
    )
    others = Recipient(WALLET, wallet.number)
    if asker is not None and asker.kind is WALLET:
        told.append(Notice(asker, partial(on_phone, reply_to)))
        others = Recipient(WALLET, wallet.number, not_slot=asker.slot)
    if not only_asker:
        told.append(Notice(others, partial(on_phone, None)))
    return told


def _is_between_customer_and_server(decided: Decided) -> bool:
    """A wrong PIN: the till learns nothing from it."""
    return isinstance(decided.operation, Confirm) and decided.payment.status is PENDING


def _refund_notices(refunded: Refunded, reply_to: str | None) -> list[Notice]:
    asker = asker_of(refunded.operation)
    told = []
    if asker is not None:
        told.append(Notice(asker, partial(_refund_at_till, refunded, reply_to)))
    if refunded.replayed:
        return told
    number = refunded.payment.terminal_number
    if number is not None and (asker is None or asker.number != number):
        told.append(Notice(Recipient(TERMINAL, number), partial(_refund_at_till, refunded, None)))
    wallet = Recipient(WALLET, refunded.wallet.number)
    told.append(Notice(wallet, partial(_refund_on_phone, refunded)))
    return told


def _refund_at_till(refunded: Refunded, reply_to: str | None, language: str) -> TerminalRefundResult:
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


def _refund_on_phone(refunded: Refunded, language: str) -> WalletRefundResult:
    refund, payment, acceptor = refunded.refund, refunded.payment, refunded.acceptor
    amount = format_amount(refund.amount_minor, refund.currency)
    return WalletRefundResult(
        refund_id=refund.refund_id,
        payment_id=payment.payment_id,
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
    """What the till hears of a payment; `reply_to` is None when it did not ask on this connection."""
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
    """A shift's report for the till: the X-report while it is open, then the Z-report."""
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
    """What the customer hears of a payment; the balance is that of now."""
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
