"""decide() of operations on a pending payment: confirm, reject, expire. Rows in, outcomes out."""

from collections.abc import Sequence
from typing import Any

import pytest

from pos_server.core.errors import ErrorCode
from pos_server.core.payments.declines import DeclineCode
from pos_server.core.payments.operations import Decided, Operation, Refused
from pos_server.core.payments.payment import Payment, Status
from pos_server.core.payments.snapshot import (
    Changeset,
    MerchantStatus,
    OpenPayment,
    Snapshot,
    TerminalStatus,
    Transfer,
    TransferKind,
    WalletStatus,
)
from tests.copies import replace
from tests.core.payments.builders import (
    ACCEPTOR,
    ASKING,
    DAY_MS,
    DAY_START_MS,
    NOW_MS,
    OTHER_WALLET,
    STEP,
    WALLET,
    after,
    cancel,
    code,
    confirm,
    decided,
    device,
    expire,
    key,
    mark,
    payment_id,
    reject,
    run,
    scan,
    snapshot,
    verdicts,
    wallet,
)

OVER_MS = NOW_MS + 60_000
LOCK_MS = 24 * 3_600_000
LARGE = scan(1, amount_minor=2_000)
PENDING = Payment(
    payment_id=payment_id(1),
    fingerprint=LARGE.fingerprint,
    terminal_number=11,
    merchant_id=5,
    wallet_number=WALLET,
    reference="order-1",
    amount_minor=2_000,
    currency="EUR",
    status=Status.PENDING,
    decline_code=None,
    paid_by=None,
    version=1,
    changed_at_ms=NOW_MS,
    expires_at_ms=OVER_MS,
)


def waiting(*others: int) -> Snapshot:
    """Return rows with pending payments of 20.00 EUR each, payment 1 first, for the first wallet with version 8."""
    rows = snapshot()
    rows.devices[WALLET, 0] = replace(device(), spent_mark=mark(0))
    rows.wallets[WALLET] = replace(wallet(), version=8)
    for number in (1, *others):
        fingerprint, reference = scan(number, amount_minor=2_000).fingerprint, f"order-{number}"
        rows.payments[key(number)] = replace(
            PENDING, payment_id=payment_id(number), fingerprint=fingerprint, reference=reference
        )
        rows.open_payments[5, reference] = OpenPayment(payment_id(number), Status.PENDING)
    return rows


def then(payment: Payment = PENDING, *, version: int, at_ms: int = NOW_MS + 1, **fields: Any) -> Payment:
    return replace(payment, version=version, changed_at_ms=at_ms, **fields)


# --- confirm, in full


def test_a_correct_pin() -> None:
    rows = waiting()
    rows.wallets[WALLET] = replace(rows.wallets[WALLET], pin_failures=4)
    outcomes, changes = run(rows, confirm(), now_ms=NOW_MS + 1, rules=ASKING)
    payment = then(version=2, status=Status.APPROVED, approved_at_ms=NOW_MS + 1)
    left = replace(wallet(), balance_minor=8_000, version=9, day_spent_minor=2_000)
    assert outcomes == [Decided(confirm(), payment, ACCEPTOR, left)]
    assert changes == Changeset(
        payments={key(1): payment},
        payment_versions={key(1): 1},
        transfers=[Transfer(TransferKind.PAYMENT, payment_id(1), 901, 500, 2_000, "EUR", WALLET, 5)],
        wallets={WALLET: left},
        wallet_versions={WALLET: 8},
    )
    assert rows.open_payments == {(5, "order-1"): OpenPayment(payment_id(1), Status.APPROVED)}


def test_a_wrong_pin() -> None:
    rows = waiting()
    wrong = confirm(correct=False)
    outcomes, changes = run(rows, wrong, now_ms=NOW_MS + 1, rules=ASKING)
    payment = then(version=2, pin_failures=1)
    left = replace(wallet(), version=9, pin_failures=1)
    assert outcomes == [Decided(wrong, payment, ACCEPTOR, left, pin_tries_left=2)]
    assert changes == Changeset(
        payments={key(1): payment},
        payment_versions={key(1): 1},
        wallets={WALLET: left},
        wallet_versions={WALLET: 8},
    )


@pytest.mark.parametrize(
    ("pins", "expected", "tries_left", "failures", "balance_minor"),
    [
        pytest.param([True], ["approved"], [0], 0, 8_000, id="right"),
        pytest.param([False, True], ["pending", "approved"], [2, 0], 0, 8_000, id="right at the second try"),
        pytest.param([False, False, True], ["pending", "pending", "approved"], [2, 1, 0], 0, 8_000, id="at the third"),
        pytest.param([False] * 3, ["pending", "pending", "pin_wrong"], [2, 1, 0], 3, 10_000, id="never"),
        pytest.param(
            [False, False, False, True],
            ["pending", "pending", "pin_wrong", "pin_wrong"],
            [2, 1, 0, 0],
            3,
            10_000,
            id="too late",
        ),
    ],
)
@pytest.mark.parametrize("batches", [1, 2], ids=["in one batch", "each in its own"])
def test_three_wrong_pins_decline_a_payment(
    pins: list[bool], expected: list[str], tries_left: list[int], failures: int, balance_minor: int, batches: int
) -> None:
    rows = waiting()
    confirms = [confirm(version=version, correct=correct) for version, correct in enumerate(pins, start=1)]
    outcomes = [outcome for part in parts(confirms, batches) for outcome in run(rows, *part, rules=ASKING)[0]]
    assert verdicts(outcomes) == expected
    assert [decided(outcome).pin_tries_left for outcome in outcomes] == tries_left
    assert (rows.wallets[WALLET].pin_failures, rows.wallets[WALLET].balance_minor) == (failures, balance_minor)


def parts(operations: Sequence[Operation], batches: int) -> list[Sequence[Operation]]:
    return [operations] if batches == 1 else [[operation] for operation in operations]


def test_five_wrong_pins_in_a_row_lock_the_wallets_pin() -> None:
    rows = waiting(2, 3)
    wrong = [confirm(1, version, correct=False) for version in (1, 2, 3)]
    wrong += [confirm(2, version, correct=False) for version in (1, 2)]
    outcomes, _ = run(rows, *wrong, confirm(3), rules=ASKING)
    assert verdicts(outcomes) == ["pending", "pending", "pin_wrong", "pending", "pin_locked", "pin_locked"]
    assert [decided(outcome).pin_tries_left for outcome in outcomes] == [2, 1, 0, 1, 0, 0]
    assert rows.wallets[WALLET] == replace(wallet(), version=13, pin_failures=0, pin_locked_until_ms=NOW_MS + LOCK_MS)


@pytest.mark.parametrize(
    ("later_ms", "verdict", "failures"), [(LOCK_MS - 1, "pin_locked", 0), (LOCK_MS, "approved", 0)]
)
def test_a_lock_ends_and_leaves_no_failures(later_ms: int, verdict: str, failures: int) -> None:
    rows = waiting()
    rows.payments[key(1)] = replace(PENDING, expires_at_ms=NOW_MS + 2 * LOCK_MS)
    rows.wallets[WALLET] = replace(wallet(), pin_locked_until_ms=NOW_MS + LOCK_MS)
    outcomes, _ = run(rows, confirm(), now_ms=NOW_MS + later_ms, rules=ASKING)
    assert verdicts(outcomes) == [verdict]
    assert rows.wallets[WALLET].pin_failures == failures


@pytest.mark.parametrize("correct", [True, False])
@pytest.mark.parametrize("batches", [1, 2], ids=["in one batch", "each in its own"])
def test_the_same_pin_sent_twice_counts_once(correct: bool, batches: int) -> None:
    rows = waiting()
    twice = [confirm(correct=correct), confirm(correct=correct)]
    outcomes = [outcome for part in parts(twice, batches) for outcome in run(rows, *part, rules=ASKING)[0]]
    assert verdicts(outcomes) == ["approved" if correct else "pending"] * 2
    assert [decided(outcome).replayed for outcome in outcomes] == [False, True]
    assert decided(outcomes[0]).payment == decided(outcomes[1]).payment
    assert rows.payments[key(1)].version == 2
    assert rows.wallets[WALLET].pin_failures == (0 if correct else 1)
    assert rows.wallets[WALLET].balance_minor == (8_000 if correct else 10_000)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        pytest.param(confirm(2), ErrorCode.PAYMENT_UNKNOWN, id="a payment that is not there"),
        pytest.param(confirm(wallet=OTHER_WALLET), ErrorCode.PAYMENT_UNKNOWN, id="somebody else's"),
        pytest.param(confirm(generation=2), ErrorCode.BUSY, id="a PIN that was changed meanwhile"),
        pytest.param(confirm(generation=2, correct=False), ErrorCode.BUSY, id="a wrong PIN that was changed meanwhile"),
        pytest.param(reject(2), ErrorCode.PAYMENT_UNKNOWN, id="reject what is not there"),
        pytest.param(reject(wallet=OTHER_WALLET), ErrorCode.PAYMENT_UNKNOWN, id="reject somebody else's"),
        pytest.param(expire(2), ErrorCode.PAYMENT_UNKNOWN, id="expire what is not there"),
    ],
)
def test_rejections(answer: Operation, error: ErrorCode) -> None:
    rows, before = waiting(), waiting()
    outcomes, changes = run(rows, answer, rules=ASKING)
    assert outcomes == [Refused(answer, error)]
    assert (changes, rows) == (Changeset(), before)


# --- a correct PIN decides the payment again


@pytest.mark.parametrize(
    ("fields", "decline"),
    [
        ({"status": WalletStatus.FROZEN}, DeclineCode.WALLET_FROZEN),
        ({"status": WalletStatus.CLOSED}, DeclineCode.WALLET_CLOSED),
        ({"balance_minor": 1_999}, DeclineCode.INSUFFICIENT_FUNDS),
        ({"day_spent_minor": 4_001}, DeclineCode.DAILY_LIMIT),
        ({"day_spent_minor": 4_000}, None),
        ({"day_spent_minor": 4_001, "day_start_ms": DAY_START_MS - DAY_MS}, None),
        ({"day_pin_free_count": 1_000, "day_pin_free_minor": 10**9}, None),
    ],
    ids=str,
)
def test_the_wallet_is_checked_again(fields: dict[str, Any], decline: DeclineCode | None) -> None:
    rules = replace(ASKING, limits=replace(ASKING.limits, day_minor_max=6_000))
    rows = waiting()
    rows.wallets[WALLET] = replace(wallet(), pin_failures=2, **fields)
    (outcome,), changes = run(rows, confirm(), rules=rules)
    payment = decided(outcome).payment
    assert (payment.status, payment.decline_code) == (Status.DECLINED if decline else Status.APPROVED, decline)
    assert len(changes.transfers) == (0 if decline else 1)
    # The PIN was correct in each case.
    assert changes.wallets[WALLET].pin_failures == 0
    assert rows.open_payments == ({} if decline else {(5, "order-1"): OpenPayment(payment_id(1), Status.APPROVED)})


@pytest.mark.parametrize(
    ("fields", "decline"),
    [
        ({"terminal_status": TerminalStatus.DISABLED}, DeclineCode.TERMINAL_DISABLED),
        ({"merchant_status": MerchantStatus.INACTIVE}, DeclineCode.MERCHANT_INACTIVE),
    ],
)
def test_the_acceptor_is_checked_again(fields: dict[str, Any], decline: DeclineCode) -> None:
    rows = waiting()
    rows.terminals[11] = replace(ACCEPTOR, **fields)
    rows.wallets[WALLET] = replace(wallet(), status=WalletStatus.FROZEN)
    (outcome,), changes = run(rows, confirm(), rules=ASKING)
    assert decided(outcome).payment.decline_code is decline
    assert changes.transfers == []


def test_a_pending_payment_holds_no_money() -> None:
    rows = waiting()
    small = [scan(n + 1, seq=n, amount_minor=1_000) for n in range(1, 9)]
    outcomes, _ = run(rows, *small, scan(10, seq=9, amount_minor=500), confirm(), rules=ASKING)
    assert verdicts(outcomes) == ["approved"] * 9 + ["insufficient_funds"]
    assert rows.wallets[WALLET] == after(18, *[1_000] * 8, 500)


def test_a_payment_counts_on_the_day_of_its_confirmation() -> None:
    rows = waiting()
    midnight = DAY_START_MS + DAY_MS
    rows.payments[key(1)] = replace(PENDING, expires_at_ms=midnight + 60_000)
    rows.wallets[WALLET] = replace(wallet(), day_spent_minor=7, day_pin_free_minor=7, day_pin_free_count=1)
    run(rows, confirm(), now_ms=midnight + 59_999, rules=ASKING)
    assert rows.wallets[WALLET] == replace(
        wallet(), balance_minor=8_000, version=8, day_start_ms=midnight, day_spent_minor=2_000
    )


# --- expiry


@pytest.mark.parametrize(
    ("answer", "just_in_time"),
    [
        pytest.param(confirm(), "approved", id="right PIN"),
        pytest.param(confirm(correct=False), "pending", id="wrong PIN"),
        pytest.param(reject(), "customer_rejected", id="reject"),
        pytest.param(cancel(), "canceled", id="cancel"),
        pytest.param(expire(), "pending", id="expire"),
    ],
)
def test_expiry_is_exact_to_the_millisecond(answer: Operation, just_in_time: str) -> None:
    assert verdicts(run(waiting(), answer, now_ms=OVER_MS - 1, rules=ASKING)[0]) == [just_in_time]
    # The terminal still gets `canceled`, because no notice of the expiry was sent yet.
    late = "canceled" if answer == cancel() else "expired"
    rows = waiting()
    outcomes, changes = run(rows, answer, now_ms=OVER_MS, rules=ASKING)
    assert verdicts(outcomes) == [late]
    assert changes.payments == {key(1): then(version=2, at_ms=OVER_MS, status=Status(late))}
    assert (changes.wallets, changes.transfers) == ({}, [])


def test_an_expired_order_can_be_scanned_again() -> None:
    rows = waiting()
    again = scan(2, seq=1, reference="order-1")
    outcomes, _ = run(rows, again, expire(), replace(again, payment_id=payment_id(3), terminal_number=12), rules=ASKING)
    assert verdicts(outcomes) == ["already_pending", "pending", "code_used"]
    fresh = scan(4, code=code(step=STEP + 2), reference="order-1")
    outcomes, _ = run(rows, expire(), fresh, now_ms=OVER_MS, rules=ASKING)
    assert verdicts(outcomes) == ["expired", "approved"]
    assert rows.open_payments == {(5, "order-1"): OpenPayment(payment_id(4), Status.APPROVED)}


# --- outcomes are final

ENDS: list[tuple[Operation, str]] = [
    (confirm(), "approved"),
    (confirm(generation=3, correct=True), "approved"),
    (reject(), "customer_rejected"),
    (cancel(), "canceled"),
]
LATE: list[Operation] = [confirm(), confirm(correct=False), confirm(version=2), reject(), expire()]


@pytest.mark.parametrize("late", LATE, ids=["right PIN", "wrong PIN", "PIN for this version", "reject", "expire"])
@pytest.mark.parametrize(("first", "verdict"), ENDS, ids=["confirmed", "confirmed again", "rejected", "canceled"])
@pytest.mark.parametrize("batches", [1, 2], ids=["in one batch", "each in its own"])
def test_outcomes_are_final(first: Operation, verdict: str, late: Operation, batches: int) -> None:
    rows = waiting()
    outcomes = [outcome for part in parts([first, late], batches) for outcome in run(rows, *part, rules=ASKING)[0]]
    assert verdicts(outcomes) == [verdict, verdict]
    assert decided(outcomes[1]).replayed
    assert rows.payments[key(1)].version == 2
    assert rows.wallets[WALLET].pin_failures == 0


def test_an_approved_payment_can_be_canceled_in_the_same_batch() -> None:
    rows = waiting()
    outcomes, changes = run(rows, confirm(), cancel(), now_ms=NOW_MS + 1, rules=ASKING)
    assert verdicts(outcomes) == ["approved", "canceled"]
    payment = then(version=3, status=Status.CANCELED, approved_at_ms=NOW_MS + 1)
    assert changes.payments == {key(1): payment}
    assert changes.payment_versions == {key(1): 1}
    assert changes.transfers == [
        Transfer(TransferKind.PAYMENT, payment_id(1), 901, 500, 2_000, "EUR", WALLET, 5),
        Transfer(TransferKind.CANCEL, payment_id(1), 500, 901, 2_000, "EUR", WALLET, 5),
    ]
    assert rows.wallets[WALLET] == replace(wallet(), version=10)


def test_a_rejected_order_can_be_scanned_again_in_the_same_batch() -> None:
    rows = waiting()
    outcomes, changes = run(rows, reject(), scan(2, seq=1, reference="order-1"), confirm(), rules=ASKING)
    assert verdicts(outcomes) == ["customer_rejected", "approved", "customer_rejected"]
    assert changes.payment_versions == {key(1): 1, key(2): 0}
    assert rows.open_payments == {(5, "order-1"): OpenPayment(payment_id(2), Status.APPROVED)}


def test_a_payment_scanned_and_confirmed_in_one_batch_is_new() -> None:
    rows = snapshot()
    outcomes, changes = run(rows, LARGE, confirm(), rules=ASKING)
    assert verdicts(outcomes) == ["pending", "approved"]
    assert changes.payment_versions == {key(1): 0}
    assert changes.payments[key(1)].version == 2
    assert changes.wallets == {WALLET: replace(wallet(), balance_minor=8_000, version=9, day_spent_minor=2_000)}
