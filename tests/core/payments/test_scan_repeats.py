"""decide() of scans: repeats of a payment id, and scans that arrive after their cancel."""

import copy
from typing import Any

import pytest

from pos_server.core.errors import ErrorCode
from pos_server.core.payments.declines import DeclineCode
from pos_server.core.payments.operations import Decided, Entry, Refused, Scan
from pos_server.core.payments.payment import Payment, Status
from pos_server.core.payments.snapshot import (
    Changeset,
    MerchantStatus,
    OpenPayment,
    TerminalStatus,
    WalletStatus,
)
from tests.copies import replace
from tests.core.payments.builders import (
    ACCEPTOR,
    NOW_MS,
    STEP,
    WALLET,
    after,
    cancel,
    code,
    decided,
    device,
    forged,
    key,
    mark,
    payment_id,
    run,
    scan,
    snapshot,
    verdicts,
    wallet,
)

# --- the same id again


@pytest.mark.parametrize(
    ("first", "verdict"),
    [
        pytest.param(scan(1), "approved", id="approved"),
        pytest.param(scan(1, amount_minor=10_001), "insufficient_funds", id="declined"),
        pytest.param(scan(1, code=forged(code())), "code_invalid", id="forged"),
    ],
)
@pytest.mark.parametrize("batches", [1, 2], ids=["in one batch", "in two batches"])
def test_a_repeat_gets_the_same_payment(first: Scan, verdict: str, batches: int) -> None:
    rows = snapshot()
    if batches == 1:
        (decision, again), changes = run(rows, first, copy.deepcopy(first))
        assert len(changes.payments) == 1
        assert len(changes.transfers) == (verdict == "approved")
    else:
        (decision,), _ = run(rows, first)
        before = copy.deepcopy(rows)
        (again,), changes = run(rows, copy.deepcopy(first), now_ms=NOW_MS + 86_400_000)
        assert changes == Changeset()
        assert not changes
        assert rows == before
    assert verdicts([decision]) == [verdict]
    assert again == replace(decided(decision), replayed=True)


def test_a_repeat_gets_the_stored_payment_after_any_change() -> None:
    """The stored result is permanent: a disabled terminal or an old code does not change it."""
    rows = snapshot()
    (first,), _ = run(rows, scan(1))
    rows.terminals[11] = replace(
        ACCEPTOR, terminal_status=TerminalStatus.DISABLED, merchant_status=MerchantStatus.INACTIVE
    )
    rows.wallets[WALLET] = replace(wallet(), status=WalletStatus.CLOSED, balance_minor=5, version=40)
    rows.devices.clear()
    before = copy.deepcopy(rows)
    (again,), changes = run(rows, scan(1), now_ms=NOW_MS + 10**9)
    assert again == Decided(scan(1), decided(first).payment, rows.terminals[11], rows.wallets[WALLET], replayed=True)
    assert changes == Changeset()
    assert rows == before


def test_a_repeat_gets_the_current_wallet() -> None:
    rows = snapshot()
    decisions, _ = run(rows, scan(1, seq=0), scan(2, seq=1), scan(1, seq=0))
    assert decided(decisions[2]).wallet == after(9, 1_000, 1_000)
    assert decided(decisions[2]).payment == decided(decisions[0]).payment


def test_a_repeat_whose_wallet_is_not_loaded() -> None:
    rows = snapshot()
    (first,), _ = run(rows, scan(1))
    rows.wallets.clear()
    (again,), _ = run(rows, scan(1))
    assert again == replace(decided(first), wallet=None, replayed=True)


@pytest.mark.parametrize(
    "changed",
    [
        {"terminal_number": 12},
        {"reference": "order-2"},
        {"amount_minor": 1001},
        {"currency": "USD"},
        {"code": code(1)},
        {"entry": Entry.TYPED},
        {"code": ""},
    ],
    ids=lambda changed: ", ".join(changed),
)
@pytest.mark.parametrize("batches", [1, 2], ids=["in one batch", "in two batches"])
def test_the_same_id_with_another_body_changes_nothing(changed: dict[str, Any], batches: int) -> None:
    other = scan(1, **changed)
    only, alone = snapshot(), snapshot()
    _, expected_changes = run(alone, scan(1))
    if batches == 1:
        (first, second), changes = run(only, scan(1), other)
        assert changes == expected_changes
    else:
        (first,), _ = run(only, scan(1))
        (second,), changes = run(only, other)
        assert changes == Changeset()
    assert verdicts([first]) == ["approved"]
    assert second == Refused(other, ErrorCode.ID_REUSED)
    assert only == alone


def test_a_reused_id_spends_no_code() -> None:
    rows = snapshot()
    decisions, _ = run(rows, scan(1), scan(1, seq=1), scan(2, seq=1))
    assert verdicts(decisions) == ["approved", "id_reused", "approved"]


def test_outcomes_are_in_the_order_of_the_scans() -> None:
    scans = [scan(1), scan(1, seq=1), scan(1), scan(2, code="x"), scan(3, seq=1)]
    decisions, _ = run(snapshot(), *scans)
    assert [decision.operation for decision in decisions] == scans
    assert verdicts(decisions) == ["approved", "id_reused", "approved", "code_malformed", "approved"]


def test_decide_is_deterministic() -> None:
    scans = [scan(1), scan(2, seq=0), scan(3, seq=1, amount_minor=9_500), scan(1), scan(4, code="x")]
    results = []
    for _ in range(3):
        rows = snapshot()
        results.append((run(rows, *copy.deepcopy(scans)), rows))
    assert results[0] == results[1] == results[2]


# --- scans that come after their cancel


def test_a_late_scan_of_a_canceled_id() -> None:
    rows = snapshot()
    run(rows, cancel(1, terminal=12))
    late = scan(1)
    outcomes, changes = run(rows, late, now_ms=NOW_MS + 1)
    payment = Payment(
        payment_id=payment_id(1),
        fingerprint=late.fingerprint,
        terminal_number=11,
        merchant_id=5,
        wallet_number=WALLET,
        reference="order-1",
        amount_minor=1_000,
        currency="EUR",
        status=Status.DECLINED,
        decline_code=DeclineCode.CANCELED,
        paid_by=None,
        version=2,
        changed_at_ms=NOW_MS + 1,
    )
    left = replace(wallet(), version=8)
    assert outcomes == [Decided(late, payment, ACCEPTOR, left)]
    assert changes == Changeset(
        payments={key(1): payment},
        payment_versions={key(1): 1},
        wallets={WALLET: left},
        wallet_versions={WALLET: 7},
        devices={(WALLET, 0): replace(device(), spent_mark=mark(0))},
    )
    # The id was canceled, the order was not.
    assert verdicts(run(rows, scan(1), scan(1, amount_minor=1), scan(2, seq=1, reference="order-1"))[0]) == [
        "canceled",
        "id_reused",
        "approved",
    ]


@pytest.mark.parametrize(
    ("late", "verdict", "version"),
    [
        pytest.param(scan(1), "canceled", 2, id="as it was"),
        pytest.param(scan(1, terminal_number=12), "canceled", 2, id="at another till"),
        pytest.param(scan(1, code=code(step=STEP - 2)), "code_expired", 2, id="with an old code"),
        pytest.param(scan(1, code="?"), "code_malformed", 2, id="with no code"),
        pytest.param(scan(1, terminal_number=21, merchant_id=6), "approved", 1, id="of another merchant"),
    ],
)
def test_late_scans(late: Scan, verdict: str, version: int | None) -> None:
    rows = snapshot()
    run(rows, cancel(1))
    outcomes, changes = run(rows, late)
    assert verdicts(outcomes) == [verdict]
    assert {payment.version for payment in changes.payments.values()} == ({version} if version else set())


@pytest.mark.parametrize("batches", [1, 2], ids=["in one batch", "in two batches"])
def test_a_canceled_order_stays_closed(batches: int) -> None:
    """Also for a scan with the tombstone's own id, which the server made."""
    rows = snapshot()
    by_reference = cancel(None, reference="order-1", tombstone=900)
    scans = [scan(1), scan(900, seq=1, reference="order-1"), scan(2, seq=1, reference="order-1")]
    parts = [[by_reference, *scans]] if batches == 1 else [[by_reference], scans]
    outcomes = [outcome for part in parts for outcome in run(rows, *part)[0]]
    assert verdicts(outcomes) == ["canceled", "canceled", "id_reused", "canceled"]
    assert decided(outcomes[1]).payment.paid_by is None
    assert rows.open_payments == {(5, "order-1"): OpenPayment(payment_id(900), Status.CANCELED)}
    elsewhere = scan(3, seq=3, reference="order-1", terminal_number=21, merchant_id=6)
    assert verdicts(run(rows, elsewhere)[0]) == ["approved"]
