"""`POST /v1/refunds`: a merchant's back office gives money back."""

from http import HTTPStatus
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from ..admission import Admission
from ..authorizer import Authorizer
from ..core.money import PositiveMinor
from ..core.operations import CreateRefund, Refunded
from ..settings import Settings
from .authentication import Authentication
from .bodies import read_body
from .carrying_out import carry_out


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
        merchant_id, _ = (await self._authentication.require(request)).merchant
        body = await read_body(request, RefundRequest, self._body_bytes_max)
        wish = CreateRefund(
            refund_id=body.refund_id,
            payment_id=body.payment_id,
            merchant_id=merchant_id,
            terminal_number=None,
            amount_minor=body.amount_minor,
        )
        outcome = await carry_out(self._authorizer, self._admission, wish)
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
