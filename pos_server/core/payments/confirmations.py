"""Decides what becomes of a payment that waits for its PIN: confirmed, rejected, or its time is over."""

from uuid import UUID

from msgspec.structs import replace

from ..errors import ErrorCode
from .batch import Desk, moved, unchanged
from .operations import Confirm, Decided, Expire, Outcome, Refused, Reject
from .payment import DeclineCode, Payment, Status
from .postings import carry_out
from .rules import after_wrong_pin, is_pin_locked, today, why_not
from .snapshot import MerchantStatus, TerminalStatus, Wallet


def decide_confirm(desk: Desk, confirm: Confirm) -> Outcome:
    """A right PIN decides the payment again and charges it; a wrong one counts, for the payment and for the wallet."""
    payment = _of_wallet(desk, confirm.payment_id, confirm.wallet_number)
    if payment is None:
        return Refused(confirm, ErrorCode.PAYMENT_UNKNOWN)
    if payment.status is not Status.PENDING or payment.version != confirm.version:
        return unchanged(desk, confirm, payment)
    if _is_over(desk, payment):
        return moved(desk, confirm, payment, Status.EXPIRED)
    wallet = today(desk.book.wallets[confirm.wallet_number], desk.day_start_ms)
    if is_pin_locked(wallet, desk.now_ms):
        return moved(desk, confirm, payment, Status.DECLINED, DeclineCode.PIN_LOCKED)
    if wallet.pin_generation != confirm.pin_generation:
        return Refused(confirm, ErrorCode.BUSY)  # the PIN was changed since it was checked
    if not confirm.pin_correct:
        return _wrong_pin(desk, confirm, payment, wallet)
    wallet = replace(wallet, pin_failures=0)
    limits = desk.rules.limits_for(wallet, payment.currency)
    decline = _till_closed(desk, payment) or why_not(
        wallet, payment.amount_minor, payment.currency, payment.purpose, limits
    )
    if decline is not None:
        desk.entries.put_wallet(replace(wallet, version=wallet.version + 1))
        return moved(desk, confirm, payment, Status.DECLINED, decline)
    approved = replace(payment, approved_at_ms=desk.now_ms)
    outcome = moved(desk, confirm, approved, Status.APPROVED)
    carry_out(desk, outcome.payment, wallet, pin_free=False)
    return replace(outcome, wallet=desk.book.wallets[confirm.wallet_number])


def decide_reject(desk: Desk, reject: Reject) -> Outcome:
    """The customer does not want to pay: declined, unless the payment has an outcome already."""
    payment = _of_wallet(desk, reject.payment_id, reject.wallet_number)
    if payment is None:
        return Refused(reject, ErrorCode.PAYMENT_UNKNOWN)
    if payment.status is not Status.PENDING:
        return unchanged(desk, reject, payment)
    if _is_over(desk, payment):
        return moved(desk, reject, payment, Status.EXPIRED)
    return moved(desk, reject, payment, Status.DECLINED, DeclineCode.CUSTOMER_REJECTED)


def decide_expire(desk: Desk, expire: Expire) -> Outcome:
    """The time for the PIN is over, if it is: the payment expires, unless it has an outcome already."""
    payment = desk.book.payments.get(expire.payment_id)
    if payment is None:
        return Refused(expire, ErrorCode.PAYMENT_UNKNOWN)
    if payment.status is not Status.PENDING or not _is_over(desk, payment):
        return unchanged(desk, expire, payment)
    return moved(desk, expire, payment, Status.EXPIRED)


def _wrong_pin(desk: Desk, confirm: Confirm, payment: Payment, wallet: Wallet) -> Decided:
    wallet = after_wrong_pin(wallet, desk.rules, desk.now_ms)
    desk.entries.put_wallet(wallet)
    payment = replace(payment, pin_failures=payment.pin_failures + 1)
    if is_pin_locked(wallet, desk.now_ms):
        return moved(desk, confirm, payment, Status.DECLINED, DeclineCode.PIN_LOCKED)
    if payment.pin_failures >= desk.rules.pin_payment_failures_max:
        return moved(desk, confirm, payment, Status.DECLINED, DeclineCode.PIN_WRONG)
    return moved(desk, confirm, payment, Status.PENDING)


def _till_closed(desk: Desk, payment: Payment) -> DeclineCode | None:
    till = desk.entries.till_of(payment)
    if till.terminal_status is not TerminalStatus.ACTIVE:
        return DeclineCode.TERMINAL_DISABLED
    return None if till.merchant_status is MerchantStatus.ACTIVE else DeclineCode.MERCHANT_INACTIVE


def _is_over(desk: Desk, payment: Payment) -> bool:
    return payment.expires_at_ms is not None and payment.expires_at_ms <= desk.now_ms


def _of_wallet(desk: Desk, payment_id: UUID, wallet_number: int) -> Payment | None:
    payment = desk.book.payments.get(payment_id)
    return payment if payment is not None and payment.wallet_number == wallet_number else None
