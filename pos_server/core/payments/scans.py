"""Decisions about scans and cash movements by a back office.

A scan is checked in this order: repeat of a stored payment, terminal and merchant, code, order, wallet and limits, risk
hook, PIN.
"""

from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from ..credentials import payment_code
from ..credentials.device_keys import WALLET, DeviceId, Keyring
from ..errors import ErrorCode
from .batch import Batch, decided_outcome, replayed_outcome
from .declines import DeclineCode
from .fees import sale_fee
from .operations import TYPED, Decided, MoveCash, Outcome, Refused, Scan
from .payment import (
    APPROVED,
    CANCELED,
    DECLINED,
    PENDING,
    SALE,
    WITHDRAWAL,
    Payment,
)
from .postings import transfer_money
from .rules import ASK_PIN, REJECT, Limits, decline_reason, is_pin_free, is_pin_locked, start_day
from .snapshot import DeviceStatus, MerchantStatus, Snapshot, TerminalStatus, Wallet, WalletDevice

# Module-level aliases are faster to look up than enum attributes (see payment.py).
_TERMINAL_ACTIVE: Final = TerminalStatus.ACTIVE
_MERCHANT_ACTIVE: Final = MerchantStatus.ACTIVE
_DEVICE_ACTIVE: Final = DeviceStatus.ACTIVE


class _Verdict(Struct, frozen=True, gc=False):
    """The result of the checks of a new scan; approved if `decline` is None and no PIN is needed.

    `wallet` is None unless the code was verified, so a forged code never notifies the wallet's owner. `spent_device` is
    the wallet device with the code marked as spent.
    """

    decline: DeclineCode | None
    wallet: Wallet | None = None
    spent_device: WalletDevice | None = None
    needs_pin: bool = False


def decide_scan(batch: Batch, scan: Scan) -> Outcome:
    """Approve, decline or hold a scanned payment for its PIN, or return the payment already stored under this id."""
    key = scan.merchant_id, scan.payment_id
    if key in batch.snapshot.archived:
        return Refused(scan, ErrorCode.PAYMENT_ARCHIVED)
    stored = batch.snapshot.payments.get(key)
    if stored is not None and not _is_canceled_by_id(stored):
        return _repeat_outcome(batch, scan, stored)
    verdict = _judge_scan(batch, scan, is_canceled=stored is not None)
    if verdict.spent_device is not None:
        batch.put_device(verdict.spent_device)
    return _store_payment(batch, scan, scan.terminal_number, verdict, version=stored.version + 1 if stored else 1)


def decide_move_cash(batch: Batch, move: MoveCash) -> Outcome:
    """Approve or decline a back office's top-up or withdrawal, or return the payment already stored under this id."""
    key = move.merchant_id, move.payment_id
    if key in batch.snapshot.archived:
        return Refused(move, ErrorCode.PAYMENT_ARCHIVED)
    stored = batch.snapshot.payments.get(key)
    if stored is not None and not _is_canceled_by_id(stored):
        return _repeat_outcome(batch, move, stored)
    wallet = batch.snapshot.wallets.get(move.wallet_number)
    if wallet is None:
        return Refused(move, ErrorCode.WALLET_UNKNOWN)
    wallet = start_day(wallet, batch.day_start_ms)
    limits = batch.rules.limits_for(wallet, move.currency)
    if batch.snapshot.back_offices[move.merchant_id].merchant_status is not MerchantStatus.ACTIVE:
        decline: DeclineCode | None = DeclineCode.MERCHANT_INACTIVE
    else:
        decline = _order_decline(batch.snapshot, move, is_canceled=stored is not None) or decline_reason(
            wallet, move.amount_minor, move.currency, move.purpose, limits
        )
    return _store_payment(batch, move, None, _Verdict(decline, wallet), version=stored.version + 1 if stored else 1)


def _repeat_outcome(batch: Batch, operation: Scan | MoveCash, stored: Payment) -> Outcome:
    if stored.fingerprint != operation.fingerprint:
        return Refused(operation, ErrorCode.ID_REUSED)
    return replayed_outcome(batch, operation, stored)


def _store_payment(
    batch: Batch, operation: Scan | MoveCash, terminal_number: int | None, verdict: _Verdict, version: int
) -> Decided:
    """Store the payment for a verdict, and transfer its money if it is approved."""
    occupant = batch.snapshot.open_payments.get((operation.merchant_id, operation.reference))
    is_occupied = occupant is not None and verdict.decline in (DeclineCode.ALREADY_PAID, DeclineCode.ALREADY_PENDING)
    is_approved = verdict.decline is None and not verdict.needs_pin
    acceptor = (
        batch.snapshot.back_offices[operation.merchant_id]
        if terminal_number is None
        else batch.snapshot.terminals[terminal_number]
    )
    is_sale = verdict.decline is None and operation.purpose is SALE
    payment = Payment(
        payment_id=operation.payment_id,
        fingerprint=operation.fingerprint,
        terminal_number=terminal_number,
        merchant_id=operation.merchant_id,
        wallet_number=verdict.wallet.number if verdict.wallet else None,
        reference=operation.reference,
        amount_minor=operation.amount_minor,
        currency=operation.currency,
        status=PENDING if verdict.needs_pin else APPROVED if is_approved else DECLINED,
        decline_code=verdict.decline,
        paid_by=occupant.payment_id if occupant and is_occupied else None,
        version=version,
        changed_at_ms=batch.now_ms,
        approved_at_ms=batch.now_ms if is_approved else None,
        expires_at_ms=batch.now_ms + batch.rules.confirmation_ms if verdict.needs_pin else None,
        purpose=operation.purpose,
        fee_minor=sale_fee(operation.amount_minor, acceptor.fee_bps, acceptor.fee_fixed_minor) if is_sale else 0,
        shift_id=batch.join_shift(terminal_number),
    )
    batch.put_payment(payment)
    if verdict.wallet is not None and is_approved:
        transfer_money(batch, payment, verdict.wallet, pin_free=operation.purpose is SALE)
    elif verdict.wallet is not None:
        # The wallet's version guards the spent code, so it changes even if no money moves.
        batch.put_wallet(replace(verdict.wallet, version=verdict.wallet.version + 1))
    return decided_outcome(batch, operation, payment)


def _is_canceled_by_id(stored: Payment) -> bool:
    """Return whether the merchant canceled this `payment_id` before its scan.

    A tombstone with a reference has an id made by the server and is found through the order instead.
    """
    return stored.is_tombstone and stored.reference is None


def _judge_scan(batch: Batch, scan: Scan, *, is_canceled: bool) -> _Verdict:
    snapshot = batch.snapshot
    acceptor = snapshot.terminals[scan.terminal_number]
    if acceptor.terminal_status is not _TERMINAL_ACTIVE:
        return _Verdict(DeclineCode.TERMINAL_DISABLED)
    if acceptor.merchant_status is not _MERCHANT_ACTIVE:
        return _Verdict(DeclineCode.MERCHANT_INACTIVE)
    code = scan.parsed_code
    if code is None:
        return _Verdict(DeclineCode.CODE_MALFORMED)
    wallet = snapshot.wallets.get(code.wallet_number)
    device = snapshot.devices.get((code.wallet_number, code.slot))
    device_key = _device_key(batch.keyring, device)
    if wallet is None or device is None or device_key is None:
        return _Verdict(DeclineCode.CODE_INVALID)
    now_step = payment_code.step_at(batch.now_ms / 1000)
    check, step = payment_code.check(code, device_key, now_step, batch.rules.code_expired_steps)
    if check is payment_code.INVALID:
        return _Verdict(DeclineCode.CODE_INVALID)

    mark = payment_code.spent_mark(step, code.seq)
    spent_device = replace(device, spent_mark=max(mark, device.spent_mark))
    wallet = start_day(wallet, batch.day_start_ms)
    limits = batch.rules.limits_for(wallet, scan.currency)
    decline: DeclineCode | None
    if check is payment_code.EXPIRED:
        decline = DeclineCode.CODE_EXPIRED
    elif mark <= device.spent_mark:
        decline = DeclineCode.CODE_USED
    else:
        decline = _order_decline(snapshot, scan, is_canceled=is_canceled) or decline_reason(
            wallet, scan.amount_minor, scan.currency, scan.purpose, limits
        )
    if decline is not None:
        return _Verdict(decline, wallet, spent_device)
    risk = batch.rules.risk(scan, wallet)
    if risk is REJECT:
        return _Verdict(DeclineCode.RISK_REJECTED, wallet, spent_device)
    needs_pin = risk is ASK_PIN or _needs_pin(scan, wallet, limits)
    if needs_pin and is_pin_locked(wallet, batch.now_ms):
        return _Verdict(DeclineCode.PIN_LOCKED, wallet, spent_device)
    return _Verdict(None, wallet, spent_device, needs_pin)


def _needs_pin(scan: Scan, wallet: Wallet, limits: Limits) -> bool:
    """Return whether a scan needs the PIN. A top-up never does; a withdrawal always does, as cash cannot be traced."""
    if scan.purpose is not SALE:
        return scan.purpose is WITHDRAWAL
    return scan.entry is TYPED or not is_pin_free(wallet, scan.amount_minor, limits)


def _order_decline(snapshot: Snapshot, scan: Scan | MoveCash, *, is_canceled: bool) -> DeclineCode | None:
    """Return why the order cannot be paid: it is canceled, paid or pending; None if it is open."""
    occupant = snapshot.open_payments.get((scan.merchant_id, scan.reference))
    if is_canceled or (occupant and occupant.status is CANCELED):
        return DeclineCode.CANCELED
    if occupant is None:
        return None
    return DeclineCode.ALREADY_PENDING if occupant.status is PENDING else DeclineCode.ALREADY_PAID


def _device_key(keyring: Keyring, device: WalletDevice | None) -> bytes | None:
    if device is None or device.status is not _DEVICE_ACTIVE:
        return None
    wallet_device = DeviceId(WALLET, device.wallet_number, device.slot)
    return keyring.device_key(device.kid, wallet_device, device.generation)
