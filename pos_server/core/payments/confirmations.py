"""Decides what becomes of a payment that waits for its PIN: confirmed, rejected, or its time is over."""

from uuid import UUID

from msgspec.structs import replace

from ..errors import ErrorCode
from .batch import Batch, moved, unchanged
from .operations import Confirm, Decided, Expire, Outcome, Refused, Reject
from .payment import DeclineCode, Payment, Status
from .postings import transfer_money
from .rules import after_wrong_pin, is_pin_locked, today, why_not
from .snapshot import MerchantStatus, TerminalStatus, Wallet


def decide_confirm(batch: Batch, confirm: Confirm) -> Outcome:
    """A right PIN decides the payment again and charges it; a wrong one counts, for the payment and for the wallet."""
    payment = _of_wallet(batch, confirm.payment_id, confirm.wallet_number)
    if payment is None:
        return Refused(confirm, ErrorCode.PAYMENT_UNKNOWN)
    if payment.status is not Status.PENDING or payment.version != confirm.version:
        return unchanged(batch, confirm, payment)
    if _is_over(batch, payment):
        return moved(batch, confirm, payment, Status.EXPIRED)
    wallet = today(batch.snapshot.wallets[confirm.wallet_number], batch.day_start_ms)
    if is_pin_locked(wallet, batch.now_ms):
        return moved(batch, confirm, payment, Status.DECLINED, DeclineCode.PIN_LOCKED)
    if wallet.pin_generation != confirm.pin_generation:
        return Refused(confirm, ErrorCode.BUSY)  # the PIN was changed since it was checked
    if not confirm.pin_correct:
        return _wrong_pin(batch, confirm, payment, wallet)
    wallet = replace(wallet, pin_failures=0)
    limits = batch.rules.limits_for(wallet, payment.currency)
    decline = _till_closed(batch, payment) or why_not(
        wallet, payment.amount_minor, payment.currency, payment.purpose, limits
    )
    if decline is not None:
        batch.put_wallet(replace(wallet, version=wallet.version + 1))
        return moved(batch, confirm, payment, Status.DECLINED, decline)
    approved = replace(payment, approved_at_ms=batch.now_ms)
    outcome = moved(batch, confirm, approved, Status.APPROVED)
    transfer_money(batch, outcome.payment, wallet, pin_free=False)
    return replace(outcome, wallet=batch.snapshot.wallets[confirm.wallet_number])


def decide_reject(batch: Batch, reject: Reject) -> Outcome:
    """The customer does not want to pay: declined, unless the payment has an outcome already."""
    payment = _of_wallet(batch, reject.payment_id, reject.wallet_number)
    if payment is None:
        return Refused(reject, ErrorCode.PAYMENT_UNKNOWN)
    if payment.status is not Status.PENDING:
        return unchanged(batch, reject, payment)
    if _is_over(batch, payment):
        return moved(batch, reject, payment, Status.EXPIRED)
    return moved(batch, reject, payment, Status.DECLINED, DeclineCode.CUSTOMER_REJECTED)


def decide_expire(batch: Batch, expire: Expire) -> Outcome:
    """The time for the PIN is over, if it is: the payment expires, unless it has an outcome already."""
    payment = batch.snapshot.payments.get(expire.payment_id)
    if payment is None:
        return Refused(expire, ErrorCode.PAYMENT_UNKNOWN)
    if payment.status is not Status.PENDING or not _is_over(batch, payment):
        return unchanged(batch, expire, payment)
    return moved(batch, expire, payment, Status.EXPIRED)


def _wrong_pin(batch: Batch, confirm: Confirm, payment: Payment, wallet: Wallet) -> Decided:
    wallet = after_wrong_pin(wallet, batch.rules, batch.now_ms)
    batch.put_wallet(wallet)
    payment = replace(payment, pin_failures=payment.pin_failures + 1)
    if is_pin_locked(wallet, batch.now_ms):
        return moved(batch, confirm, payment, Status.DECLINED, DeclineCode.PIN_LOCKED)
    if payment.pin_failures >= batch.rules.pin_payment_failures_max:
        return moved(batch, confirm, payment, Status.DECLINED, DeclineCode.PIN_WRONG)
    return moved(batch, confirm, payment, Status.PENDING)


def _till_closed(batch: Batch, payment: Payment) -> DeclineCode | None:
    acceptor = batch.acceptor_of(payment)
    if acceptor.terminal_status is not TerminalStatus.ACTIVE:
        return DeclineCode.TERMINAL_DISABLED
    return None if acceptor.merchant_status is MerchantStatus.ACTIVE else DeclineCode.MERCHANT_INACTIVE


def _is_over(batch: Batch, payment: Payment) -> bool:
    return payment.expires_at_ms is not None and payment.expires_at_ms <= batch.now_ms


def _of_wallet(batch: Batch, payment_id: UUID, wallet_number: int) -> Payment | None:
    payment = batch.snapshot.payments.get(payment_id)
    return payment if payment is not None and payment.wallet_number == wallet_number else None
