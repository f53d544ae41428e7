"""`POST /v1/refunds`: a merchant's back office gives money back."""

from http import HTTPStatus
from uuid import UUID

import orjson
import structlog
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from ..admission import Admission
from ..authorizer import Authorizer, QueueFull
from ..core.api_keys import Scope
from ..core.errors import ErrorCode
from ..core.money import PositiveMinor
from ..core.notices import ERROR_TEXTS
from ..core.operations import CreateRefund, Refunded, Refused
from ..ledger.database import DATABASE_AWAY
from ..settings import Settings
from .authentication import Authentication
from .bodies import database_away, read_body
from .problems import Problem

log = structlog.get_logger(__name__)

_STATUSES = {
    ErrorCode.PAYMENT_UNKNOWN: HTTPStatus.NOT_FOUND,
    ErrorCode.BUSY: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorCode.DRAINING: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorCode.UNKNOWN_OUTCOME: HTTPStatus.SERVICE_UNAVAILABLE,
}
_RETRY_AFTER_S = 1


class RefundRequest(BaseModel):
    """The body. Repeat it with the same `refund_id` until it is answered: money is given back once."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    refund_id: UUID
    payment_id: UUID
    amount_minor: PositiveMinor


class Refunds:
    """Answers 201 when the refund was made now, 200 when it had been before."""

    def __init__(
        self, settings: Settings, authentication: Authentication, authorizer: Authorizer, admission: Admission
    ) -> None:
        self._body_bytes_max = settings.api_body_bytes_max
        self._authentication = authentication
        self._authorizer = authorizer
        self._admission = admission

    async def create(self, request: Request) -> Response:
        """Make a refund of one of the merchant's payments."""
        try:
            key = await self._authentication.require(request, Scope.REFUNDS)
        except DATABASE_AWAY as away:
            log.warning("database_away", during="api authentication", cause=type(away).__name__)
            raise database_away() from None
        body = await read_body(request, RefundRequest, self._body_bytes_max)
        wish = CreateRefund(
            refund_id=body.refund_id,
            payment_id=body.payment_id,
            merchant_id=key.merchant_id,
            terminal_number=None,
            amount_minor=body.amount_minor,
        )
        if self._admission.draining:
            raise _problem(ErrorCode.DRAINING)
        try:
            outcome = await self._authorizer.carry_out(wish)
        except QueueFull:
            raise _problem(ErrorCode.BUSY) from None
        if isinstance(outcome, Refused):
            raise _problem(outcome.code)
        if not isinstance(outcome, Refunded):
            raise AssertionError(f"a refund became a {type(outcome).__name__}")
        status = HTTPStatus.OK if outcome.replayed else HTTPStatus.CREATED
        return Response(orjson.dumps(_answer(outcome)), status, media_type="application/json")


def _answer(refunded: Refunded) -> dict[str, object]:
    refund, payment = refunded.refund, refunded.payment
    return {
        "refund_id": refund.refund_id,
        "payment_id": refund.payment_id,
        "reference": payment.reference,
        "amount_minor": refund.amount_minor,
        "currency": refund.currency,
        "refunded_minor": payment.refunded_minor,
        "refundable_minor": payment.refundable_minor,
        "created_at_ms": refund.created_at_ms,
    }


def _problem(code: ErrorCode) -> Problem:
    status = _STATUSES.get(code, HTTPStatus.CONFLICT)
    return Problem(status, code.value, ERROR_TEXTS[code], retry_after_s=_RETRY_AFTER_S if code.retryable else None)
