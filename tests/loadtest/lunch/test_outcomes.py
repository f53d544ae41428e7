"""Outcomes and failures of steps, and the check of the books."""

from typing import Any

import pytest

from loadtest.lunch.back_office import balances_after, payment_problems
from loadtest.lunch.outcomes import (
    ALREADY_PAID,
    APPROVED,
    CANCELED,
    INSUFFICIENT_FUNDS,
    PENDING,
    REFUNDED,
    Outcome,
    balance_failure,
    failure_of,
    outcome_of,
)
from loadtest.lunch.recorder import Measurements, PaymentRecord, Recorder


def result(status: str, decline_code: str | None = None, refunded_minor: int = 0) -> dict[str, Any]:
    return {
        "type": "payment.result",
        "status": status,
        "decline_code": decline_code,
        "refunded_minor": refunded_minor,
    }


@pytest.mark.parametrize(
    ("message", "outcome"),
    [
        (result("approved"), APPROVED),
        (result("declined", "insufficient_funds"), INSUFFICIENT_FUNDS),
        (result("declined", "already_paid"), ALREADY_PAID),
        (result("canceled"), CANCELED),
        (result("approved", refunded_minor=1), REFUNDED),
        ({"type": "refund.result"}, REFUNDED),
        ({"type": "payment.pending"}, PENDING),
        ({"type": "payment.confirmation_required"}, PENDING),
        ({"type": "error", "code": "id_reused"}, Outcome("error", "id_reused")),
        ({"type": "news"}, Outcome("news")),
    ],
)
def test_outcomes_of_messages(message: dict[str, Any], outcome: Outcome) -> None:
    assert outcome_of(message) == outcome


def test_a_decline_that_the_flow_provokes_is_not_a_failure() -> None:
    assert failure_of(INSUFFICIENT_FUNDS, INSUFFICIENT_FUNDS) is None
    assert failure_of(ALREADY_PAID, ALREADY_PAID) is None


def test_any_other_outcome_is_a_failure() -> None:
    assert failure_of(APPROVED, INSUFFICIENT_FUNDS) == "expected declined (insufficient_funds), got approved"
    assert failure_of(Outcome("error", "id_reused"), APPROVED) == "expected approved, got error (id_reused)"
    assert failure_of(APPROVED, ALREADY_PAID) is not None


def test_a_code_may_expire_only_while_the_server_is_unreachable() -> None:
    expired = Outcome("declined", "code_expired")
    assert failure_of(expired, APPROVED) == "expected approved, got declined (code_expired)"
    assert failure_of(expired, APPROVED, away_s=29.9) is not None
    assert failure_of(expired, APPROVED, away_s=30.0) is None
    assert failure_of(Outcome("declined", "code_used"), APPROVED, away_s=30.0) is not None


def test_a_wrong_balance_is_a_failure() -> None:
    assert balance_failure(100, 100) is None
    assert balance_failure(99, 100) == "the wallet holds too little"
    assert balance_failure(101, 100) == "the wallet holds too much"


PAID = PaymentRecord("a", 1, 500, "approved", None, 0)
REFUSED = PaymentRecord("b", 1, 900, "declined", "insufficient_funds", 0)
REFUNDED_IN_PART = PaymentRecord("c", 2, 700, "approved", None, 300)


def test_the_books_agree_if_each_payment_exists_once_with_its_outcome() -> None:
    assert payment_problems([PAID, REFUSED], [REFUSED, PAID]) == []


@pytest.mark.parametrize(
    ("stored", "problems"),
    [
        ([REFUSED], ["only the till knows: ('a', 500, 'approved', None, 0)"]),
        ([PAID, PAID, REFUSED], ["only the ledger knows: ('a', 500, 'approved', None, 0)"]),
        (
            [PAID, PaymentRecord("b", 1, 900, "approved")],
            [
                "only the till knows: ('b', 900, 'declined', 'insufficient_funds', 0)",
                "only the ledger knows: ('b', 900, 'approved', None, 0)",
            ],
        ),
    ],
    ids=["lost", "duplicate", "another outcome"],
)
def test_lost_duplicate_and_different_payments_are_reported(stored: list[PaymentRecord], problems: list[str]) -> None:
    assert payment_problems([PAID, REFUSED], stored) == problems


def test_expected_balances_follow_from_the_payments() -> None:
    canceled = PaymentRecord("d", 2, 100, "canceled")
    assert balances_after({1: 1000, 2: 1000, 3: 50}, [PAID, REFUSED, REFUNDED_IN_PART, canceled]) == {
        1: 500,
        2: 600,
        3: 50,
    }


def test_measurements_add_up_to_the_reports_to_locust() -> None:
    requests: list[dict[str, Any]] = []
    recorder = Recorder(lambda **request: requests.append(request))
    recorder.success("scan → terminal", 0.0042)
    recorder.failure("scan → wallet", 5.0, ValueError("no message"))
    recorder.payment(PAID)
    recorder.flow("approve")
    measurements = Measurements()
    measurements.add(recorder.drain())
    recorder.success("scan → terminal", 0.0065)
    measurements.add(recorder.drain())
    measurements.add(recorder.drain())
    assert [(request["name"], request["response_time"], request["exception"] is None) for request in requests] == [
        ("scan → terminal", 4.2, True),
        ("scan → wallet", 5000.0, False),
        ("scan → terminal", 6.5, True),
    ]
    assert measurements.latencies["scan → terminal"].us.tolist() == [4200, 6500]
    assert (measurements.payments, measurements.flows) == ([PAID], {"approve": 1})
    assert measurements.failures == {"scan → wallet: no message": 1}
