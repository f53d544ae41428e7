"""decide() of cash and fees: accounts and amounts by purpose, and reversals. Rows in, outcomes out."""

from typing import Any

import pytest

from pos_server.core.payments.operations import Cancel, Decided, Entry, MoveCash
from pos_server.core.payments.payment import Purpose, Status
from pos_server.core.payments.rules import Limits, Risk, Rules
from pos_server.core.payments.snapshot import MerchantStatus, Snapshot, Transfer, TransferKind, WalletStatus
from tests.copies import replace
from tests.core.payments.builders import (
    ACCEPTOR,
    ASKING,
    CASH_IN,
    FEES,
    NO_LIMIT,
    NOW_MS,
    PAYOUT,
    WALLET,
    WIDE,
    cancel,
    confirm,
    decided,
    payment_id,
    refund,
    run,
    scan,
    snapshot,
    verdicts,
    wallet,
)

MERCHANT = 500
DAY_LATER_MS = NOW_MS + 24 * 3_600_000
LIMITED = replace(WIDE, limits=replace(WIDE.limits, top_up_minor_max=5_000, balance_minor_max=14_000))


def moved(kind: str, source: int, debit: int, credit: int, amount_minor: int) -> Transfer:
    return Transfer(TransferKind(kind), payment_id(source), debit, credit, amount_minor, "EUR", WALLET, 5)


def with_fee(fee_bps: int = 145, fee_fixed_minor: int = 7) -> Snapshot:
    rows = snapshot()
    rows.terminals[11] = replace(ACCEPTOR, fee_bps=fee_bps, fee_fixed_minor=fee_fixed_minor)
    rows.back_offices[5] = replace(rows.terminals[11], store_name="")
    return rows


def move(number: int = 1, purpose: Purpose = Purpose.TOP_UP, **fields: Any) -> MoveCash:
    plain = MoveCash(payment_id(number), 5, WALLET, f"order-{number}", 1_000, "EUR", purpose)
    return replace(plain, **fields)


def api_cancel(number: int = 1) -> Cancel:
    return Cancel(None, 5, "EUR", payment_id(number), None, payment_id(number))


# --- at the terminal


def test_a_top_up_is_credited_and_not_counted() -> None:
    rows = snapshot()
    outcomes, changes = run(rows, scan(purpose=Purpose.TOP_UP), rules=ASKING)
    assert verdicts(outcomes) == ["approved"]
    assert changes.transfers == [moved("top_up", 1, CASH_IN, 901, 1_000)]
    assert changes.wallets == {WALLET: replace(wallet(), balance_minor=11_000, version=8)}
    assert changes.wallet_versions == {WALLET: 7}
    payment = decided(outcomes[0]).payment
    assert (payment.purpose, payment.fee_minor, payment.refundable_minor) == (Purpose.TOP_UP, 0, 0)


def test_a_withdrawal_always_needs_the_pin() -> None:
    rows = with_fee()
    outcomes, changes = run(rows, scan(amount_minor=1, purpose=Purpose.WITHDRAWAL))
    assert (verdicts(outcomes), changes.transfers) == (["pending"], [])
    outcomes, changes = run(rows, confirm(1, 1))
    assert verdicts(outcomes) == ["approved"]
    assert changes.transfers == [moved("withdrawal", 1, 901, PAYOUT, 1)]
    assert rows.wallets[WALLET] == replace(wallet(), balance_minor=9_999, version=9, day_spent_minor=1)


@pytest.mark.parametrize(
    ("fields", "rules", "verdict"),
    [
        ({"amount_minor": 4_000}, LIMITED, "approved"),
        ({"amount_minor": 4_001}, LIMITED, "balance_limit"),
        ({"amount_minor": 5_001}, LIMITED, "amount_over_limit"),
        ({"amount_minor": 20_000}, WIDE, "approved"),
        ({"entry": Entry.TYPED}, ASKING, "approved"),
        ({"amount_minor": 9_000}, ASKING, "approved"),
        ({"currency": "USD"}, WIDE, "currency_mismatch"),
        ({}, replace(WIDE, risk=lambda scan, wallet: Risk.ASK_PIN), "pending"),
        ({}, replace(WIDE, risk=lambda scan, wallet: Risk.REJECT), "risk_rejected"),
        # The limits of sales do not apply to top-ups.
        ({}, Rules(Limits(0, 0, 0, 0, 0)), "approved"),
    ],
)
def test_limits_of_top_ups(fields: dict[str, Any], rules: Rules, verdict: str) -> None:
    outcomes, _ = run(snapshot(), scan(**({"purpose": Purpose.TOP_UP} | fields)), rules=rules)
    assert verdicts(outcomes) == [verdict]


def test_the_risk_hook_can_require_a_pin_for_a_top_up() -> None:
    rows = snapshot()
    run(rows, scan(purpose=Purpose.TOP_UP), rules=replace(WIDE, risk=lambda scan, wallet: Risk.ASK_PIN))
    outcomes, changes = run(rows, confirm(1, 1))
    assert verdicts(outcomes) == ["approved"]
    assert changes.transfers == [moved("top_up", 1, CASH_IN, 901, 1_000)]


def test_a_withdrawal_counts_as_daily_spending_with_pin() -> None:
    rows = snapshot()
    rules = replace(WIDE, limits=replace(WIDE.limits, day_minor_max=1_500))
    run(rows, scan(1, purpose=Purpose.WITHDRAWAL), rules=rules)
    run(rows, confirm(1, 1), rules=rules)
    assert verdicts(run(rows, scan(2, seq=1, amount_minor=501), scan(3, seq=2, amount_minor=500), rules=rules)[0]) == [
        "daily_limit",
        "approved",
    ]
    assert rows.wallets[WALLET].day_pin_free_count == 1


# --- cancels


def test_a_canceled_top_up_is_debited_again() -> None:
    rows = snapshot()
    run(rows, scan(purpose=Purpose.TOP_UP))
    outcomes, changes = run(rows, cancel(1), cancel(1))
    assert verdicts(outcomes) == ["canceled", "canceled"]
    assert changes.transfers == [moved("cancel", 1, 901, CASH_IN, 1_000)]
    assert rows.wallets[WALLET] == replace(wallet(), version=9)


@pytest.mark.parametrize(
    ("spent_minor", "verdict", "balance_minor"), [(10_000, "canceled", 0), (10_001, "funds_spent", 999)]
)
def test_a_spent_top_up_cannot_be_canceled(spent_minor: int, verdict: str, balance_minor: int) -> None:
    rows = snapshot()
    run(rows, scan(1, purpose=Purpose.TOP_UP), scan(2, seq=1, amount_minor=spent_minor))
    outcomes, _ = run(rows, cancel(1))
    assert verdicts(outcomes) == [verdict]
    assert rows.wallets[WALLET].balance_minor == balance_minor


def test_a_canceled_withdrawal_is_credited_and_not_counted() -> None:
    rows = snapshot()
    run(rows, scan(purpose=Purpose.WITHDRAWAL))
    run(rows, confirm(1, 1))
    outcomes, changes = run(rows, cancel(1))
    assert verdicts(outcomes) == ["canceled"]
    assert changes.transfers == [moved("cancel", 1, PAYOUT, 901, 1_000)]
    assert rows.wallets[WALLET] == replace(wallet(), version=10)


@pytest.mark.parametrize("purpose", [Purpose.TOP_UP, Purpose.WITHDRAWAL])
def test_cash_is_not_refundable_and_has_the_cancel_window(purpose: Purpose) -> None:
    rows = snapshot()
    run(rows, scan(purpose=purpose))
    if purpose is Purpose.WITHDRAWAL:
        run(rows, confirm(1, 1))
    assert verdicts(run(rows, refund(70, 1))[0]) == ["not_refundable"]
    assert verdicts(run(rows, cancel(1), now_ms=DAY_LATER_MS + 1)[0]) == ["cancel_too_late"]
    assert verdicts(run(rows, cancel(1), now_ms=DAY_LATER_MS)[0]) == ["canceled"]


# --- through the API


@pytest.mark.parametrize(
    ("purpose", "transfer", "balance_minor", "day_spent_minor"),
    [
        (Purpose.TOP_UP, moved("top_up", 1, CASH_IN, 901, 1_000), 11_000, 0),
        (Purpose.WITHDRAWAL, moved("withdrawal", 1, 901, PAYOUT, 1_000), 9_000, 1_000),
    ],
)
def test_a_back_office_moves_cash_without_a_code_and_a_pin(
    purpose: Purpose, transfer: Transfer, balance_minor: int, day_spent_minor: int
) -> None:
    rows = with_fee()
    outcomes, changes = run(rows, move(purpose=purpose), rules=ASKING)
    left = replace(wallet(), balance_minor=balance_minor, day_spent_minor=day_spent_minor, version=8)
    (outcome,) = outcomes
    assert decided(outcome).acceptor == rows.back_offices[5]
    assert (decided(outcome).payment.status, decided(outcome).payment.terminal_number) == (Status.APPROVED, None)
    assert (changes.transfers, changes.wallets, changes.devices) == ([transfer], {WALLET: left}, {})
    assert run(rows, move(purpose=purpose))[0] == [replace(decided(outcome), replayed=True)]
    assert verdicts(run(rows, move(purpose=purpose, amount_minor=1))[0]) == ["id_reused"]
    assert verdicts(run(rows, move(2, purpose, reference="order-1"))[0]) == ["already_paid"]
    assert verdicts(run(rows, cancel(1, terminal=12))[0]) == ["canceled"]
    assert rows.wallets[WALLET].balance_minor == 10_000


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({"wallet_number": 1_000_000_009}, "wallet_unknown"),
        ({"amount_minor": 5_001}, "amount_over_limit"),
        ({"amount_minor": 4_001}, "balance_limit"),
        ({"amount_minor": 10_001, "purpose": Purpose.WITHDRAWAL}, "insufficient_funds"),
        ({"currency": "USD"}, "currency_mismatch"),
    ],
)
def test_declines_of_cash_by_a_back_office(fields: dict[str, Any], verdict: str) -> None:
    rows = snapshot()
    outcomes, changes = run(rows, move(**fields), rules=LIMITED)
    assert (verdicts(outcomes), changes.transfers) == ([verdict], [])
    assert bool(changes) == (verdict != "wallet_unknown")


def test_an_inactive_merchant_and_a_frozen_wallet() -> None:
    rows = snapshot()
    rows.wallets[WALLET] = replace(wallet(), status=WalletStatus.FROZEN)
    assert verdicts(run(rows, move(1))[0]) == ["wallet_frozen"]
    rows.back_offices[5] = replace(rows.back_offices[5], merchant_status=MerchantStatus.INACTIVE)
    assert verdicts(run(rows, move(2))[0]) == ["merchant_inactive"]


def test_cash_canceled_before_it_arrives_is_declined() -> None:
    rows = snapshot()
    assert verdicts(run(rows, api_cancel(1), move(1), move(1))[0]) == ["canceled"] * 3
    assert decided(run(rows, move(1))[0][0]).payment.version == 2
    assert verdicts(run(rows, cancel(None, reference="order-2"), move(2))[0]) == ["canceled", "canceled"]


def test_the_api_cancels_a_sale_of_a_terminal() -> None:
    rows = snapshot()
    run(rows, scan(1))
    outcomes, changes = run(rows, api_cancel(1))
    assert isinstance(outcomes[0], Decided)
    assert outcomes[0].acceptor == rows.terminals[11]
    assert changes.transfers == [moved("cancel", 1, MERCHANT, 901, 1_000)]


# --- fees


def test_a_sale_with_a_fee() -> None:
    rows = with_fee()
    outcomes, changes = run(rows, scan(amount_minor=999))
    assert decided(outcomes[0]).payment.fee_minor == 21
    assert changes.transfers == [
        moved("payment", 1, 901, MERCHANT, 999),
        moved("fee", 1, MERCHANT, FEES, 21),
    ]
    assert rows.wallets[WALLET].balance_minor == 9_001, "the customer pays none of it"


def test_a_pending_sale_keeps_the_fee_of_its_scan() -> None:
    rows = with_fee()
    _, changes = run(rows, scan(amount_minor=1_001), rules=ASKING)
    assert changes.transfers == []
    rows.terminals[11] = ACCEPTOR
    _, changes = run(rows, confirm(1, 1))
    assert changes.transfers == [
        moved("payment", 1, 901, MERCHANT, 1_001),
        moved("fee", 1, MERCHANT, FEES, 22),
    ]


@pytest.mark.parametrize("amount_minor", [10_001, NO_LIMIT])
def test_a_declined_sale_has_no_fee(amount_minor: int) -> None:
    outcomes, changes = run(with_fee(), scan(amount_minor=amount_minor))
    assert (decided(outcomes[0]).payment.fee_minor, changes.transfers) == (0, [])


def test_a_cancel_returns_the_whole_fee() -> None:
    rows = with_fee()
    run(rows, scan(amount_minor=999))
    _, changes = run(rows, cancel(1))
    assert changes.transfers == [
        moved("cancel", 1, MERCHANT, 901, 999),
        moved("fee_return", 1, FEES, MERCHANT, 21),
    ]


@pytest.mark.parametrize("batches", [1, 2], ids=["in one batch", "in two batches"])
@pytest.mark.parametrize(
    ("refunds", "returned"),
    [
        ([999], [21]),
        ([333, 333, 333], [7, 7, 7]),
        ([998, 1], [20, 1]),
        # A share of 0 has no transfer, and later refunds return what was rounded down.
        ([40, 40, 919], [0, 1, 20]),
        ([1, 2, 3, 993], [0, 0, 0, 21]),
    ],
)
def test_refunds_return_their_share_of_the_fee(refunds: list[int], returned: list[int], batches: int) -> None:
    rows = with_fee()
    run(rows, scan(amount_minor=999))
    refund_requests = [refund(70 + n, amount) for n, amount in enumerate(refunds)]
    parts = [refund_requests] if batches == 1 else [[refund_request] for refund_request in refund_requests]
    transfers = [transfer for part in parts for transfer in run(rows, *part)[1].transfers]
    expected = []
    for n, (amount, share) in enumerate(zip(refunds, returned, strict=True)):
        expected.append(moved("refund", 70 + n, MERCHANT, 901, amount))
        expected += [moved("fee_return", 70 + n, FEES, MERCHANT, share)] if share else []
    assert transfers == expected
    assert sum(returned) == 21
    assert rows.wallets[WALLET].balance_minor == 10_000


def test_a_fee_never_exceeds_the_sale() -> None:
    _, changes = run(with_fee(0, 25), scan(amount_minor=3))
    assert changes.transfers == [moved("payment", 1, 901, MERCHANT, 3), moved("fee", 1, MERCHANT, FEES, 3)]
