"""What became of a step, and whether that is a failure. Pure.

A decline that the flow provokes is a success. A failure is: another outcome than the flow must have, an error that is
not retryable, no notice within its bound, a balance that is not what it must be.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pos_server.core.credentials.payment_code import STEP_S


@dataclass(frozen=True, slots=True)
class Outcome:
    """A payment's status with its decline code, or `error` with the error's code."""

    status: str
    code: str | None = None

    def __str__(self) -> str:
        return f"{self.status} ({self.code})" if self.code else self.status


APPROVED = Outcome("approved")
PENDING = Outcome("pending")
CANCELED = Outcome("canceled")
REFUNDED = Outcome("refunded")
INSUFFICIENT_FUNDS = Outcome("declined", "insufficient_funds")
ALREADY_PAID = Outcome("declined", "already_paid")
_CODE_EXPIRED = Outcome("declined", "code_expired")
_OF_TYPE = {
    "payment.pending": PENDING,
    "payment.confirmation_required": PENDING,
    "refund.result": REFUNDED,
    "pin.changed": APPROVED,
}


class Failure(Exception):
    """A step failed. The text says how, without anything that differs from payment to payment."""


def outcome_of(message: Mapping[str, Any]) -> Outcome:
    """What a message says about its payment."""
    if message["type"] == "error":
        return Outcome("error", message["code"])
    if message["type"] == "payment.result":
        # That is how a refund is replayed.
        if message["status"] == APPROVED.status and message["refunded_minor"]:
            return REFUNDED
        return Outcome(message["status"], message["decline_code"])
    return _OF_TYPE.get(message["type"], Outcome(message["type"]))


def failure_of(got: Outcome, expected: Outcome, *, away_s: float = 0.0) -> str | None:
    """What is wrong with this outcome; None when nothing is.

    A code lives for a step or two. A scan that could not be sent for longer than one, since the server was away, is
    rightly declined.
    """
    if got == expected or (got == _CODE_EXPIRED and away_s >= STEP_S):
        return None
    return f"expected {expected}, got {got}"


def balance_failure(got_minor: int, expected_minor: int) -> str | None:
    """What is wrong with this balance; None when nothing is."""
    if got_minor == expected_minor:
        return None
    return "the wallet holds too " + ("much" if got_minor > expected_minor else "little")
