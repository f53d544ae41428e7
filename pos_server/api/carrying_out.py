"""Hands an operation to the engine for a REST request; what did not become of it is a Problem."""

from ..admission import Admission
from ..authorizer import Authorizer, QueueFull
from ..core.errors import ErrorCode
from ..core.operations import Decided, Operation, Refunded, Refused
from ..core.rest.problems import ProblemCode
from .problems import Problem, problem

_RETRY_AFTER_S = 1


async def carry_out(authorizer: Authorizer, admission: Admission, operation: Operation) -> Decided | Refunded:
    """What became of `operation`. Raises Problem: 404, 409, 410, 422 or 503 with the error's code."""
    if admission.draining:
        raise _problem(ErrorCode.DRAINING)
    try:
        outcome = await authorizer.carry_out(operation)
    except QueueFull:
        raise _problem(ErrorCode.BUSY) from None
    if isinstance(outcome, Refused):
        raise _problem(outcome.code)
    return outcome


def _problem(code: ErrorCode) -> Problem:
    if code is ErrorCode.ID_REUSED:
        # The ids of what a request makes come from its key: see core/rest/idempotency.py.
        return problem(ProblemCode.IDEMPOTENCY_KEY_REUSED)
    return problem(code, retry_after_s=_RETRY_AFTER_S if code.retryable else None)
