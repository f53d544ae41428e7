"""Decisions about payments that wait for a PIN: confirm, reject, expire."""

from msgspec.structs import replace

from ..errors import ErrorCode
from .batch import Batch, change_status, replayed_outcome
from .declines import DeclineCode
from .operations import Confirm, Decided, Expire, Outcome, Refused, Reject
from .payment import Payment, Status
from .postings import transfer_money
from .rules import count_wrong_pin, decline_reason, is_pin_locked, start_day
from .snapshot import MerchantStatus, TerminalStatus, Wallet


def decide_confirm(batch: Batch, confirm: Confirm) -> Outcome:
    """Decide a confirmation: a correct PIN decides the payment again and charges it; a wrong PIN is counted.

    Wrong PINs count both for the payment and for the wallet.
    """
    payment = _payment_of_wallet(batch, confirm)
    if payment is None:
        return Refused(confirm, ErrorCode.PAYMENT_UNKNOWN)
    if payment.status is not Status.PENDING or payment.version != confirm.version:
        return replayed_outcome(batch, confirm, payment)
    if _has_expired(batch, payment):
        return change_status(batch, confirm, payment, Status.EXPIRED)
    wallet = start_day(batch.snapshot.wallets[confirm.wallet_number], batch.day_start_ms)
    if is_pin_locked(wallet, batch.now_ms):
        return change_status(batch, confirm, payment, Status.DECLINED, DeclineCode.PIN_LOCKED)
    if wallet.pin_generation != confirm.pin_generation:
        return Refused(confirm, ErrorCode.BUSY)  # the PIN was changed after it was checked
    if not confirm.pin_correct:
        return _decide_wrong_pin(batch, confirm, payment, wallet)
    wallet = replace(wallet, pin_failures=0)
    limits = batch.rules.limits_for(wallet, payment.currency)
    decline = _acceptor_decline(batch, payment) or decline_reason(
        wallet, payment.amount_minor, payment.currency, payment.purpose, limits
    )
    if decline is not None:
        batch.put_wallet(replace(wallet, version=wallet.version + 1))
        return change_status(batch, confirm, payment, Status.DECLINED, decline)
    approved_payment = replace(payment, approved_at_ms=batch.now_ms)
    outcome = change_status(batch, confirm, approved_payment, Status.APPROVED)
    transfer_money(batch, outcome.payment, wallet, pin_free=False)
    return replace(outcome, wallet=batch.snapshot.wallets[confirm.wallet_number])


def decide_reject(batch: Batch, reject: Reject) -> Outcome:
    """Decline a payment that the customer rejects, unless it is no longer pending."""
    payment = _payment_of_wallet(batch, reject)
    if payment is None:
        return Refused(reject, ErrorCode.PAYMENT_UNKNOWN)
    if payment.status is not Status.PENDING:
        return replayed_outcome(batch, reject, payment)
    if _has_expired(batch, payment):
        return change_status(batch, reject, payment, Status.EXPIRED)
    return change_status(batch, reject, payment, Status.DECLINED, DeclineCode.CUSTOMER_REJECTED)


def decide_expire(batch: Batch, expire: Expire) -> Outcome:
    """Expire a payment whose time for the PIN has passed, unless it is no longer pending."""
    payment = batch.snapshot.payments.get((expire.merchant_id, expire.payment_id))
    if payment is None:
        return Refused(expire, ErrorCode.PAYMENT_UNKNOWN)
    if payment.status is not Status.PENDING or not _has_expired(batch, payment):
        return replayed_outcome(batch, expire, payment)
    return change_status(batch, expire, payment, Status.EXPIRED)


def _decide_wrong_pin(batch: Batch, confirm: Confirm, payment: Payment, wallet: Wallet) -> Decided:
    wallet = count_wrong_pin(wallet, batch.rules, batch.now_ms)
    batch.put_wallet(wallet)
    payment = replace(payment, pin_failures=payment.pin_failures + 1)
    if is_pin_locked(wallet, batch.now_ms):
        return change_status(batch, confirm, payment, Status.DECLINED, DeclineCode.PIN_LOCKED)
    if payment.pin_failures >= batch.rules.pin_payment_failures_max:
        return change_status(batch, confirm, payment, Status.DECLINED, DeclineCode.PIN_WRONG)
    return change_status(batch, confirm, payment, Status.PENDING)


def _acceptor_decline(batch: Batch, payment: Payment) -> DeclineCode | None:
    acceptor = batch.acceptor_of(payment)
    if acceptor.terminal_status is not TerminalStatus.ACTIVE:
        return DeclineCode.TERMINAL_DISABLED
    return None if acceptor.merchant_status is MerchantStatus.ACTIVE else DeclineCode.MERCHANT_INACTIVE


def _has_expired(batch: Batch, payment: Payment) -> bool:
    return payment.expires_at_ms is not None and payment.expires_at_ms <= batch.now_ms


def _payment_of_wallet(batch: Batch, decision: Confirm | Reject) -> Payment | None:
    payment = batch.snapshot.payments.get((decision.merchant_id, decision.payment_id))
    return payment if payment is not None and payment.wallet_number == decision.wallet_number else None
