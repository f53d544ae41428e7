"""Decisions about cancels and refunds."""

from uuid import UUID

from msgspec.structs import replace

from ..errors import ErrorCode
from .batch import Batch, change_status, decided_outcome, replayed_outcome
from .operations import Cancel, CreateRefund, Decided, Outcome, Refunded, Refused
from .payment import Payment, Purpose, Refund, Status
from .postings import refund_money, reverse_payment
from .snapshot import TerminalStatus


def decide_cancel(batch: Batch, cancel: Cancel) -> Outcome:
    """Cancel a payment and, if it was approved, transfer its money back; store a tombstone for an unknown payment."""
    acceptor = None if cancel.terminal_number is None else batch.snapshot.terminals[cancel.terminal_number]
    if acceptor is not None and acceptor.terminal_status is not TerminalStatus.ACTIVE:
        return Refused(cancel, ErrorCode.TERMINAL_DISABLED)
    payment_id = _payment_id_to_cancel(batch, cancel)
    if payment_id is None:
        return _store_tombstone(batch, cancel)
    key = cancel.merchant_id, payment_id
    if key in batch.snapshot.archived:
        return Refused(cancel, ErrorCode.PAYMENT_ARCHIVED)
    payment = batch.snapshot.payments.get(key)
    if payment is None:
        return _store_tombstone(batch, cancel)
    if payment.status is Status.PENDING:
        return change_status(batch, cancel, payment, Status.CANCELED)
    if payment.status is not Status.APPROVED:
        return replayed_outcome(batch, cancel, payment)
    if payment.refunded_minor:
        return Refused(cancel, ErrorCode.ALREADY_REFUNDED)
    if _age_ms(batch, payment) > batch.rules.cancel_window_ms:
        return Refused(cancel, ErrorCode.CANCEL_TOO_LATE)
    if payment.purpose is Purpose.TOP_UP and _balance_minor(batch, payment) < payment.amount_minor:
        return Refused(cancel, ErrorCode.FUNDS_SPENT)
    reverse_payment(batch, payment)
    payment = replace(payment, canceled_shift_id=batch.join_shift(cancel.terminal_number))
    return change_status(batch, cancel, payment, Status.CANCELED)


def decide_refund(batch: Batch, refund_request: CreateRefund) -> Outcome:
    """Refund part of an approved payment, or return the refund that is already stored under this id."""
    payment_key = refund_request.merchant_id, refund_request.payment_id
    refund_key = refund_request.merchant_id, refund_request.refund_id
    payment = batch.snapshot.payments.get(payment_key)
    stored_refund = batch.snapshot.refunds.get(refund_key)
    if stored_refund is not None and not _is_repeat(refund_request, stored_refund):
        return Refused(refund_request, ErrorCode.ID_REUSED)
    if payment_key in batch.snapshot.archived:
        return Refused(refund_request, ErrorCode.PAYMENT_ARCHIVED)
    if refund_key in batch.snapshot.archived_refunds:
        return Refused(refund_request, ErrorCode.ID_REUSED)
    if payment is None or payment.is_tombstone:
        return Refused(refund_request, ErrorCode.PAYMENT_UNKNOWN)
    if stored_refund is not None:
        return _refunded_outcome(batch, refund_request, stored_refund, payment, replayed=True)
    refusal = _refusal_reason(batch, refund_request, payment)
    if refusal is not None:
        return Refused(refund_request, refusal)
    refund = Refund(
        refund_id=refund_request.refund_id,
        payment_id=payment.payment_id,
        merchant_id=payment.merchant_id,
        terminal_number=refund_request.terminal_number,
        wallet_number=refund_money(batch, payment, refund_request.refund_id, refund_request.amount_minor).number,
        amount_minor=refund_request.amount_minor,
        currency=payment.currency,
        created_at_ms=batch.now_ms,
        shift_id=batch.join_shift(refund_request.terminal_number),
    )
    payment = replace(
        payment,
        refunded_minor=payment.refunded_minor + refund_request.amount_minor,
        refunds=payment.refunds + 1,
        version=payment.version + 1,
        changed_at_ms=batch.now_ms,
    )
    batch.put_refund(refund)
    batch.put_payment(payment)
    return _refunded_outcome(batch, refund_request, refund, payment)


def _is_repeat(refund_request: CreateRefund, stored_refund: Refund) -> bool:
    return (
        refund_request.payment_id == stored_refund.payment_id
        and refund_request.amount_minor == stored_refund.amount_minor
    )


def _payment_id_to_cancel(batch: Batch, cancel: Cancel) -> UUID | None:
    if cancel.payment_id is not None:
        return cancel.payment_id
    occupant = batch.snapshot.open_payments.get((cancel.merchant_id, cancel.reference or ""))
    return occupant.payment_id if occupant else None


def _store_tombstone(batch: Batch, cancel: Cancel) -> Decided:
    """Store a payment that is canceled before its scan, so that the late scan is declined."""
    payment = Payment(
        payment_id=cancel.payment_id or cancel.tombstone_id,
        fingerprint=None,
        terminal_number=cancel.terminal_number,
        merchant_id=cancel.merchant_id,
        wallet_number=None,
        reference=cancel.reference,
        amount_minor=0,
        currency=cancel.currency,
        status=Status.CANCELED,
        decline_code=None,
        paid_by=None,
        version=1,
        changed_at_ms=batch.now_ms,
    )
    batch.put_payment(payment)
    return decided_outcome(batch, cancel, payment)


def _refusal_reason(batch: Batch, refund_request: CreateRefund, payment: Payment) -> ErrorCode | None:
    acceptor = (
        None if refund_request.terminal_number is None else batch.snapshot.terminals[refund_request.terminal_number]
    )
    if acceptor is not None and acceptor.terminal_status is not TerminalStatus.ACTIVE:
        return ErrorCode.TERMINAL_DISABLED
    if payment.status is not Status.APPROVED or payment.purpose is not Purpose.SALE:
        return ErrorCode.NOT_REFUNDABLE
    if _age_ms(batch, payment) > batch.rules.refund_window_ms:
        return ErrorCode.REFUND_TOO_LATE
    if payment.refunds >= batch.rules.refunds_max:
        return ErrorCode.TOO_MANY_REFUNDS
    return ErrorCode.REFUND_EXCEEDS_REMAINING if refund_request.amount_minor > payment.refundable_minor else None


def _refunded_outcome(
    batch: Batch, refund_request: CreateRefund, refund: Refund, payment: Payment, *, replayed: bool = False
) -> Refunded:
    acceptor, wallet = batch.acceptor_of(payment), batch.snapshot.wallets[refund.wallet_number]
    return Refunded(refund_request, refund, payment, acceptor, wallet, replayed)


def _balance_minor(batch: Batch, payment: Payment) -> int:
    wallet = None if payment.wallet_number is None else batch.snapshot.wallets.get(payment.wallet_number)
    return wallet.balance_minor if wallet else 0


def _age_ms(batch: Batch, payment: Payment) -> int:
    return batch.now_ms - (payment.approved_at_ms or 0)
