"""decide() of cancels and refunds that meet other operations in one batch."""

from collections.abc import Sequence

import pytest

from pos_server.core.payments.operations import Operation, Refused
from pos_server.core.payments.snapshot import (
    TransferKind,
    Wallet,
)
from tests.core.payments.builders import (
    WALLET,
    cancel,
    payment_id,
    refund,
    run,
    scan,
    snapshot,
    verdicts,
)


def parts(operations: Sequence[Operation], batches: int) -> list[Sequence[Operation]]:
    return [operations] if batches == 1 else [[operation] for operation in operations]


@pytest.mark.parametrize(
    ("operations", "expected", "left"),
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
def test_operations_on_one_payment_in_one_batch(
    operations: list[Operation], expected: list[str], left: int, batches: int
) -> None:
    rows = snapshot()
    outcomes, moved = [], 0
    for part in parts(operations, batches):
        done, changes = run(rows, *part)
        outcomes += done
        moved += sum(t.amount_minor * (1 if t.debit_account_id == 901 else -1) for t in changes.transfers)
    assert verdicts(outcomes) == expected
    assert (rows.wallets[WALLET].balance_minor, moved) == (left, 10_000 - left)


def test_each_outcome_has_the_wallet_after_its_decision() -> None:
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
