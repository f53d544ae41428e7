"""Archived payments and refunds keep their ids and can never be changed."""

import pytest

from pos_server.core.errors import ErrorCode
from pos_server.core.payments.operations import CreateRefund, MoveCash, Operation, Refused
from pos_server.core.payments.payment import Purpose, Status
from pos_server.core.payments.snapshot import Changeset, OpenPayment, Snapshot
from tests.copies import replace
from tests.core.payments.builders import WALLET, cancel, decided, key, payment_id, refund, run, scan, snapshot, verdicts


def archived() -> Snapshot:
    """Return rows with the paid payment 1, the tombstone 2 and the refund 901 archived. Payment 3 is paid."""
    rows = snapshot()
    run(rows, scan(3))
    rows.archived = {key(1), key(2)}
    rows.archived_refunds = {key(901)}
    rows.open_payments |= {
        (5, "order-1"): OpenPayment(payment_id(1), Status.APPROVED),
        (5, "order-2"): OpenPayment(payment_id(2), Status.CANCELED),
    }
    return rows


TOP_UP = MoveCash(payment_id(1), 5, WALLET, "receipt", 100, "EUR", Purpose.TOP_UP)


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        pytest.param(scan(1), ErrorCode.PAYMENT_ARCHIVED, id="scan"),
        pytest.param(scan(1, code="nonsense"), ErrorCode.PAYMENT_ARCHIVED, id="scan with another body"),
        pytest.param(TOP_UP, ErrorCode.PAYMENT_ARCHIVED, id="top-up"),
        pytest.param(cancel(1), ErrorCode.PAYMENT_ARCHIVED, id="cancel"),
        pytest.param(cancel(None, reference="order-1"), ErrorCode.PAYMENT_ARCHIVED, id="cancel of the order"),
        pytest.param(cancel(None, reference="order-2"), ErrorCode.PAYMENT_ARCHIVED, id="cancel of a canceled order"),
        pytest.param(refund(902, 1), ErrorCode.PAYMENT_ARCHIVED, id="refund"),
        pytest.param(refund(901, 1), ErrorCode.PAYMENT_ARCHIVED, id="the archived refund"),
        pytest.param(refund(901, 1, 3), ErrorCode.ID_REUSED, id="the id of the archived refund"),
    ],
)
def test_operations_on_archived_payments_are_rejected(operation: Operation, error: ErrorCode) -> None:
    outcomes, changes = run(archived(), operation)
    assert outcomes == [Refused(operation, error)]
    assert changes == Changeset()


def test_the_order_of_an_archived_payment_stays_closed() -> None:
    rows = archived()
    again, after_cancel = run(rows, scan(4, seq=1, reference="order-1"), scan(5, seq=2, reference="order-2"))[0]
    assert verdicts([again, after_cancel]) == ["already_paid", "canceled"]
    assert decided(again).payment.paid_by == payment_id(1)
    assert rows.wallets[WALLET].balance_minor == 9_000


def test_a_refund_may_have_the_id_of_an_archived_payment() -> None:
    refund_request: CreateRefund = replace(refund(902, 1, 3), refund_id=payment_id(1))
    assert verdicts(run(archived(), refund_request)[0]) == ["refunded"]
