"""Rows and operations for tests of decide(). This module contains no tests.

Merchant 5 has the terminals 11 and 12, merchant 6 has 21. Wallets hold 100.00 EUR; no limit applies by default.
"""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from pos_server.core.credentials import payment_code
from pos_server.core.credentials.device_keys import DeviceId, DeviceKind, Keyring, derive_device_key
from pos_server.core.payments.decide import decide
from pos_server.core.payments.operations import (
    Cancel,
    Confirm,
    CreateRefund,
    Decided,
    Expire,
    Operation,
    Outcome,
    Refunded,
    Refused,
    Reject,
    Scan,
)
from pos_server.core.payments.payment import TRANSITIONS
from pos_server.core.payments.rules import Limits, Rules
from pos_server.core.payments.snapshot import (
    Acceptor,
    Changeset,
    DeviceStatus,
    HouseAccount,
    MerchantStatus,
    Snapshot,
    TerminalStatus,
    Wallet,
    WalletDevice,
    WalletStatus,
)
from tests.copies import replace

STEP = 60_000_000
NOW_MS = STEP * 30_000 + 12_345
DAY_MS = 86_400_000
DAY_START_MS = NOW_MS // DAY_MS * DAY_MS
MASTER_KEY = bytes(range(32))
KEYRING = Keyring({"k1": MASTER_KEY}, current="k1")
WALLET, OTHER_WALLET, UNKNOWN_WALLET = 1_000_000_001, 1_000_000_002, 1_000_000_003
ACCEPTOR = Acceptor(TerminalStatus.ACTIVE, MerchantStatus.ACTIVE, 500, "Corner Canteen", "Main hall")
OTHER_ACCEPTOR = replace(ACCEPTOR, merchant_account_id=600, merchant_name="Kiosk")
CASH_IN, PAYOUT, FEES = 90, 91, 92
HOUSE = {
    (HouseAccount.CASH_IN, "EUR"): CASH_IN,
    (HouseAccount.PAYOUT, "EUR"): PAYOUT,
    (HouseAccount.FEES, "EUR"): FEES,
}
NO_LIMIT = 2**53 - 1
WIDE = Rules(Limits(NO_LIMIT, NO_LIMIT, NO_LIMIT, NO_LIMIT, NO_LIMIT), code_expired_steps=20)
# Payments above 10.00 EUR wait for the PIN.
ASKING = replace(WIDE, limits=replace(WIDE.limits, pin_free_minor_max=1_000))


def payment_id(number: int) -> UUID:
    return UUID(int=number)


def key(number: int, merchant: int = 5) -> tuple[int, UUID]:
    """Return the key of a payment or refund."""
    return merchant, payment_id(number)


def code(seq: int = 0, *, step: int = STEP, wallet: int = WALLET, slot: int = 0, generation: int = 1) -> str:
    device_key = derive_device_key(MASTER_KEY, DeviceId(DeviceKind.WALLET, wallet, slot), generation)
    return payment_code.make(device_key, wallet, slot, step, seq)


def forged(genuine: str) -> str:
    return genuine[:-1] + str((int(genuine[-1]) + 1) % 10)


def mark(seq: int = 0, *, step: int = STEP) -> int:
    return step * 10 + seq


def scan(number: int = 1, *, seq: int = 0, **fields: Any) -> Scan:
    """Return the scan of payment `number`: 10.00 EUR for its own order, with the first wallet's code `seq`."""
    plain = Scan(
        payment_id=payment_id(number),
        terminal_number=11,
        merchant_id=5,
        reference=f"order-{number}",
        amount_minor=1000,
        currency="EUR",
        code=code(seq),
    )
    return replace(plain, **fields)


def confirm(
    number: int = 1,
    version: int = 1,
    *,
    correct: bool = True,
    generation: int = 3,
    wallet: int = WALLET,
    merchant: int = 5,
) -> Confirm:
    return Confirm(payment_id(number), merchant, wallet, 0, version, correct, generation)


def reject(number: int = 1, *, wallet: int = WALLET, merchant: int = 5) -> Reject:
    return Reject(payment_id(number), merchant, wallet, 0)


def expire(number: int = 1, *, merchant: int = 5) -> Expire:
    return Expire(payment_id(number), merchant)


def cancel(number: int | None = 1, *, reference: str | None = None, terminal: int = 11, tombstone: int = 900) -> Cancel:
    """Return a cancel by the payment's number, or by `reference` if `number` is None."""
    merchant = 6 if terminal == 21 else 5
    return Cancel(terminal, merchant, "EUR", number and payment_id(number), reference, payment_id(tombstone))


def refund(
    refund_number: int, amount_minor: int, number: int = 1, *, terminal: int | None = 11, merchant: int = 5
) -> CreateRefund:
    return CreateRefund(payment_id(refund_number), payment_id(number), merchant, terminal, amount_minor)


def wallet(number: int = WALLET) -> Wallet:
    return Wallet(
        number, 900 + number % 10, "EUR", 10_000, WalletStatus.ACTIVE, 7,
        pin_set=True, pin_generation=3, day_start_ms=DAY_START_MS,
    )  # fmt: skip


def after(version: int, *pin_free: int, confirmed: Iterable[int] = (), number: int = WALLET) -> Wallet:
    """Return the wallet after these payments of the current day, without a PIN and with one."""
    spent = sum(pin_free) + sum(confirmed)
    return replace(
        wallet(number),
        balance_minor=10_000 - spent,
        version=version,
        day_spent_minor=spent,
        day_pin_free_minor=sum(pin_free),
        day_pin_free_count=len(pin_free),
    )


def device(number: int = WALLET, slot: int = 0) -> WalletDevice:
    return WalletDevice(number, slot, "k1", 1, DeviceStatus.ACTIVE, 0)


def snapshot() -> Snapshot:
    """Return three terminals of two merchants, and two wallets of 100.00 EUR, the first with two devices."""
    return Snapshot(
        terminals={11: ACCEPTOR, 12: replace(ACCEPTOR, store_name="Garden"), 21: OTHER_ACCEPTOR},
        wallets={number: wallet(number) for number in (WALLET, OTHER_WALLET)},
        devices={key: device(*key) for key in ((WALLET, 0), (WALLET, 1), (OTHER_WALLET, 0))},
        back_offices={5: replace(ACCEPTOR, store_name=""), 6: replace(OTHER_ACCEPTOR, store_name="")},
        house=HOUSE,
    )


def run(
    rows: Snapshot, *operations: Operation, now_ms: int = NOW_MS, rules: Rules = WIDE
) -> tuple[list[Outcome], Changeset]:
    """Decide a batch on the UTC day of `now_ms`, and check that every change of a status is in TRANSITIONS."""
    statuses = {known.key: known.status for known in rows.payments.values()}
    outcomes, changes = decide(operations, rows, KEYRING, now_ms, rules, day_start_ms=now_ms // DAY_MS * DAY_MS)
    for outcome in outcomes:
        if not isinstance(outcome, Refused):
            payment = outcome.payment
            before = statuses.get(payment.key)
            assert payment.status is before or payment.status in TRANSITIONS[before], (before, payment.status)
            statuses[payment.key] = payment.status
    return outcomes, changes


def decided(outcome: Outcome) -> Decided:
    assert isinstance(outcome, Decided)
    return outcome


def refunded(outcome: Outcome) -> Refunded:
    assert isinstance(outcome, Refunded)
    return outcome


def verdict(outcome: Outcome) -> str:
    """Return an outcome as one word: the refusal, "refunded", the decline code, or the status."""
    match outcome:
        case Refused(_, error):
            return str(error)
        case Refunded():
            return "refunded"
        case Decided():
            return str(outcome.payment.decline_code or outcome.payment.status)


def verdicts(outcomes: list[Outcome]) -> list[str]:
    return [verdict(outcome) for outcome in outcomes]
