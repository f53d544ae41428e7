"""Limits as plain data, and what they say about a wallet and an amount."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

from msgspec.structs import asdict, replace

from ..money import MAX_AMOUNT_MINOR
from .payment import TOP_UP, DeclineCode, Payment, Purpose
from .snapshot import Wallet, WalletStatus

if TYPE_CHECKING:
    from .operations import Scan


@dataclass(frozen=True, slots=True)
class Limits:
    """Amounts in minor units of one currency; a day is the business day of the server's time zone.

    `balance_minor_max` is what a wallet may hold after a top-up.
    `pin_free_…` bound what a wallet may pay without its PIN: at once, in number a day, in sum a day.
    """

    payment_minor_max: int
    day_minor_max: int
    pin_free_minor_max: int
    pin_free_day_count_max: int
    pin_free_day_minor_max: int
    top_up_minor_max: int = MAX_AMOUNT_MINOR
    balance_minor_max: int = MAX_AMOUNT_MINOR


class Risk(Enum):
    """What a risk hook may say of a payment that is fine otherwise."""

    ACCEPT = "accept"
    ASK_PIN = "ask_pin"
    REJECT = "reject"


ACCEPT: Final = Risk.ACCEPT  # as in payments.py
ASK_PIN: Final = Risk.ASK_PIN
REJECT: Final = Risk.REJECT

RiskHook = Callable[["Scan", Wallet], Risk]


def accept_all(scan: "Scan", wallet: Wallet) -> Risk:
    """The hook of a server that has none."""
    return ACCEPT


@dataclass(frozen=True, slots=True)
class Rules:
    """Everything that `decide` is told besides rows and the time.

    `currency_limits` holds the currencies that differ from `limits`. `risk` must be quick and pure: a batch waits.
    """

    limits: Limits
    currency_limits: Mapping[str, Limits] = field(default_factory=dict)
    risk: RiskHook = accept_all
    code_expired_steps: int = 20
    confirmation_ms: int = 60_000
    pin_payment_failures_max: int = 3
    pin_failures_max: int = 5
    pin_lock_ms: int = 24 * 3_600_000
    cancel_window_ms: int = 24 * 3_600_000
    refund_window_ms: int = 365 * 24 * 3_600_000
    refunds_max: int = 50

    def limits_of(self, currency: str) -> Limits:
        """The limits that hold for a currency."""
        return self.currency_limits.get(currency, self.limits)

    def limits_for(self, wallet: Wallet, currency: str) -> Limits:
        """The limits that hold for a wallet that is to pay or be paid in a currency: its own, where it has them."""
        limits = self.limits_of(currency)
        if wallet.limits is None:
            return limits
        return dataclasses.replace(
            limits, **{name: own for name, own in asdict(wallet.limits).items() if own is not None}
        )


_ACTIVE: Final = WalletStatus.ACTIVE


def today(wallet: Wallet, day_start_ms: int) -> Wallet:
    """The wallet with its day's counters: at 0 when they count an earlier day."""
    if wallet.day_start_ms >= day_start_ms:
        return wallet
    return replace(wallet, day_start_ms=day_start_ms, day_spent_minor=0, day_pin_free_minor=0, day_pin_free_count=0)


def why_not(wallet: Wallet, amount_minor: int, currency: str, purpose: Purpose, limits: Limits) -> DeclineCode | None:
    """Why this wallet (of `today`) cannot pay or take this amount now, in order of precedence; None when it can."""
    if wallet.status is not _ACTIVE:
        return DeclineCode.WALLET_FROZEN if wallet.status is WalletStatus.FROZEN else DeclineCode.WALLET_CLOSED
    if wallet.currency != currency:
        return DeclineCode.CURRENCY_MISMATCH
    if purpose is TOP_UP:
        if amount_minor > limits.top_up_minor_max:
            return DeclineCode.AMOUNT_OVER_LIMIT
        over = wallet.balance_minor + amount_minor > limits.balance_minor_max
        return DeclineCode.BALANCE_LIMIT if over else None
    if amount_minor > limits.payment_minor_max:
        return DeclineCode.AMOUNT_OVER_LIMIT
    if wallet.day_spent_minor + amount_minor > limits.day_minor_max:
        return DeclineCode.DAILY_LIMIT
    if wallet.balance_minor < amount_minor:
        return DeclineCode.INSUFFICIENT_FUNDS
    return None


def is_pin_free(wallet: Wallet, amount_minor: int, limits: Limits) -> bool:
    """Whether this wallet (of `today`) may pay this amount without its PIN."""
    return (
        amount_minor <= limits.pin_free_minor_max
        and wallet.day_pin_free_count < limits.pin_free_day_count_max
        and wallet.day_pin_free_minor + amount_minor <= limits.pin_free_day_minor_max
    )


def is_pin_locked(wallet: Wallet, now_ms: int) -> bool:
    """Whether too many wrong PINs have locked this wallet's PIN for a while."""
    return wallet.pin_locked_until_ms > now_ms


def pin_tries_left(payment: Payment, wallet: Wallet, rules: Rules, now_ms: int) -> int:
    """How many PINs may still be tried for a pending payment."""
    if is_pin_locked(wallet, now_ms):
        return 0
    left = rules.pin_failures_max - wallet.pin_failures
    return max(0, min(rules.pin_payment_failures_max - payment.pin_failures, left))


def after_wrong_pin(wallet: Wallet, rules: Rules, now_ms: int) -> Wallet:
    """The wallet with one more failure: locked with the last that is allowed. A lock that has ended left none."""
    failures = wallet.pin_failures + 1
    if failures < rules.pin_failures_max:
        return replace(wallet, pin_failures=failures, version=wallet.version + 1)
    return replace(wallet, pin_failures=0, pin_locked_until_ms=now_ms + rules.pin_lock_ms, version=wallet.version + 1)
