"""Decides about cancels and refunds: what a till or a merchant takes back, and whether the money still can."""

from uuid import UUID

from msgspec.structs import replace

from ..errors import ErrorCode
from .batch import Desk, decided, moved, unchanged
from .operations import Cancel, CreateRefund, Decided, Outcome, Refunded, Refused
from .payment import Payment, Purpose, Refund, Status
from .postings import give_back, take_back
from .snapshot import TerminalStatus


def decide_cancel(desk: Desk, cancel: Cancel) -> Outcome:
    """A payment taken back whole, with its money if it was approved; or a tombstone, if it was never seen."""
    till = None if cancel.terminal_number is None else desk.book.tills[cancel.terminal_number]
    if till is not None and till.terminal_status is not TerminalStatus.ACTIVE:
        return Refused(cancel, ErrorCode.TERMINAL_DISABLED)
    payment_id = _to_cancel(desk, cancel)
    if payment_id in desk.book.archived:
        return Refused(cancel, ErrorCode.PAYMENT_ARCHIVED)
    payment = None if payment_id is None else desk.book.payments.get(payment_id)
    if payment is None:
        return _tombstone(desk, cancel)
    if payment.merchant_id != cancel.merchant_id:
        return Refused(cancel, ErrorCode.ID_REUSED)
    if payment.status is Status.PENDING:
        return moved(desk, cancel, payment, Status.CANCELED)
    if payment.status is not Status.APPROVED:
        return unchanged(desk, cancel, payment)
    if payment.refunded_minor:
        return Refused(cancel, ErrorCode.ALREADY_REFUNDED)
    if _age_ms(desk, payment) > desk.rules.cancel_window_ms:
        return Refused(cancel, ErrorCode.CANCEL_TOO_LATE)
    if payment.purpose is Purpose.TOP_UP and _balance_minor(desk, payment) < payment.amount_minor:
        return Refused(cancel, ErrorCode.FUNDS_SPENT)
    take_back(desk, payment)
    payment = replace(payment, canceled_shift_id=desk.entries.join_shift(cancel.terminal_number))
    return moved(desk, cancel, payment, Status.CANCELED)


def decide_refund(desk: Desk, wish: CreateRefund) -> Outcome:
    """Some of an approved payment given back; or the refund that is stored under this id."""
    payment = desk.book.payments.get(wish.payment_id)
    stored = desk.book.refunds.get(wish.refund_id)
    if stored is not None and (stored.payment_id, stored.merchant_id, stored.amount_minor) != (
        wish.payment_id,
        wish.merchant_id,
        wish.amount_minor,
    ):
        return Refused(wish, ErrorCode.ID_REUSED)
    if wish.payment_id in desk.book.archived:
        return Refused(wish, ErrorCode.PAYMENT_ARCHIVED)
    if wish.refund_id in desk.book.archived_refunds:
        return Refused(wish, ErrorCode.ID_REUSED)
    if payment is None or payment.merchant_id != wish.merchant_id or payment.is_tombstone:
        return Refused(wish, ErrorCode.PAYMENT_UNKNOWN)
    if stored is not None:
        return _refunded(desk, wish, stored, payment, replayed=True)
    refusal = _why_not_refund(desk, wish, payment)
    if refusal is not None:
        return Refused(wish, refusal)
    refund = Refund(
        refund_id=wish.refund_id,
        payment_id=payment.payment_id,
        merchant_id=payment.merchant_id,
        terminal_number=wish.terminal_number,
        wallet_number=give_back(desk, payment, wish.refund_id, wish.amount_minor).number,
        amount_minor=wish.amount_minor,
        currency=payment.currency,
        created_at_ms=desk.now_ms,
        shift_id=desk.entries.join_shift(wish.terminal_number),
    )
    payment = replace(
        payment,
        refunded_minor=payment.refunded_minor + wish.amount_minor,
        refunds=payment.refunds + 1,
        version=payment.version + 1,
        changed_at_ms=desk.now_ms,
    )
    desk.entries.put_refund(refund)
    desk.entries.put_payment(payment)
    return _refunded(desk, wish, refund, payment)


def _to_cancel(desk: Desk, cancel: Cancel) -> UUID | None:
    if cancel.payment_id is not None:
        return cancel.payment_id
    occupant = desk.book.open_payments.get((cancel.merchant_id, cancel.reference or ""))
    return occupant.payment_id if occupant else None


def _tombstone(desk: Desk, cancel: Cancel) -> Decided:
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
        changed_at_ms=desk.now_ms,
    )
    desk.entries.put_payment(payment)
    return decided(desk, cancel, payment)


def _why_not_refund(desk: Desk, wish: CreateRefund, payment: Payment) -> ErrorCode | None:
    till = None if wish.terminal_number is None else desk.book.tills[wish.terminal_number]
    if till is not None and till.terminal_status is not TerminalStatus.ACTIVE:
        return ErrorCode.TERMINAL_DISABLED
    if payment.status is not Status.APPROVED or payment.purpose is not Purpose.SALE:
        return ErrorCode.NOT_REFUNDABLE
    if _age_ms(desk, payment) > desk.rules.refund_window_ms:
        return ErrorCode.REFUND_TOO_LATE
    if payment.refunds >= desk.rules.refunds_max:
        return ErrorCode.TOO_MANY_REFUNDS
    return ErrorCode.REFUND_OVER_REST if wish.amount_minor > payment.refundable_minor else None


def _refunded(desk: Desk, wish: CreateRefund, refund: Refund, payment: Payment, *, replayed: bool = False) -> Refunded:
    till, wallet = desk.entries.till_of(payment), desk.book.wallets[refund.wallet_number]
    return Refunded(wish, refund, payment, till, wallet, replayed)


def _balance_minor(desk: Desk, payment: Payment) -> int:
    wallet = None if payment.wallet_number is None else desk.book.wallets.get(payment.wallet_number)
    return wallet.balance_minor if wallet else 0


def _age_ms(desk: Desk, payment: Payment) -> int:
    return desk.now_ms - (payment.approved_at_ms or 0)
