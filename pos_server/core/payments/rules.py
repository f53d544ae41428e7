"""Limits and PIN rules as plain data, and the checks of a wallet and an amount against them."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

from msgspec.structs import asdict, replace

from ..money import MAX_AMOUNT_MINOR
from .declines import DeclineCode
from .payment import TOP_UP, Payment, Purpose
from .snapshot import Wallet, WalletStatus

if TYPE_CHECKING:
    from .operations import Scan


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a wallet in minor units of one currency. A day is the business day in the server's time zone.

    - `payment_minor_max`, `top_up_minor_max`: one payment, one top-up.
    - `day_minor_max`: sum of a day's payments.
    - `pin_free_…`: payments without a PIN (one payment, number per day, sum per day).
    - `balance_minor_max`: balance after a top-up.
    """

    payment_minor_max: int
    day_minor_max: int
    pin_free_minor_max: int
    pin_free_day_count_max: int
    pin_free_day_minor_max: int
    top_up_minor_max: int = MAX_AMOUNT_MINOR
    balance_minor_max: int = MAX_AMOUNT_MINOR


class Risk(Enum):
    """Verdict of a risk hook on a payment that passes all other rules."""

    ACCEPT = "accept"
    ASK_PIN = "ask_pin"
    REJECT = "reject"


# Module-level aliases are faster to look up than enum attributes (see payment.py).
ACCEPT: Final = Risk.ACCEPT
ASK_PIN: Final = Risk.ASK_PIN
REJECT: Final = Risk.REJECT

RiskHook = Callable[["Scan", Wallet], Risk]


def accept_all(scan: "Scan", wallet: Wallet) -> Risk:
    """Accept every payment: the default risk hook."""
    return ACCEPT


@dataclass(frozen=True, slots=True)
class Rules:
    """Configuration of `decide`.

    `currency_limits` overrides `limits` for single currencies. `risk` must be fast and pure, because the whole batch
    waits for it.
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
        """Return the limits of a currency."""
        return self.currency_limits.get(currency, self.limits)

    def limits_for(self, wallet: Wallet, currency: str) -> Limits:
        """Return the limits of a wallet for a payment in a currency: its own limits override those of the currency."""
        limits = self.limits_of(currency)
        if wallet.limits is None:
            return limits
        return dataclasses.replace(
            limits, **{name: limit for name, limit in asdict(wallet.limits).items() if limit is not None}
        )


_ACTIVE: Final = WalletStatus.ACTIVE


def start_day(wallet: Wallet, day_start_ms: int) -> Wallet:
    """Return the wallet with the day counters of the current day: reset to 0 if they count an earlier day."""
    if wallet.day_start_ms >= day_start_ms:
        return wallet
    return replace(wallet, day_start_ms=day_start_ms, day_spent_minor=0, day_pin_free_minor=0, day_pin_free_count=0)


def decline_reason(
    wallet: Wallet, amount_minor: int, currency: str, purpose: Purpose, limits: Limits
) -> DeclineCode | None:
    """Return the first reason why a wallet cannot pay or receive an amount now; None if it can.

    The wallet needs the day counters of the current day (`start_day`).
    """
    if wallet.status is not _ACTIVE:
        return DeclineCode.WALLET_FROZEN if wallet.status is WalletStatus.FROZEN else DeclineCode.WALLET_CLOSED
    if wallet.currency != currency:
        return DeclineCode.CURRENCY_MISMATCH
    if purpose is TOP_UP:
        if amount_minor > limits.top_up_minor_max:
            return DeclineCode.AMOUNT_OVER_LIMIT
        exceeds_limit = wallet.balance_minor + amount_minor > limits.balance_minor_max
        return DeclineCode.BALANCE_LIMIT if exceeds_limit else None
    if amount_minor > limits.payment_minor_max:
        return DeclineCode.AMOUNT_OVER_LIMIT
    if wallet.day_spent_minor + amount_minor > limits.day_minor_max:
        return DeclineCode.DAILY_LIMIT
    if wallet.balance_minor < amount_minor:
        return DeclineCode.INSUFFICIENT_FUNDS
    return None


def is_pin_free(wallet: Wallet, amount_minor: int, limits: Limits) -> bool:
    """Return whether a wallet may pay an amount without its PIN. The wallet needs the current day's counters."""
    return (
        amount_minor <= limits.pin_free_minor_max
        and wallet.day_pin_free_count < limits.pin_free_day_count_max
        and wallet.day_pin_free_minor + amount_minor <= limits.pin_free_day_minor_max
    )


def is_pin_locked(wallet: Wallet, now_ms: int) -> bool:
    """Return whether the wallet's PIN is locked after too many wrong PINs."""
    return wallet.pin_locked_until_ms > now_ms


def pin_tries_left(payment: Payment, wallet: Wallet, rules: Rules, now_ms: int) -> int:
    """Return the number of PIN attempts left for a pending payment."""
    if is_pin_locked(wallet, now_ms):
        return 0
    wallet_tries = rules.pin_failures_max - wallet.pin_failures
    return max(0, min(rules.pin_payment_failures_max - payment.pin_failures, wallet_tries))


def count_wrong_pin(wallet: Wallet, rules: Rules, now_ms: int) -> Wallet:
    """Return the wallet with one more wrong PIN. The last allowed failure locks the PIN and resets the counter."""
    failures = wallet.pin_failures + 1
    if failures < rules.pin_failures_max:
        return replace(wallet, pin_failures=failures, version=wallet.version + 1)
    return replace(wallet, pin_failures=0, pin_locked_until_ms=now_ms + rules.pin_lock_ms, version=wallet.version + 1)
