"""Hands an operation to the engine for a REST request; what did not become of it is a Problem."""

from http import HTTPStatus

from ..admission import Admission
from ..authorizer import Authorizer, QueueFull
from ..core.errors import ErrorCode
from ..core.notices import ERROR_TEXTS
from ..core.operations import Decided, Operation, Refunded, Refused
from .problems import Problem

_STATUSES = {
    ErrorCode.PAYMENT_UNKNOWN: HTTPStatus.NOT_FOUND,
    ErrorCode.PAYMENT_ARCHIVED: HTTPStatus.GONE,
    ErrorCode.WALLET_UNKNOWN: HTTPStatus.NOT_FOUND,
    ErrorCode.BUSY: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorCode.DRAINING: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorCode.UNKNOWN_OUTCOME: HTTPStatus.SERVICE_UNAVAILABLE,
}
_RETRY_AFTER_S = 1


async def carry_out(authorizer: Authorizer, admission: Admission, operation: Operation) -> Decided | Refunded:
    """What became of `operation`. Raises Problem: 404, 409, 410 or 503 with the error's code."""
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
    status = _STATUSES.get(code, HTTPStatus.CONFLICT)
    return Problem(status, code.value, ERROR_TEXTS[code], retry_after_s=_RETRY_AFTER_S if code.retryable else None)
