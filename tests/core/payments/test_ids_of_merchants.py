"""Two merchants use the same ids and order numbers at the same time: 5 at the terminal 11, and 6 at the terminal 21."""

from typing import Any

import pytest

from pos_server.core.payments.operations import MoveCash, Operation, Scan
from pos_server.core.payments.payment import Purpose
from pos_server.core.payments.snapshot import Snapshot, Transfer, TransferKind
from tests.core.payments.builders import (
    ASKING,
    CASH_IN,
    OTHER_WALLET,
    WALLET,
    cancel,
    code,
    confirm,
    decided,
    expire,
    key,
    payment_id,
    refund,
    reject,
    run,
    scan,
    snapshot,
    verdicts,
)

SAME_WALLET: dict[str, Any] = {"code": code(5)}
OTHER_WALLETS_CODE: dict[str, Any] = {"code": code(wallet=OTHER_WALLET)}


def at_6(number: int = 1, **fields: Any) -> Scan:
    """Return a scan of merchant 6 with the id and the order of merchant 5's scan."""
    return scan(number, terminal_number=21, merchant_id=6, **(OTHER_WALLETS_CODE | fields))


def outcomes_of(rows: Snapshot, batches: int, *operations: Operation) -> list[str]:
    if batches == 1:
        return verdicts(run(rows, *operations, rules=ASKING)[0])
    return [verdict for operation in operations for verdict in verdicts(run(rows, operation, rules=ASKING)[0])]


@pytest.mark.parametrize("batches", [1, 2], ids=["in one batch", "each in its own"])
@pytest.mark.parametrize("fields", [SAME_WALLET, OTHER_WALLETS_CODE], ids=["one wallet", "two wallets"])
def test_both_are_paid_and_both_are_repeated(fields: dict[str, Any], batches: int) -> None:
    rows = snapshot()
    first, second = scan(1, amount_minor=300), at_6(1, amount_minor=500, **fields)
    assert outcomes_of(rows, batches, first, second, second, first) == ["approved"] * 4
    amounts = {payment_key: payment.amount_minor for payment_key, payment in rows.payments.items()}
    assert amounts == {key(1, 5): 300, key(1, 6): 500}
    assert sum(wallet.balance_minor for wallet in rows.wallets.values()) == 20_000 - 800


def test_each_transfer_names_its_merchant() -> None:
    _, changes = run(snapshot(), scan(1), at_6(1), refund(901, 400), refund(901, 300, terminal=21, merchant=6))
    assert changes.transfers == [
        Transfer(TransferKind.PAYMENT, payment_id(1), 901, 500, 1_000, "EUR", WALLET, 5),
        Transfer(TransferKind.PAYMENT, payment_id(1), 902, 600, 1_000, "EUR", OTHER_WALLET, 6),
        Transfer(TransferKind.REFUND, payment_id(901), 500, 901, 400, "EUR", WALLET, 5),
        Transfer(TransferKind.REFUND, payment_id(901), 600, 902, 300, "EUR", OTHER_WALLET, 6),
    ]


@pytest.mark.parametrize("batches", [1, 2], ids=["in one batch", "each in its own"])
@pytest.mark.parametrize(
    ("requests", "verdicts_expected", "statuses"),
    [
        pytest.param([cancel(1, terminal=21)], ["canceled"], ("approved", "canceled"), id="cancel"),
        pytest.param(
            [cancel(None, reference="order-1", terminal=21)], ["canceled"], ("approved", "canceled"), id="by reference"
        ),
        pytest.param(
            [refund(901, 1_000, terminal=21, merchant=6), cancel(1)],
            ["refunded", "canceled"],
            ("canceled", "approved"),
            id="refund one, cancel the other",
        ),
        pytest.param(
            [refund(901, 600), refund(901, 600, terminal=21, merchant=6), refund(901, 600)],
            ["refunded", "refunded", "refunded"],
            ("approved", "approved"),
            id="refunds with one id",
        ),
    ],
)
def test_a_request_changes_the_own_payment_only(
    requests: list[Operation], verdicts_expected: list[str], statuses: tuple[str, str], batches: int
) -> None:
    rows = snapshot()
    outcomes = outcomes_of(rows, batches, scan(1), at_6(1), *requests)
    assert outcomes == ["approved", "approved", *verdicts_expected]
    assert (str(rows.payments[key(1, 5)].status), str(rows.payments[key(1, 6)].status)) == statuses


def test_the_other_merchants_payment_cannot_be_refunded() -> None:
    rows = snapshot()
    assert outcomes_of(rows, 1, scan(1), refund(901, 1, terminal=21, merchant=6)) == ["approved", "payment_unknown"]


def test_a_cancel_before_the_scan_closes_the_own_id_only() -> None:
    rows = snapshot()
    requests = [cancel(1, terminal=21), scan(1), at_6(1)]
    assert outcomes_of(rows, 1, *requests) == ["canceled", "approved", "canceled"]


@pytest.mark.parametrize("batches", [1, 2], ids=["in one batch", "each in its own"])
def test_one_wallet_confirms_one_and_rejects_the_other(batches: int) -> None:
    rows = snapshot()
    pending = [scan(1, amount_minor=2_000), at_6(1, amount_minor=3_000, **SAME_WALLET)]
    assert outcomes_of(rows, batches, *pending) == ["pending", "pending"]
    answers = [reject(merchant=6), confirm(merchant=5), confirm(merchant=6), expire(merchant=5), reject(merchant=7)]
    expected = ["customer_rejected", "approved", "customer_rejected", "approved", "payment_unknown"]
    assert outcomes_of(rows, batches, *answers) == expected
    assert rows.wallets[WALLET].balance_minor == 8_000


def test_a_wrong_pin_counts_for_the_named_payment() -> None:
    rows = snapshot()
    outcomes_of(rows, 1, scan(1, amount_minor=2_000), at_6(1, amount_minor=3_000, **SAME_WALLET))
    outcomes_of(rows, 1, confirm(merchant=6, correct=False))
    assert (rows.payments[key(1, 5)].pin_failures, rows.payments[key(1, 6)].pin_failures) == (0, 1)


def test_cash_of_two_merchants_with_one_id() -> None:
    rows = snapshot()
    moves = [
        MoveCash(payment_id(1), merchant, WALLET, "receipt", amount, "EUR", Purpose.TOP_UP)
        for merchant, amount in ((5, 100), (6, 200), (5, 100))
    ]
    outcomes, changes = run(rows, *moves)
    assert verdicts(outcomes) == ["approved"] * 3
    assert [decided(outcome).replayed for outcome in outcomes] == [False, False, True]
    assert changes.transfers == [
        Transfer(TransferKind.TOP_UP, payment_id(1), CASH_IN, 901, 100, "EUR", WALLET, 5),
        Transfer(TransferKind.TOP_UP, payment_id(1), CASH_IN, 901, 200, "EUR", WALLET, 6),
    ]


def test_an_archived_id_belongs_to_its_merchant() -> None:
    rows = snapshot()
    rows.archived = {key(1, 5)}
    rows.archived_refunds = {key(901, 5)}
    requests = [scan(1), at_6(1), refund(901, 100, terminal=21, merchant=6), cancel(1)]
    assert outcomes_of(rows, 1, *requests) == ["payment_archived", "approved", "refunded", "payment_archived"]
