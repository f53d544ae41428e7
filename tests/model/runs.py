"""Runs of the state machine on a ledger. POS_TEST_PROFILE=nightly takes twenty times as many examples."""

import os
from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from pos_server.core.errors import ErrorCode
from pos_server.core.payments.declines import DeclineCode
from pos_server.core.payments.payment import Status
from tests.model.ledger import Ledger
from tests.model.life_of_payments import LifeOfPayments

IS_NIGHTLY = os.environ.get("POS_TEST_PROFILE") == "nightly"
EVERYDAY = settings(stateful_step_count=100, report_multiple_bugs=False, suppress_health_check=list(HealthCheck))
NIGHTLY = settings(EVERYDAY, derandomize=False, print_blob=True)
STEPS_OF_EXAMPLE_MIN = 20

# All outcomes; a nightly run must reach each of them.
EVERYTHING = (
    ({*Status} - {Status.DECLINED})
    | {*DeclineCode}
    | {
        ErrorCode.ID_REUSED,
        ErrorCode.PAYMENT_UNKNOWN,
        ErrorCode.TERMINAL_DISABLED,
        ErrorCode.WALLET_UNKNOWN,
        ErrorCode.FUNDS_SPENT,
        ErrorCode.CANCEL_TOO_LATE,
        ErrorCode.ALREADY_REFUNDED,
        ErrorCode.NOT_REFUNDABLE,
        ErrorCode.REFUND_TOO_LATE,
        ErrorCode.REFUND_EXCEEDS_REMAINING,
        ErrorCode.TOO_MANY_REFUNDS,
        ErrorCode.BUSY,
    }
)


def live(ledger: Ledger, *, examples: int) -> None:
    """Run the machine on a ledger. A nightly run must reach every outcome."""
    examples *= 20 if IS_NIGHTLY else 1
    machine = type("LifeOfPaymentsInLedger", (LifeOfPayments,), {"ledger": ledger, "steps": 0, "met": Counter()})
    profile = NIGHTLY if IS_NIGHTLY else EVERYDAY
    run_state_machine_as_test(machine, settings=settings(profile, max_examples=examples))
    print(f"{machine.steps} steps, {machine.met.total()} requests: ledger and model agreed")  # noqa: T201
    assert machine.steps >= STEPS_OF_EXAMPLE_MIN * examples
    if IS_NIGHTLY:
        assert EVERYTHING - machine.met.keys() == set()
