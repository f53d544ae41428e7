"""decide() of what a till or a merchant takes back: cancel and refund. Rows in, outcomes out."""

from collections.abc import Sequence
from typing import Any

import pytest

from pos_server.core.errors import ErrorCode
from pos_server.core.payments.operations import Cancel, CreateRefund, Decided, Operation, Refunded, Refused
from pos_server.core.payments.payment import Payment, Refund, Status
from pos_server.core.payments.snapshot import (
    Changeset,
    MerchantStatus,
    OpenPayment,
    Snapshot,
    TerminalStatus,
    Transfer,
    TransferKind,
    Wallet,
    WalletStatus,
)
from tests.copies import replace
from tests.core.payments.deciding import (
    ACCEPTOR,
    DAY_MS,
    DAY_START_MS,
    NOW_MS,
    WALLET,
    WIDE,
    after,
    cancel,
    code,
    decided,
    forged,
    payment_id,
    refund,
    refunded,
    run,
    scan,
    snapshot,
    verdicts,
    wallet,
)

DAY_LATER_MS = NOW_MS + 24 * 3_600_000
YEAR_LATER_MS = NOW_MS + 365 * 24 * 3_600_000


def sold(amount_minor: int = 1_000, *others: int) -> Snapshot:
    """Payment 1 of the first wallet, approved, and perhaps others. The wallet's version goes up by one each."""
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


# --- cancel


@pytest.mark.parametrize(
    "wish",
    [
        pytest.param(cancel(1), id="by id"),
        pytest.param(cancel(None, reference="order-1"), id="by reference"),
        pytest.param(cancel(1, terminal=12), id="at another till"),
        pytest.param(cancel(None, reference="order-1", terminal=12), id="by reference, at another till"),
    ],
)
def test_a_cancel_gives_the_money_back(wish: Cancel) -> None:
    rows = sold(1_234)
    outcomes, changes = run(rows, wish, now_ms=NOW_MS + 1)
    payment = paid(1_234, status=Status.CANCELED, version=2, changed_at_ms=NOW_MS + 1)
    # The day's allowance comes back, what was paid without a PIN does not.
    left = replace(wallet(), version=9, day_pin_free_minor=1_234, day_pin_free_count=1)
    assert outcomes == [Decided(wish, payment, ACCEPTOR, left)]
    assert changes == Changeset(
        payments={payment_id(1): payment},
        payment_versions={payment_id(1): 1},
        transfers=[Transfer(TransferKind.CANCEL, payment_id(1), 500, 901, 1_234, "EUR", WALLET)],
        wallets={WALLET: left},
        wallet_versions={WALLET: 8},
    )
    assert rows.open_payments == {(5, "order-1"): OpenPayment(payment_id(1), Status.CANCELED)}


@pytest.mark.parametrize(
    ("wish", "number", "reference"),
    [
        pytest.param(cancel(7), 7, None, id="by id"),
        pytest.param(cancel(None, reference="order-7", tombstone=900), 900, "order-7", id="by reference"),
    ],
)
def test_a_cancel_of_what_was_never_seen_leaves_a_tombstone(wish: Cancel, number: int, reference: str | None) -> None:
    rows = snapshot()
    outcomes, changes = run(rows, wish)
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
    assert outcomes == [Decided(wish, tombstone, ACCEPTOR, None)]
    assert changes == Changeset(payments={payment_id(number): tombstone}, payment_versions={payment_id(number): 0})
    expected = {(5, reference): OpenPayment(payment_id(number), Status.CANCELED)} if reference else {}
    assert rows.open_payments == expected


@pytest.mark.parametrize(
    ("before", "wish", "status"),
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
def test_a_cancel_of_what_cannot_be_paid_changes_nothing(
    before: list[Operation], wish: Cancel, status: str, batches: int
) -> None:
    rows = sold()
    said = [outcome for part in parts([*before, wish], batches) for outcome in run(rows, *part)[0]]
    payment = decided(said[-2]).payment
    assert verdicts(said)[-1] == status
    assert (decided(said[-1]).payment, decided(said[-1]).replayed) == (payment, True)


def test_a_cancel_after_a_decline_closes_the_order() -> None:
    """By its reference: of the order there is nothing but what failed, and the next try may be on its way."""
    rows = snapshot()
    tries = [scan(1, code=forged(code())), cancel(None, reference="order-1"), scan(2, reference="order-1")]
    outcomes, _ = run(rows, *tries)
    assert verdicts(outcomes) == ["code_invalid", "canceled", "canceled"]
    assert decided(outcomes[1]).payment.is_tombstone


@pytest.mark.parametrize(
    ("wish", "error"),
    [
        pytest.param(cancel(1, terminal=21), ErrorCode.ID_REUSED, id="of another merchant"),
        pytest.param(cancel(7, terminal=21), ErrorCode.ID_REUSED, id="another merchant's tombstone"),
        pytest.param(cancel(1, terminal=13), ErrorCode.TERMINAL_DISABLED, id="at a disabled till"),
        pytest.param(cancel(8, terminal=13), ErrorCode.TERMINAL_DISABLED, id="never seen, at a disabled till"),
        pytest.param(cancel(2), ErrorCode.ALREADY_REFUNDED, id="refunded in part"),
        pytest.param(cancel(3), ErrorCode.ALREADY_REFUNDED, id="refunded whole"),
    ],
)
def test_cancels_that_are_refused(wish: Cancel, error: ErrorCode) -> None:
    rows = sold(1_000, 1_000, 1_000)
    rows.terminals[13] = replace(ACCEPTOR, terminal_status=TerminalStatus.DISABLED)
    run(rows, refund(902, 1, 2), refund(903, 1_000, 3), cancel(7))
    outcomes, changes = run(rows, wish)
    assert outcomes == [Refused(wish, error)]
    assert changes == Changeset()


@pytest.mark.parametrize(("now_ms", "said"), [(DAY_LATER_MS, "canceled"), (DAY_LATER_MS + 1, "cancel_too_late")])
def test_the_window_of_a_cancel(now_ms: int, said: str) -> None:
    assert verdicts(run(sold(), cancel(1), now_ms=now_ms)[0]) == [said]


def test_a_cancel_is_for_its_own_merchant_only() -> None:
    """Another merchant may have an order of the same number: it gets a tombstone of its own."""
    rows = sold()
    outcomes, _ = run(rows, cancel(None, reference="order-1", terminal=21))
    assert verdicts(outcomes) == ["canceled"]
    assert decided(outcomes[0]).payment.payment_id == payment_id(900)
    assert rows.payments[payment_id(1)] == paid()


@pytest.mark.parametrize(
    ("of_wallet", "spent_minor"),
    [
        pytest.param({}, 0, id="on the day of the payment"),
        pytest.param(
            {"day_start_ms": DAY_START_MS + DAY_MS, "day_spent_minor": 300}, 300, id="on a day that has begun anew"
        ),
        pytest.param({"day_spent_minor": 400}, 0, id="never below 0"),
    ],
)
def test_the_days_allowance_after_a_cancel(of_wallet: dict[str, int], spent_minor: int) -> None:
    rows = sold()
    rows.wallets[WALLET] = replace(rows.wallets[WALLET], **of_wallet)
    run(rows, cancel(1), now_ms=DAY_LATER_MS)
    assert rows.wallets[WALLET].day_spent_minor == spent_minor
    assert rows.wallets[WALLET].balance_minor == 10_000


@pytest.mark.parametrize("status", [WalletStatus.FROZEN, WalletStatus.CLOSED])
@pytest.mark.parametrize("wish", [cancel(1), refund(901, 1_000)], ids=["cancel", "refund"])
def test_money_comes_back_whatever_has_become_of_the_wallet(wish: Operation, status: WalletStatus) -> None:
    rows = sold()
    rows.wallets[WALLET] = replace(rows.wallets[WALLET], status=status)
    run(rows, wish)
    assert rows.wallets[WALLET].balance_minor == 10_000


@pytest.mark.parametrize("wish", [cancel(1), refund(901, 1_000)], ids=["cancel", "refund"])
def test_money_comes_back_from_an_inactive_merchant(wish: Operation) -> None:
    rows = sold()
    rows.terminals[11] = replace(ACCEPTOR, merchant_status=MerchantStatus.INACTIVE)
    run(rows, wish)
    assert rows.wallets[WALLET].balance_minor == 10_000


# --- refund


def test_a_refund_of_a_part() -> None:
    rows = sold(1_000)
    wish = refund(901, 300, terminal=12)
    outcomes, changes = run(rows, wish, now_ms=NOW_MS + 1)
    payment = paid(version=2, changed_at_ms=NOW_MS + 1, refunded_minor=300, refunds=1)
    made = Refund(payment_id(901), payment_id(1), 5, 12, WALLET, 300, "EUR", NOW_MS + 1)
    left = replace(after(9, 1_000), balance_minor=9_300)  # the day's allowance stays spent
    assert outcomes == [Refunded(wish, made, payment, ACCEPTOR, left)]
    assert changes == Changeset(
        payments={payment_id(1): payment},
        payment_versions={payment_id(1): 1},
        refunds=[made],
        transfers=[Transfer(TransferKind.REFUND, payment_id(901), 500, 901, 300, "EUR", WALLET)],
        wallets={WALLET: left},
        wallet_versions={WALLET: 8},
    )
    assert rows.open_payments == {(5, "order-1"): OpenPayment(payment_id(1), Status.APPROVED)}


def test_a_refund_through_the_api_has_no_terminal() -> None:
    (outcome,), changes = run(sold(), refund(901, 300, terminal=None))
    assert refunded(outcome).refund.terminal_number is None
    assert changes.refunds[0].terminal_number is None


@pytest.mark.parametrize(
    ("amounts", "said", "refunded_minor"),
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
def test_refunds_never_exceed_what_was_paid(
    amounts: list[int], said: list[str], refunded_minor: int, batches: int
) -> None:
    rows = sold()
    wishes = [refund(901 + n, amount) for n, amount in enumerate(amounts)]
    outcomes = [outcome for part in parts(wishes, batches) for outcome in run(rows, *part)[0]]
    assert verdicts(outcomes) == said
    payment = rows.payments[payment_id(1)]
    assert (payment.refunded_minor, payment.refunds) == (refunded_minor, said.count("refunded"))
    assert payment.version == 1 + said.count("refunded")
    assert rows.wallets[WALLET].balance_minor == 9_000 + refunded_minor


@pytest.mark.parametrize("batches", [1, 2], ids=["in one batch", "each in its own"])
def test_the_same_refund_twice_is_made_once(batches: int) -> None:
    rows = sold()
    wishes = [refund(901, 300), refund(902, 200), refund(901, 300, terminal=None)]
    outcomes = [outcome for part in parts(wishes, batches) for outcome in run(rows, *part)[0]]
    first, second, again = (refunded(outcome) for outcome in outcomes)
    assert [first.replayed, second.replayed, again.replayed] == [False, False, True]
    assert again.refund == first.refund
    # The payment and the wallet are shown as they are now.
    assert (again.payment, again.wallet) == (second.payment, second.wallet)
    assert rows.wallets[WALLET].balance_minor == 9_500


def test_a_refund_is_shown_again_whatever_has_changed_since() -> None:
    rows = sold()
    run(rows, refund(901, 1_000))
    rows.terminals[11] = replace(ACCEPTOR, terminal_status=TerminalStatus.DISABLED)
    outcomes, changes = run(rows, refund(901, 1_000), now_ms=YEAR_LATER_MS * 2)
    assert verdicts(outcomes) == ["refunded"]
    assert changes == Changeset()


@pytest.mark.parametrize(
    ("wish", "error"),
    [
        pytest.param(refund(901, 301), ErrorCode.ID_REUSED, id="id taken, another amount"),
        pytest.param(refund(901, 300, 2), ErrorCode.ID_REUSED, id="id taken, another payment"),
        pytest.param(refund(901, 300, terminal=21, merchant=6), ErrorCode.ID_REUSED, id="id taken, another merchant"),
        pytest.param(refund(902, 1, 99), ErrorCode.PAYMENT_UNKNOWN, id="no such payment"),
        pytest.param(refund(902, 1, terminal=21, merchant=6), ErrorCode.PAYMENT_UNKNOWN, id="of another merchant"),
        pytest.param(refund(902, 1, 7), ErrorCode.PAYMENT_UNKNOWN, id="a tombstone"),
        pytest.param(refund(902, 1, terminal=13), ErrorCode.TERMINAL_DISABLED, id="at a disabled till"),
        pytest.param(refund(902, 1, 3), ErrorCode.NOT_REFUNDABLE, id="canceled"),
        pytest.param(refund(902, 1, 4), ErrorCode.NOT_REFUNDABLE, id="declined"),
        pytest.param(refund(902, 701), ErrorCode.REFUND_EXCEEDS_REMAINING, id="more than the rest"),
    ],
)
def test_refunds_that_are_refused(wish: CreateRefund, error: ErrorCode) -> None:
    rows = sold(1_000, 1_000, 1_000, 99_999)
    rows.terminals[13] = replace(ACCEPTOR, terminal_status=TerminalStatus.DISABLED)
    run(rows, refund(901, 300), cancel(3), cancel(7))
    outcomes, changes = run(rows, wish)
    assert outcomes == [Refused(wish, error)]
    assert changes == Changeset()


@pytest.mark.parametrize(("now_ms", "said"), [(YEAR_LATER_MS, "refunded"), (YEAR_LATER_MS + 1, "refund_too_late")])
def test_the_window_of_refunds(now_ms: int, said: str) -> None:
    assert verdicts(run(sold(), refund(901, 1), now_ms=now_ms)[0]) == [said]


def test_a_payment_has_a_bounded_number_of_refunds() -> None:
    rules = replace(WIDE, refunds_max=3)
    outcomes, _ = run(sold(), *(refund(901 + n, 1) for n in range(4)), refund(901, 1), rules=rules)
    assert verdicts(outcomes) == ["refunded", "refunded", "refunded", "too_many_refunds", "refunded"]


# --- in one batch


@pytest.mark.parametrize(
    ("operations", "said", "left"),
    [
        pytest.param([scan(1), cancel(1)], ["approved", "canceled"], 10_000, id="scan, cancel"),
        pytest.param([cancel(1), scan(1)], ["canceled", "canceled"], 10_000, id="cancel, scan"),
        pytest.param([scan(1), cancel(1), scan(1)], ["approved", "canceled", "canceled"], 10_000, id="scan again"),
        pytest.param(
            [scan(1), cancel(None, reference="order-1"), scan(2, seq=1, reference="order-1")],
            ["approved", "canceled", "canceled"],
            10_000,
            id="the order again",
        ),
        pytest.param(
            [scan(1), refund(901, 400), cancel(1)],
            ["approved", "refunded", "already_refunded"],
            9_400,
            id="refund, cancel",
        ),
        pytest.param(
            [scan(1), cancel(1), refund(901, 400)],
            ["approved", "canceled", "not_refundable"],
            10_000,
            id="cancel, refund",
        ),
        pytest.param(
            [refund(901, 400), scan(1), refund(901, 400)],
            ["payment_unknown", "approved", "refunded"],
            9_400,
            id="a refund that came early",
        ),
        pytest.param([scan(1), cancel(1), cancel(1)], ["approved", "canceled", "canceled"], 10_000, id="cancel twice"),
        pytest.param(
            [cancel(None, reference="order-1"), cancel(None, reference="order-1", tombstone=901), scan(1)],
            ["canceled", "canceled", "canceled"],
            10_000,
            id="an order canceled twice",
        ),
        pytest.param(
            [scan(1, amount_minor=10_000), cancel(1), scan(2, seq=1, amount_minor=10_000)],
            ["approved", "canceled", "approved"],
            0,
            id="what came back can be spent",
        ),
    ],
)
@pytest.mark.parametrize("batches", [1, 2], ids=["in one batch", "each in its own"])
def test_what_comes_together(operations: list[Operation], said: list[str], left: int, batches: int) -> None:
    rows = snapshot()
    outcomes, moved = [], 0
    for part in parts(operations, batches):
        done, changes = run(rows, *part)
        outcomes += done
        moved += sum(t.amount_minor * (1 if t.debit_account_id == 901 else -1) for t in changes.transfers)
    assert verdicts(outcomes) == said
    assert (rows.wallets[WALLET].balance_minor, moved) == (left, 10_000 - left)


def test_the_wallets_of_a_batch_are_shown_as_each_decision_left_them() -> None:
    outcomes, changes = run(snapshot(), scan(1), scan(2, seq=1), cancel(1), refund(901, 500, 2))
    shown: list[Wallet | None] = [outcome.wallet for outcome in outcomes if not isinstance(outcome, Refused)]
    assert [found and (found.balance_minor, found.version) for found in shown] == [
        (9_000, 8),
        (8_000, 9),
        (9_000, 10),
        (9_500, 11),
    ]
    assert changes.wallet_versions == {WALLET: 7}
    assert [(transfer.kind, transfer.source_id, transfer.amount_minor) for transfer in changes.transfers] == [
        (TransferKind.PAYMENT, payment_id(1), 1_000),
        (TransferKind.PAYMENT, payment_id(2), 1_000),
        (TransferKind.CANCEL, payment_id(1), 1_000),
        (TransferKind.REFUND, payment_id(901), 500),
    ]
