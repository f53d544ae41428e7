"""Decides about cancels and refunds: what a till or a merchant takes back, and whether the money still can."""

from uuid import UUID

from msgspec.structs import replace

from ..errors import ErrorCode
from .batch import Batch, decided, moved, unchanged
from .operations import Cancel, CreateRefund, Decided, Outcome, Refunded, Refused
from .payment import Payment, Purpose, Refund, Status
from .postings import give_back, take_back
from .snapshot import TerminalStatus


def decide_cancel(batch: Batch, cancel: Cancel) -> Outcome:
    """A payment taken back whole, with its money if it was approved; or a tombstone, if it was never seen."""
    acceptor = None if cancel.terminal_number is None else batch.snapshot.terminals[cancel.terminal_number]
    if acceptor is not None and acceptor.terminal_status is not TerminalStatus.ACTIVE:
        return Refused(cancel, ErrorCode.TERMINAL_DISABLED)
    payment_id = _to_cancel(batch, cancel)
    if payment_id in batch.snapshot.archived:
        return Refused(cancel, ErrorCode.PAYMENT_ARCHIVED)
    payment = None if payment_id is None else batch.snapshot.payments.get(payment_id)
    if payment is None:
        return _tombstone(batch, cancel)
    if payment.merchant_id != cancel.merchant_id:
        return Refused(cancel, ErrorCode.ID_REUSED)
    if payment.status is Status.PENDING:
        return moved(batch, cancel, payment, Status.CANCELED)
    if payment.status is not Status.APPROVED:
        return unchanged(batch, cancel, payment)
    if payment.refunded_minor:
        return Refused(cancel, ErrorCode.ALREADY_REFUNDED)
    if _age_ms(batch, payment) > batch.rules.cancel_window_ms:
        return Refused(cancel, ErrorCode.CANCEL_TOO_LATE)
    if payment.purpose is Purpose.TOP_UP and _balance_minor(batch, payment) < payment.amount_minor:
        return Refused(cancel, ErrorCode.FUNDS_SPENT)
    take_back(batch, payment)
    payment = replace(payment, canceled_shift_id=batch.join_shift(cancel.terminal_number))
    return moved(batch, cancel, payment, Status.CANCELED)


def decide_refund(batch: Batch, refund_request: CreateRefund) -> Outcome:
    """Some of an approved payment given back; or the refund that is stored under this id."""
    payment = batch.snapshot.payments.get(refund_request.payment_id)
    stored = batch.snapshot.refunds.get(refund_request.refund_id)
    if stored is not None and (stored.payment_id, stored.merchant_id, stored.amount_minor) != (
        refund_request.payment_id,
        refund_request.merchant_id,
        refund_request.amount_minor,
    ):
        return Refused(refund_request, ErrorCode.ID_REUSED)
    if refund_request.payment_id in batch.snapshot.archived:
        return Refused(refund_request, ErrorCode.PAYMENT_ARCHIVED)
    if refund_request.refund_id in batch.snapshot.archived_refunds:
        return Refused(refund_request, ErrorCode.ID_REUSED)
    if payment is None or payment.merchant_id != refund_request.merchant_id or payment.is_tombstone:
        return Refused(refund_request, ErrorCode.PAYMENT_UNKNOWN)
    if stored is not None:
        return _refunded(batch, refund_request, stored, payment, replayed=True)
    refusal = _why_not_refund(batch, refund_request, payment)
    if refusal is not None:
        return Refused(refund_request, refusal)
    refund = Refund(
        refund_id=refund_request.refund_id,
        payment_id=payment.payment_id,
        merchant_id=payment.merchant_id,
        terminal_number=refund_request.terminal_number,
        wallet_number=give_back(batch, payment, refund_request.refund_id, refund_request.amount_minor).number,
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
    return _refunded(batch, refund_request, refund, payment)


def _to_cancel(batch: Batch, cancel: Cancel) -> UUID | None:
    if cancel.payment_id is not None:
        return cancel.payment_id
    occupant = batch.snapshot.open_payments.get((cancel.merchant_id, cancel.reference or ""))
    return occupant.payment_id if occupant else None


def _tombstone(batch: Batch, cancel: Cancel) -> Decided:
    """A payment that is canceled before it exists: what comes late finds it closed."""
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
    return decided(batch, cancel, payment)


def _why_not_refund(batch: Batch, refund_request: CreateRefund, payment: Payment) -> ErrorCode | None:
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


def _refunded(
    batch: Batch, refund_request: CreateRefund, refund: Refund, payment: Payment, *, replayed: bool = False
) -> Refunded:
    acceptor, wallet = batch.acceptor_of(payment), batch.snapshot.wallets[refund.wallet_number]
    return Refunded(refund_request, refund, payment, acceptor, wallet, replayed)


def _balance_minor(batch: Batch, payment: Payment) -> int:
    wallet = None if payment.wallet_number is None else batch.snapshot.wallets.get(payment.wallet_number)
    return wallet.balance_minor if wallet else 0


def _age_ms(batch: Batch, payment: Payment) -> int:
    return batch.now_ms - (payment.approved_at_ms or 0)
