"""decide() of scans: codes are spent once, and each decision of a batch sees the ones before it."""

from typing import Any
from uuid import UUID

import pytest

from pos_server.core.payments.operations import Scan
from pos_server.core.payments.payment import Status
from pos_server.core.payments.snapshot import (
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
    NOW_MS,
    OTHER_WALLET,
    STEP,
    WALLET,
    after,
    code,
    decided,
    device,
    forged,
    mark,
    payment_id,
    run,
    scan,
    snapshot,
    verdicts,
    wallet,
)

EARLIER = UUID(int=99)


def spent_marks(rows: Snapshot) -> dict[tuple[int, int], int]:
    return {key: found.spent_mark for key, found in rows.devices.items() if found.spent_mark}


# --- what spends a code


@pytest.mark.parametrize(
    ("first", "first_verdict", "second_verdict"),
    [
        pytest.param(scan(1), "approved", "code_used", id="approved"),
        pytest.param(scan(1, amount_minor=10_001), "insufficient_funds", "code_used", id="insufficient_funds"),
        pytest.param(scan(1, currency="USD"), "currency_mismatch", "code_used", id="currency_mismatch"),
        pytest.param(scan(1, reference="order-paid"), "already_paid", "code_used", id="already_paid"),
        pytest.param(scan(1, terminal_number=13), "terminal_disabled", "approved", id="terminal_disabled"),
        pytest.param(scan(1, terminal_number=14), "merchant_inactive", "approved", id="merchant_inactive"),
        pytest.param(scan(1, code=code() + "0"), "code_malformed", "approved", id="code_malformed"),
        pytest.param(scan(1, code=forged(code())), "code_invalid", "approved", id="code_invalid"),
        pytest.param(scan(1, code=forged(code(9))), "code_invalid", "approved", id="code_invalid, later seq"),
        pytest.param(scan(1, code=code(step=STEP - 2)), "code_expired", "approved", id="code_expired, earlier step"),
        pytest.param(scan(1, code=code(9, step=STEP - 1)), "approved", "approved", id="approved, earlier step"),
        pytest.param(scan(1, code=code(1)), "approved", "code_used", id="approved, later seq"),
        pytest.param(scan(1, code=code(step=STEP + 1)), "approved", "code_used", id="approved, later step"),
        pytest.param(scan(1, code=code(1, slot=1)), "approved", "approved", id="approved, another device"),
        pytest.param(scan(1, code=code(1, wallet=OTHER_WALLET)), "approved", "approved", id="approved, another wallet"),
    ],
)
@pytest.mark.parametrize("batches", [1, 2], ids=["in one batch", "in two batches"])
def test_codes_spent_by_a_scan(first: Scan, first_verdict: str, second_verdict: str, batches: int) -> None:
    rows = snapshot()
    rows.terminals[13] = replace(ACCEPTOR, terminal_status=TerminalStatus.DISABLED)
    rows.terminals[14] = replace(ACCEPTOR, merchant_status=MerchantStatus.INACTIVE)
    rows.open_payments[5, "order-paid"] = OpenPayment(EARLIER, Status.APPROVED)
    second = scan(2, amount_minor=1)
    if batches == 1:
        decisions, _ = run(rows, first, second)
    else:
        decisions = run(rows, first)[0] + run(rows, second)[0]
    assert verdicts(decisions) == [first_verdict, second_verdict]


@pytest.mark.parametrize("status", [WalletStatus.FROZEN, WalletStatus.CLOSED])
def test_a_declined_wallet_still_spends_its_code(status: WalletStatus) -> None:
    rows = snapshot()
    rows.wallets[WALLET] = replace(wallet(), status=status)
    assert verdicts(run(rows, scan(1))[0]) == [f"wallet_{status}"]
    rows.wallets[WALLET] = replace(rows.wallets[WALLET], status=WalletStatus.ACTIVE)
    assert verdicts(run(rows, scan(2), scan(3, seq=1))[0]) == ["code_used", "approved"]


def test_an_expired_code_is_spent() -> None:
    """A server whose clock is behind must not accept the code later."""
    rows = snapshot()
    old = code(3, step=STEP - 2)
    decisions, changes = run(rows, scan(1, code=old))
    assert verdicts(decisions) == ["code_expired"]
    assert changes.devices[WALLET, 0].spent_mark == mark(3, step=STEP - 2)
    assert verdicts(run(rows, scan(2, code=old), now_ms=NOW_MS - 30_000)[0]) == ["code_used"]


def test_an_expired_code_does_not_unspend_newer_ones() -> None:
    rows = snapshot()
    decisions, changes = run(rows, scan(1, seq=4), scan(2, code=code(9, step=STEP - 5)), scan(3, seq=4))
    assert verdicts(decisions) == ["approved", "code_expired", "code_used"]
    assert changes.devices[WALLET, 0].spent_mark == mark(4)


def test_a_used_code_does_not_unspend_newer_ones() -> None:
    rows = snapshot()
    decisions, _ = run(rows, scan(1, seq=4), scan(2, seq=2), scan(3, seq=4), scan(4, seq=5))
    assert verdicts(decisions) == ["approved", "code_used", "code_used", "approved"]
    assert spent_marks(rows) == {(WALLET, 0): mark(5)}


def test_all_codes_of_a_step_can_be_used_in_order() -> None:
    rows = snapshot()
    decisions, _ = run(rows, *(scan(seq + 1, seq=seq, amount_minor=1) for seq in range(10)))
    assert verdicts(decisions) == ["approved"] * 10


def test_a_used_code_is_declined_as_expired_once_it_is_too_old() -> None:
    rows = snapshot()
    old = code(step=STEP - 1)
    decisions = run(rows, scan(1, code=old))[0] + run(rows, scan(2, code=old), now_ms=NOW_MS + 30_000)[0]
    assert verdicts(decisions) == ["approved", "code_expired"]


# --- a batch sees itself


def test_one_code_scanned_at_two_terminals_pays_once() -> None:
    rows = snapshot()
    decisions, changes = run(rows, scan(1), scan(2, terminal_number=21, merchant_id=6))
    assert verdicts(decisions) == ["approved", "code_used"]
    assert [transfer.source_id for transfer in changes.transfers] == [payment_id(1)]


def test_two_payments_cannot_spend_the_same_money() -> None:
    rows = snapshot()
    decisions, changes = run(
        rows,
        scan(1, seq=0, amount_minor=6_000),
        scan(2, seq=1, amount_minor=4_001),
        scan(3, code=code(slot=1), amount_minor=4_000),
        scan(4, seq=2, amount_minor=1),
    )
    assert verdicts(decisions) == ["approved", "insufficient_funds", "approved", "insufficient_funds"]
    assert [decided(decision).wallet for decision in decisions] == [
        after(8, 6_000),
        after(9, 6_000),
        after(10, 6_000, 4_000),
        after(11, 6_000, 4_000),
    ]
    assert changes.wallets == {WALLET: after(11, 6_000, 4_000)}
    assert changes.wallet_versions == {WALLET: 7}
    assert changes.devices == {
        (WALLET, 0): replace(device(), spent_mark=mark(2)),
        (WALLET, 1): replace(device(slot=1), spent_mark=mark(0)),
    }
    assert [(transfer.source_id, transfer.amount_minor) for transfer in changes.transfers] == [
        (payment_id(1), 6_000),
        (payment_id(3), 4_000),
    ]


def test_the_guard_is_the_loaded_version() -> None:
    rows = snapshot()
    assert run(rows, scan(1, seq=0), scan(2, seq=1))[1].wallet_versions == {WALLET: 7}
    both = run(rows, scan(3, seq=2), scan(4, code=code(wallet=OTHER_WALLET)))[1]
    assert both.wallet_versions == {WALLET: 9, OTHER_WALLET: 7}
    assert {number: found.version for number, found in both.wallets.items()} == {WALLET: 10, OTHER_WALLET: 8}


def test_only_changed_rows_are_written() -> None:
    rows = snapshot()
    changes = run(rows, scan(1, code=code(wallet=OTHER_WALLET)), scan(2, code=forged(code())))[1]
    assert list(changes.wallets) == list(changes.wallet_versions) == [OTHER_WALLET]
    assert list(changes.devices) == [(OTHER_WALLET, 0)]
    assert rows.wallets[WALLET] == wallet()


@pytest.mark.parametrize(
    ("second", "verdict", "paid_by"),
    [
        pytest.param({}, "already_paid", payment_id(1), id="same till"),
        pytest.param({"terminal_number": 12}, "already_paid", payment_id(1), id="another till"),
        pytest.param({"amount_minor": 1}, "already_paid", payment_id(1), id="another amount"),
        pytest.param({"code": code(wallet=OTHER_WALLET)}, "already_paid", payment_id(1), id="another wallet"),
        pytest.param({"reference": "ORDER-1"}, "approved", None, id="another reference"),
        pytest.param({"terminal_number": 21, "merchant_id": 6}, "approved", None, id="another merchant"),
    ],
)
@pytest.mark.parametrize("batches", [1, 2], ids=["in one batch", "in two batches"])
def test_an_order_is_paid_once(second: dict[str, Any], verdict: str, paid_by: UUID | None, batches: int) -> None:
    rows = snapshot()
    scans = [scan(1), scan(2, seq=1, **({"reference": "order-1"} | second))]
    if batches == 1:
        decisions, _ = run(rows, *scans)
    else:
        decisions = run(rows, scans[0])[0] + run(rows, scans[1])[0]
    assert verdicts(decisions) == ["approved", verdict]
    assert decided(decisions[1]).payment.paid_by == paid_by


def test_a_declined_order_can_be_retried() -> None:
    rows = snapshot()
    decisions, _ = run(
        rows,
        scan(1, seq=0, reference="order", amount_minor=20_000),
        scan(2, seq=1, reference="order"),
        scan(3, seq=2, reference="order"),
    )
    assert verdicts(decisions) == ["insufficient_funds", "approved", "already_paid"]
    assert decided(decisions[2]).payment.paid_by == payment_id(2)
    assert rows.open_payments == {(5, "order"): OpenPayment(payment_id(2), Status.APPROVED)}


def test_each_merchant_is_credited_on_its_own_account() -> None:
    changes = run(snapshot(), scan(1), scan(2, seq=1, terminal_number=21, merchant_id=6))[1]
    assert changes.transfers == [
        Transfer(TransferKind.PAYMENT, payment_id(1), 901, 500, 1000, "EUR", WALLET, 5),
        Transfer(TransferKind.PAYMENT, payment_id(2), 901, 600, 1000, "EUR", WALLET, 6),
    ]
