"""decide() of refunds: partial refunds, repeats, refusals and time limits. Rows in, outcomes out."""

from collections.abc import Sequence
from typing import Any

import pytest

from pos_server.core.errors import ErrorCode
from pos_server.core.payments.operations import CreateRefund, Operation, Refunded, Refused
from pos_server.core.payments.payment import Payment, Refund, Status
from pos_server.core.payments.snapshot import (
    Changeset,
    OpenPayment,
    Snapshot,
    TerminalStatus,
    Transfer,
    TransferKind,
)
from tests.copies import replace
from tests.core.payments.builders import (
    ACCEPTOR,
    NOW_MS,
    WALLET,
    WIDE,
    after,
    cancel,
    key,
    payment_id,
    refund,
    refunded,
    run,
    scan,
    snapshot,
    verdicts,
)

YEAR_LATER_MS = NOW_MS + 365 * 24 * 3_600_000


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


def test_a_partial_refund() -> None:
    rows = sold(1_000)
    cancel_request = refund(901, 300, terminal=12)
    outcomes, changes = run(rows, cancel_request, now_ms=NOW_MS + 1)
    payment = paid(version=2, changed_at_ms=NOW_MS + 1, refunded_minor=300, refunds=1)
    made = Refund(payment_id(901), payment_id(1), 5, 12, WALLET, 300, "EUR", NOW_MS + 1)
    left = replace(after(9, 1_000), balance_minor=9_300)  # the daily spending is not reduced
    assert outcomes == [Refunded(cancel_request, made, payment, ACCEPTOR, left)]
    assert changes == Changeset(
        payments={key(1): payment},
        payment_versions={key(1): 1},
        refunds=[made],
        transfers=[Transfer(TransferKind.REFUND, payment_id(901), 500, 901, 300, "EUR", WALLET, 5)],
        wallets={WALLET: left},
        wallet_versions={WALLET: 8},
    )
    assert rows.open_payments == {(5, "order-1"): OpenPayment(payment_id(1), Status.APPROVED)}


def test_a_refund_through_the_api_has_no_terminal() -> None:
    (outcome,), changes = run(sold(), refund(901, 300, terminal=None))
    assert refunded(outcome).refund.terminal_number is None
    assert changes.refunds[0].terminal_number is None


@pytest.mark.parametrize(
    ("amounts", "expected", "refunded_minor"),
    [
        ([1_000], ["refunded"], 1_000),
        ([1_001], ["refund_exceeds_remaining"], 0),
        ([400, 600], ["refunded", "refunded"], 1_000),
        ([400, 601], ["refunded", "refund_exceeds_remaining"], 400),
        ([400, 601, 600], ["refunded", "refund_exceeds_remaining", "refunded"], 1_000),
        ([1_000, 1], ["refunded", "refund_exceeds_remaining"], 1_000),
    ],
    ids=str,
)
@pytest.mark.parametrize("batches", [1, 2], ids=["in one batch", "each in its own"])
def test_refunds_never_exceed_the_payment(
    amounts: list[int], expected: list[str], refunded_minor: int, batches: int
) -> None:
    rows = sold()
    wishes = [refund(901 + n, amount) for n, amount in enumerate(amounts)]
    outcomes = [outcome for part in parts(wishes, batches) for outcome in run(rows, *part)[0]]
    assert verdicts(outcomes) == expected
    payment = rows.payments[key(1)]
    assert (payment.refunded_minor, payment.refunds) == (refunded_minor, expected.count("refunded"))
    assert payment.version == 1 + expected.count("refunded")
    assert rows.wallets[WALLET].balance_minor == 9_000 + refunded_minor


@pytest.mark.parametrize("batches", [1, 2], ids=["in one batch", "each in its own"])
def test_a_repeated_refund_is_made_once(batches: int) -> None:
    rows = sold()
    wishes = [refund(901, 300), refund(902, 200), refund(901, 300, terminal=None)]
    outcomes = [outcome for part in parts(wishes, batches) for outcome in run(rows, *part)[0]]
    first, second, again = (refunded(outcome) for outcome in outcomes)
    assert [first.replayed, second.replayed, again.replayed] == [False, False, True]
    assert again.refund == first.refund
    # The repeat returns the current payment and wallet.
    assert (again.payment, again.wallet) == (second.payment, second.wallet)
    assert rows.wallets[WALLET].balance_minor == 9_500


def test_a_repeated_refund_returns_the_stored_refund() -> None:
    rows = sold()
    run(rows, refund(901, 1_000))
    rows.terminals[11] = replace(ACCEPTOR, terminal_status=TerminalStatus.DISABLED)
    outcomes, changes = run(rows, refund(901, 1_000), now_ms=YEAR_LATER_MS * 2)
    assert verdicts(outcomes) == ["refunded"]
    assert changes == Changeset()


@pytest.mark.parametrize(
    ("cancel_request", "error"),
    [
        pytest.param(refund(901, 301), ErrorCode.ID_REUSED, id="id taken, another amount"),
        pytest.param(refund(901, 300, 2), ErrorCode.ID_REUSED, id="id taken, another payment"),
        pytest.param(refund(902, 1, 99), ErrorCode.PAYMENT_UNKNOWN, id="no such payment"),
        pytest.param(refund(902, 1, terminal=21, merchant=6), ErrorCode.PAYMENT_UNKNOWN, id="of another merchant"),
        pytest.param(refund(902, 1, 7), ErrorCode.PAYMENT_UNKNOWN, id="a tombstone"),
        pytest.param(refund(902, 1, terminal=13), ErrorCode.TERMINAL_DISABLED, id="at a disabled till"),
        pytest.param(refund(902, 1, 3), ErrorCode.NOT_REFUNDABLE, id="canceled"),
        pytest.param(refund(902, 1, 4), ErrorCode.NOT_REFUNDABLE, id="declined"),
        pytest.param(refund(902, 701), ErrorCode.REFUND_EXCEEDS_REMAINING, id="more than the rest"),
    ],
)
def test_rejected_refunds(cancel_request: CreateRefund, error: ErrorCode) -> None:
    rows = sold(1_000, 1_000, 1_000, 99_999)
    rows.terminals[13] = replace(ACCEPTOR, terminal_status=TerminalStatus.DISABLED)
    run(rows, refund(901, 300), cancel(3), cancel(7))
    outcomes, changes = run(rows, cancel_request)
    assert outcomes == [Refused(cancel_request, error)]
    assert changes == Changeset()


@pytest.mark.parametrize(("now_ms", "verdict"), [(YEAR_LATER_MS, "refunded"), (YEAR_LATER_MS + 1, "refund_too_late")])
def test_the_refund_window(now_ms: int, verdict: str) -> None:
    assert verdicts(run(sold(), refund(901, 1), now_ms=now_ms)[0]) == [verdict]


def test_the_number_of_refunds_is_limited() -> None:
    rules = replace(WIDE, refunds_max=3)
    outcomes, _ = run(sold(), *(refund(901 + n, 1) for n in range(4)), refund(901, 1), rules=rules)
    assert verdicts(outcomes) == ["refunded", "refunded", "refunded", "too_many_refunds", "refunded"]
