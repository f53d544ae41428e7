"""Limits and PIN rules, as literal tables."""

from typing import Any

import pytest

from pos_server.core.payments.declines import DeclineCode
from pos_server.core.payments.payment import Purpose
from pos_server.core.payments.rules import (
    Limits,
    Risk,
    Rules,
    accept_all,
    count_wrong_pin,
    decline_reason,
    is_pin_free,
    is_pin_locked,
    pin_tries_left,
    start_day,
)
from pos_server.core.payments.snapshot import OwnLimits, Wallet, WalletStatus
from tests.copies import replace
from tests.core.payments.builders import NOW_MS, decided, run, scan, snapshot

LIMITS = Limits(
    payment_minor_max=1_000,
    day_minor_max=3_000,
    pin_free_minor_max=100,
    pin_free_day_count_max=3,
    pin_free_day_minor_max=250,
    top_up_minor_max=500,
    balance_minor_max=2_400,
)
YEN = Limits(100_000, 200_000, 5_000, 10, 20_000)
RULES = Rules(LIMITS, {"JPY": YEN})
WALLET = Wallet(1_000_000_001, 901, "EUR", 2_000, WalletStatus.ACTIVE, 7, day_start_ms=5_000)


@pytest.mark.parametrize(("currency", "limits"), [("EUR", LIMITS), ("JPY", YEN), ("USD", LIMITS)])
def test_limits_of_a_currency(currency: str, limits: Limits) -> None:
    assert RULES.limits_of(currency) is limits


def test_own_limits_override_the_servers_individually() -> None:
    assert RULES.limits_for(WALLET, "EUR") is LIMITS
    assert RULES.limits_for(replace(WALLET, limits=OwnLimits()), "EUR") == LIMITS
    own = replace(WALLET, limits=OwnLimits(day_minor_max=0, top_up_minor_max=9_000))
    assert RULES.limits_for(own, "EUR") == replace(LIMITS, day_minor_max=0, top_up_minor_max=9_000)
    assert RULES.limits_for(own, "JPY") == replace(YEN, day_minor_max=0, top_up_minor_max=9_000)
    assert set(OwnLimits.__struct_fields__) == set(Limits.__dataclass_fields__)


def test_default_rules() -> None:
    assert Rules(LIMITS) == Rules(
        limits=LIMITS,
        currency_limits={},
        risk=accept_all,
        code_expired_steps=20,
        confirmation_ms=60_000,
        pin_payment_failures_max=3,
        pin_failures_max=5,
        pin_lock_ms=86_400_000,
        cancel_window_ms=86_400_000,
        refund_window_ms=31_536_000_000,
        refunds_max=50,
    )
    assert accept_all(scan(), WALLET) is Risk.ACCEPT


@pytest.mark.parametrize(
    ("day_start_ms", "counted"),
    [(4_999, (5_000, 30, 20, 2)), (5_000, (5_000, 30, 20, 2)), (5_001, (5_001, 0, 0, 0))],
)
def test_start_day(day_start_ms: int, counted: tuple[int, int, int, int]) -> None:
    """A clock that is set back over midnight does not reset the counters."""
    wallet = replace(WALLET, day_spent_minor=30, day_pin_free_minor=20, day_pin_free_count=2)
    found = start_day(wallet, day_start_ms)
    assert (
        found.day_start_ms, found.day_spent_minor, found.day_pin_free_minor, found.day_pin_free_count
    ) == counted  # fmt: skip
    assert found == replace(
        wallet,
        day_start_ms=counted[0],
        day_spent_minor=counted[1],
        day_pin_free_minor=counted[2],
        day_pin_free_count=counted[3],
    )


@pytest.mark.parametrize(
    ("fields", "amount_minor", "currency", "decline"),
    [
        ({}, 1_000, "EUR", None),
        ({"status": WalletStatus.FROZEN}, 1, "EUR", DeclineCode.WALLET_FROZEN),
        ({"status": WalletStatus.CLOSED}, 1, "EUR", DeclineCode.WALLET_CLOSED),
        ({}, 1, "JPY", DeclineCode.CURRENCY_MISMATCH),
        ({}, 1_001, "EUR", DeclineCode.AMOUNT_OVER_LIMIT),
        ({"day_spent_minor": 2_000}, 1_000, "EUR", None),
        ({"day_spent_minor": 2_001}, 1_000, "EUR", DeclineCode.DAILY_LIMIT),
        ({"day_spent_minor": 9_000}, 1, "EUR", DeclineCode.DAILY_LIMIT),
        ({"balance_minor": 1_000}, 1_000, "EUR", None),
        ({"balance_minor": 999}, 1_000, "EUR", DeclineCode.INSUFFICIENT_FUNDS),
        ({"balance_minor": 0, "day_spent_minor": 9_000}, 9_999, "JPY", DeclineCode.CURRENCY_MISMATCH),
        ({"balance_minor": 0, "day_spent_minor": 9_000}, 1_001, "EUR", DeclineCode.AMOUNT_OVER_LIMIT),
        ({"balance_minor": 0, "day_spent_minor": 9_000}, 1_000, "EUR", DeclineCode.DAILY_LIMIT),
    ],
    ids=str,
)
@pytest.mark.parametrize("purpose", [Purpose.SALE, Purpose.WITHDRAWAL])
def test_decline_reason(
    purpose: Purpose, fields: dict[str, Any], amount_minor: int, currency: str, decline: DeclineCode | None
) -> None:
    assert decline_reason(replace(WALLET, **fields), amount_minor, currency, purpose, LIMITS) is decline


@pytest.mark.parametrize(
    ("fields", "amount_minor", "currency", "decline"),
    [
        ({}, 400, "EUR", None),
        ({"balance_minor": 0}, 500, "EUR", None),
        ({"status": WalletStatus.FROZEN}, 1, "EUR", DeclineCode.WALLET_FROZEN),
        ({"status": WalletStatus.CLOSED}, 1, "EUR", DeclineCode.WALLET_CLOSED),
        ({}, 1, "JPY", DeclineCode.CURRENCY_MISMATCH),
        ({"balance_minor": 0}, 501, "EUR", DeclineCode.AMOUNT_OVER_LIMIT),
        ({}, 501, "EUR", DeclineCode.AMOUNT_OVER_LIMIT),
        ({}, 401, "EUR", DeclineCode.BALANCE_LIMIT),
        ({"balance_minor": 2_400}, 1, "EUR", DeclineCode.BALANCE_LIMIT),
        ({"balance_minor": 0, "day_spent_minor": 9_000}, 500, "EUR", None),
    ],
    ids=str,
)
def test_decline_reason_of_a_top_up(
    fields: dict[str, Any], amount_minor: int, currency: str, decline: DeclineCode | None
) -> None:
    assert decline_reason(replace(WALLET, **fields), amount_minor, currency, Purpose.TOP_UP, LIMITS) is decline


@pytest.mark.parametrize(
    ("fields", "amount_minor", "free"),
    [
        ({}, 100, True),
        ({}, 101, False),
        ({"day_pin_free_count": 2}, 100, True),
        ({"day_pin_free_count": 3}, 1, False),
        ({"day_pin_free_minor": 150}, 100, True),
        ({"day_pin_free_minor": 151}, 100, False),
        ({"day_spent_minor": 3_000}, 100, True),
    ],
    ids=str,
)
def test_is_pin_free(fields: dict[str, Any], amount_minor: int, free: bool) -> None:
    assert is_pin_free(replace(WALLET, **fields), amount_minor, LIMITS) is free


@pytest.mark.parametrize(
    ("failures", "left", "locked_until_ms"),
    [(0, 1, 0), (3, 4, 0), (4, 0, NOW_MS + 86_400_000), (9, 0, NOW_MS + 86_400_000)],
)
def test_count_wrong_pin(failures: int, left: int, locked_until_ms: int) -> None:
    wallet = count_wrong_pin(replace(WALLET, pin_failures=failures), RULES, NOW_MS)
    assert wallet == replace(WALLET, version=8, pin_failures=left, pin_locked_until_ms=locked_until_ms)
    assert is_pin_locked(wallet, NOW_MS) is (locked_until_ms > 0)
    assert not is_pin_locked(wallet, NOW_MS + 86_400_000)


@pytest.mark.parametrize(
    ("of_payment", "of_wallet", "locked_until_ms", "left"),
    [
        (0, 0, 0, 3),
        (1, 1, 0, 2),
        (2, 2, 0, 1),
        (3, 3, 0, 0),
        (0, 4, 0, 1),
        (1, 3, 0, 2),
        (0, 0, NOW_MS + 1, 0),
        (0, 0, NOW_MS, 3),
        # Limits that were lowered while a payment was pending.
        (7, 7, 0, 0),
    ],
)
def test_pin_tries_left(of_payment: int, of_wallet: int, locked_until_ms: int, left: int) -> None:
    payment = replace(decided(run(snapshot(), scan())[0][0]).payment, pin_failures=of_payment)
    wallet = replace(WALLET, pin_failures=of_wallet, pin_locked_until_ms=locked_until_ms)
    assert pin_tries_left(payment, wallet, RULES, NOW_MS) == left
