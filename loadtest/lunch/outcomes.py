"""Outcomes of steps, and which of them are failures. Pure.

A decline that the flow provokes is a success. Failures are an unexpected outcome, an error that is not retryable, a
missing notice, and a wrong balance.
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
_OUTCOME_BY_TYPE = {
    "payment.pending": PENDING,
    "payment.confirmation_required": PENDING,
    "refund.result": REFUNDED,
    "pin.changed": APPROVED,
}


class Failure(Exception):
    """A step failed. The text is the same for all payments with this failure, so that it can be counted."""


def outcome_of(message: Mapping[str, Any]) -> Outcome:
    """Return the outcome that a message reports."""
    if message["type"] == "error":
        return Outcome("error", message["code"])
    if message["type"] == "payment.result":
        # The replay of a refund is an approved payment with a refunded amount.
        if message["status"] == APPROVED.status and message["refunded_minor"]:
            return REFUNDED
        return Outcome(message["status"], message["decline_code"])
    return _OUTCOME_BY_TYPE.get(message["type"], Outcome(message["type"]))


def failure_of(outcome: Outcome, expected: Outcome, *, away_s: float = 0.0) -> str | None:
    """Describe an unexpected outcome; returns None for an expected one.

    A code is valid for one or two steps. If the server was unreachable for longer than one (`away_s`), an expired code
    is expected.
    """
    if outcome == expected or (outcome == _CODE_EXPIRED and away_s >= STEP_S):
        return None
    return f"expected {expected}, got {outcome}"


def balance_failure(balance_minor: int, expected_minor: int) -> str | None:
    """Describe a wrong balance; returns None for a correct one."""
    if balance_minor == expected_minor:
        return None
    return "the wallet holds too " + ("much" if balance_minor > expected_minor else "little")
