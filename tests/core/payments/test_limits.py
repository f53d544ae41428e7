"""decide() of wallets with their own limits: they apply to every decision and to no other wallet."""

import pytest

from pos_server.core.payments.operations import MoveCash
from pos_server.core.payments.payment import Purpose
from pos_server.core.payments.rules import Risk
from pos_server.core.payments.snapshot import OwnLimits, Snapshot
from tests.copies import replace
from tests.core.payments.builders import (
    ASKING,
    OTHER_WALLET,
    WALLET,
    WIDE,
    code,
    confirm,
    payment_id,
    run,
    scan,
    snapshot,
    verdicts,
    wallet,
)

TIGHT = replace(ASKING, limits=replace(ASKING.limits, payment_minor_max=1_000, top_up_minor_max=1_000))


def limited(**limits: int) -> Snapshot:
    """Return rows in which the first wallet has these limits."""
    rows = snapshot()
    rows.wallets[WALLET] = replace(wallet(), limits=OwnLimits(**limits))
    return rows


def move(number: int, purpose: Purpose, amount_minor: int) -> MoveCash:
    return MoveCash(payment_id(number), 5, WALLET, f"order-{number}", amount_minor, "EUR", purpose)


def test_a_wallets_own_limits_apply_to_a_scan() -> None:
    rows = limited(payment_minor_max=999)
    other = scan(2, code=code(wallet=OTHER_WALLET))
    outcomes, _ = run(rows, scan(1), other, scan(3, seq=1, amount_minor=999))
    assert verdicts(outcomes) == ["amount_over_limit", "approved", "approved"]


def test_the_own_daily_limit_applies() -> None:
    outcomes, _ = run(
        limited(day_minor_max=2_500), scan(1), scan(2, seq=1), scan(3, seq=2), scan(4, seq=3, amount_minor=500)
    )
    assert verdicts(outcomes) == ["approved", "approved", "daily_limit", "approved"]


def test_the_own_pin_free_limits_apply() -> None:
    assert verdicts(run(limited(pin_free_minor_max=999), scan())[0]) == ["pending"]
    assert verdicts(run(limited(pin_free_day_count_max=1), scan(1), scan(2, seq=1))[0]) == ["approved", "pending"]
    assert verdicts(run(limited(pin_free_day_minor_max=1_500), scan(1), scan(2, seq=1))[0]) == ["approved", "pending"]
    # Conversely, a wallet may be allowed more than other wallets.
    trusted = limited(pin_free_minor_max=5_000)
    assert verdicts(run(trusted, scan(amount_minor=5_000), rules=ASKING)[0]) == ["approved"]


def test_a_wallets_own_limit_may_be_wider_than_the_servers() -> None:
    large = scan(amount_minor=1_001)
    assert verdicts(run(snapshot(), large, rules=TIGHT)[0]) == ["amount_over_limit"]
    assert verdicts(run(limited(payment_minor_max=2_000), large, rules=TIGHT)[0]) == ["pending"]


def test_a_limit_set_while_a_payment_is_pending_applies() -> None:
    rows = snapshot()
    (asked,), _ = run(rows, scan(amount_minor=2_000), rules=ASKING)
    assert verdicts([asked]) == ["pending"]
    rows.wallets[WALLET] = replace(rows.wallets[WALLET], limits=OwnLimits(payment_minor_max=1_999))
    assert verdicts(run(rows, confirm(), rules=ASKING)[0]) == ["amount_over_limit"]


@pytest.mark.parametrize(
    ("limits", "purpose", "amount_minor", "verdict"),
    [
        ({"top_up_minor_max": 999}, Purpose.TOP_UP, 1_000, "amount_over_limit"),
        ({"top_up_minor_max": 1_000}, Purpose.TOP_UP, 1_000, "approved"),
        ({"balance_minor_max": 10_999}, Purpose.TOP_UP, 1_000, "balance_limit"),
        ({"balance_minor_max": 11_000}, Purpose.TOP_UP, 1_000, "approved"),
        ({"payment_minor_max": 999}, Purpose.TOP_UP, 1_000, "approved"),
        ({"payment_minor_max": 999}, Purpose.WITHDRAWAL, 1_000, "amount_over_limit"),
        ({"day_minor_max": 999}, Purpose.WITHDRAWAL, 1_000, "daily_limit"),
        ({"top_up_minor_max": 999}, Purpose.WITHDRAWAL, 1_000, "approved"),
    ],
)
def test_own_limits_apply_to_cash(limits: dict[str, int], purpose: Purpose, amount_minor: int, verdict: str) -> None:
    assert verdicts(run(limited(**limits), move(1, purpose, amount_minor))[0]) == [verdict]


def test_the_risk_hook_gets_the_own_limits() -> None:
    seen: list[OwnLimits | None] = []

    def hook(asked: object, of: object) -> Risk:
        seen.append(getattr(of, "limits", None))
        return Risk.ACCEPT

    run(limited(day_minor_max=5_000), scan(1), rules=replace(WIDE, risk=hook))
    assert seen == [OwnLimits(day_minor_max=5_000)]
