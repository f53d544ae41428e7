"""Submit an operation to the engine for a REST request. A rejected operation raises Problem."""

from ...core.errors import ErrorCode
from ...core.payments.operations import CreateRefund, Decided, Operation, Outcome, Refunded, Refused
from ...core.rest.problems import ProblemCode
from ...engine.authorizer import Authorizer, NotAccepted
from ...telemetry.logs import about_payment
from .problems import Problem, problem

_RETRY_AFTER_S = 1


class EngineClient:
    """Access to the engine. The methods raise Problem (404, 409, 410, 422, 429 or 503) with the error's code."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def decide(self, operation: Operation) -> Decided:
        """Submit an operation on a payment and return its outcome."""
        outcome = await self._submit_and_wait(operation)
        if not isinstance(outcome, Decided):
            raise AssertionError(f"the outcome of a payment is a {type(outcome).__name__}")
        return outcome

    async def refund(self, refund_request: CreateRefund) -> Refunded:
        """Submit a refund and return its outcome."""
        outcome = await self._submit_and_wait(refund_request)
        if not isinstance(outcome, Refunded):
            raise AssertionError(f"the outcome of a refund is a {type(outcome).__name__}")
        return outcome

    async def _submit_and_wait(self, operation: Operation) -> Outcome:
        about_payment(operation.payment_id)
        try:
            outcome = await self._authorizer.submit_and_wait(operation)
        except NotAccepted as refusal:
            raise _problem(refusal.code) from None
        if isinstance(outcome, Refused):
            raise _problem(outcome.code)
        about_payment(outcome.payment.payment_id)
        return outcome


def _problem(code: ErrorCode) -> Problem:
    if code is ErrorCode.ID_REUSED:
        # The operation's id is derived from the request's Idempotency-Key: see core/rest/idempotency.py.
        return problem(ProblemCode.IDEMPOTENCY_KEY_REUSED)
    return problem(code, retry_after_s=_RETRY_AFTER_S if code.retryable else None)
