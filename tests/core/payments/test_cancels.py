"""decide() of cancels: money returned, tombstones, refusals and time limits. Rows in, outcomes out."""

from collections.abc import Sequence
from typing import Any

import pytest

from pos_server.core.errors import ErrorCode
from pos_server.core.payments.operations import Cancel, Decided, Operation, Refused
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
    DAY_MS,
    DAY_START_MS,
    NOW_MS,
    WALLET,
    cancel,
    code,
    decided,
    forged,
    key,
    payment_id,
    refund,
    run,
    scan,
    snapshot,
    verdicts,
    wallet,
)

DAY_LATER_MS = NOW_MS + 24 * 3_600_000


def sold(amount_minor: int = 1_000, *others: int) -> Snapshot:
    """Return rows with approved payments of the first wallet, payment 1 first. Each increments the wallet's version."""
    rows = snapshot()
    run(rows, *(scan(n, seq=n, amount_minor=amount) for n, amount in enumerate([amount_minor, *others], start=1)))
    return rows


def parts(operations: Sequence[Operation], batches: int) -> list[Sequence[Operation]]:
    return [operations] if batches == 1 else [[operation] for operation in operations]


def paid(amount_minor: int = 1_000, **fields: Any) -> Payment:
    plain = Payment(
        payment_id=payment_id(1),
        fingerprint=scan(1, seq=1, amount_minor=amount_minor).fingerprint,
        terminal_number=11,
        merchant_id=5,
        wallet_number=WALLET,
        reference="order-1",
        amount_minor=amount_minor,
        currency="EUR",
        status=Status.APPROVED,
        decline_code=None,
        paid_by=None,
        version=1,
        changed_at_ms=NOW_MS,
        approved_at_ms=NOW_MS,
    )
    return replace(plain, **fields)


@pytest.mark.parametrize(
    "cancel_request",
    [
        pytest.param(cancel(1), id="by id"),
        pytest.param(cancel(None, reference="order-1"), id="by reference"),
        pytest.param(cancel(1, terminal=12), id="at another till"),
        pytest.param(cancel(None, reference="order-1", terminal=12), id="by reference, at another till"),
    ],
)
def test_a_cancel_returns_the_money(cancel_request: Cancel) -> None:
    rows = sold(1_234)
    outcomes, changes = run(rows, cancel_request, now_ms=NOW_MS + 1)
    payment = paid(1_234, status=Status.CANCELED, version=2, changed_at_ms=NOW_MS + 1)
    # The daily spending is reduced; the PIN-free spending is not.
    left = replace(wallet(), version=9, day_pin_free_minor=1_234, day_pin_free_count=1)
    assert outcomes == [Decided(cancel_request, payment, ACCEPTOR, left)]
    assert changes == Changeset(
        payments={key(1): payment},
        payment_versions={key(1): 1},
        transfers=[Transfer(TransferKind.CANCEL, payment_id(1), 500, 901, 1_234, "EUR", WALLET, 5)],
        wallets={WALLET: left},
        wallet_versions={WALLET: 8},
    )
    assert rows.open_payments == {(5, "order-1"): OpenPayment(payment_id(1), Status.CANCELED)}


@pytest.mark.parametrize(
    ("cancel_request", "number", "reference"),
    [
        pytest.param(cancel(7), 7, None, id="by id"),
        pytest.param(cancel(None, reference="order-7", tombstone=900), 900, "order-7", id="by reference"),
    ],
)
def test_a_cancel_of_an_unknown_payment_leaves_a_tombstone(
    cancel_request: Cancel, number: int, reference: str | None
) -> None:
    rows = snapshot()
    outcomes, changes = run(rows, cancel_request)
    tombstone = Payment(
        payment_id=payment_id(number),
        fingerprint=None,
        terminal_number=11,
        merchant_id=5,
        wallet_number=None,
        reference=reference,
        amount_minor=0,
        currency="EUR",
        status=Status.CANCELED,
        decline_code=None,
        paid_by=None,
        version=1,
        changed_at_ms=NOW_MS,
    )
    assert outcomes == [Decided(cancel_request, tombstone, ACCEPTOR, None)]
    assert changes == Changeset(payments={key(number): tombstone}, payment_versions={key(number): 0})
    expected = {(5, reference): OpenPayment(payment_id(number), Status.CANCELED)} if reference else {}
    assert rows.open_payments == expected


@pytest.mark.parametrize(
    ("before", "cancel_request", "status"),
    [
        pytest.param([cancel(1)], cancel(1), "canceled", id="canceled, by id"),
        pytest.param([cancel(1)], cancel(None, reference="order-1"), "canceled", id="canceled, by reference"),
        pytest.param([cancel(7)], cancel(7, terminal=12), "canceled", id="a tombstone"),
        pytest.param([cancel(None, reference="x")], cancel(None, reference="x"), "canceled", id="a tombstoned order"),
        pytest.param([scan(7, amount_minor=99_999, seq=9)], cancel(7), "insufficient_funds", id="declined"),
        pytest.param([cancel(7), scan(7, seq=9)], cancel(7), "canceled", id="declined, after its cancel"),
    ],
)
@pytest.mark.parametrize("batches", [1, 2], ids=["in one batch", "each in its own"])
def test_a_cancel_of_a_failed_payment_changes_nothing(
    before: list[Operation], cancel_request: Cancel, status: str, batches: int
) -> None:
    rows = sold()
    outcomes = [outcome for part in parts([*before, cancel_request], batches) for outcome in run(rows, *part)[0]]
    payment = decided(outcomes[-2]).payment
    assert verdicts(outcomes)[-1] == status
    assert (decided(outcomes[-1]).payment, decided(outcomes[-1]).replayed) == (payment, True)


def test_a_cancel_after_a_decline_closes_the_order() -> None:
    """A cancel by reference finds only failed payments of the order, but the next attempt may be on its way."""
    rows = snapshot()
    tries = [scan(1, code=forged(code())), cancel(None, reference="order-1"), scan(2, reference="order-1")]
    outcomes, _ = run(rows, *tries)
    assert verdicts(outcomes) == ["code_invalid", "canceled", "canceled"]
    assert decided(outcomes[1]).payment.is_tombstone


@pytest.mark.parametrize(
    ("cancel_request", "error"),
    [
        pytest.param(cancel(1, terminal=13), ErrorCode.TERMINAL_DISABLED, id="at a disabled till"),
        pytest.param(cancel(8, terminal=13), ErrorCode.TERMINAL_DISABLED, id="never seen, at a disabled till"),
        pytest.param(cancel(2), ErrorCode.ALREADY_REFUNDED, id="refunded in part"),
        pytest.param(cancel(3), ErrorCode.ALREADY_REFUNDED, id="refunded whole"),
    ],
)
def test_rejected_cancels(cancel_request: Cancel, error: ErrorCode) -> None:
    rows = sold(1_000, 1_000, 1_000)
    rows.terminals[13] = replace(ACCEPTOR, terminal_status=TerminalStatus.DISABLED)
    run(rows, refund(902, 1, 2), refund(903, 1_000, 3), cancel(7))
    outcomes, changes = run(rows, cancel_request)
    assert outcomes == [Refused(cancel_request, error)]
    assert changes == Changeset()


@pytest.mark.parametrize(("now_ms", "verdict"), [(DAY_LATER_MS, "canceled"), (DAY_LATER_MS + 1, "cancel_too_late")])
def test_the_cancel_window(now_ms: int, verdict: str) -> None:
    assert verdicts(run(sold(), cancel(1), now_ms=now_ms)[0]) == [verdict]


def test_a_merchant_can_cancel_only_its_own_payments() -> None:
    """Another merchant may have an order with the same number, which gets its own tombstone."""
    rows = sold()
    outcomes, _ = run(rows, cancel(None, reference="order-1", terminal=21))
    assert verdicts(outcomes) == ["canceled"]
    assert decided(outcomes[0]).payment.payment_id == payment_id(900)
    assert rows.payments[key(1)] == paid()


@pytest.mark.parametrize(
    ("of_wallet", "spent_minor"),
    [
        pytest.param({}, 0, id="on the day of the payment"),
        pytest.param({"day_start_ms": DAY_START_MS + DAY_MS, "day_spent_minor": 300}, 300, id="on a later day"),
        pytest.param({"day_spent_minor": 400}, 0, id="never below 0"),
    ],
)
def test_daily_spending_after_a_cancel(of_wallet: dict[str, int], spent_minor: int) -> None:
    rows = sold()
    rows.wallets[WALLET] = replace(rows.wallets[WALLET], **of_wallet)
    run(rows, cancel(1), now_ms=DAY_LATER_MS)
    assert rows.wallets[WALLET].day_spent_minor == spent_minor
    assert rows.wallets[WALLET].balance_minor == 10_000


@pytest.mark.parametrize("status", [WalletStatus.FROZEN, WalletStatus.CLOSED])
@pytest.mark.parametrize("cancel_request", [cancel(1), refund(901, 1_000)], ids=["cancel", "refund"])
def test_a_cancel_returns_money_to_any_wallet(cancel_request: Operation, status: WalletStatus) -> None:
    rows = sold()
    rows.wallets[WALLET] = replace(rows.wallets[WALLET], status=status)
    run(rows, cancel_request)
    assert rows.wallets[WALLET].balance_minor == 10_000


@pytest.mark.parametrize("cancel_request", [cancel(1), refund(901, 1_000)], ids=["cancel", "refund"])
def test_a_cancel_returns_money_from_an_inactive_merchant(cancel_request: Operation) -> None:
    rows = sold()
    rows.terminals[11] = replace(ACCEPTOR, merchant_status=MerchantStatus.INACTIVE)
    run(rows, cancel_request)
    assert rows.wallets[WALLET].balance_minor == 10_000
