"""Runs of the state machine on a ledger."""

from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from pos_server.core.errors import ErrorCode
from pos_server.core.payments.declines import DeclineCode
from pos_server.core.payments.payment import Status
from tests.model.ledger import Ledger
from tests.model.life_of_payments import LifeOfPayments

PROFILE = settings(
    stateful_step_count=100,
    report_multiple_bugs=False,
    derandomize=False,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
STEPS_OF_EXAMPLE_MIN = 20
# So many reach nearly every outcome.
EXAMPLES_OF_EVERYTHING = 800

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
    """Run the machine on a ledger, and print the outcomes that chance did not reach."""
    machine = type("LifeOfPaymentsInLedger", (LifeOfPayments,), {"ledger": ledger, "steps": 0, "met": Counter()})
    run_state_machine_as_test(machine, settings=settings(PROFILE, max_examples=examples))
    missing = sorted(EVERYTHING - machine.met.keys())
    print(f"{machine.steps} steps, {machine.met.total()} requests: ledger and model agreed; not reached: {missing}")  # noqa: T201
    assert machine.steps >= STEPS_OF_EXAMPLE_MIN * examples
