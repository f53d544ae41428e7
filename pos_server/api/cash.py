"""`POST /v1/top-ups`, `/v1/withdrawals` and `/v1/cancels`: a merchant's back office moves money, and takes it back."""

from http import HTTPStatus
from typing import Annotated
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from ..admission import Admission
from ..authorizer import Authorizer
from ..core.messages import Reference
from ..core.money import PositiveMinor
from ..core.operations import Cancel, Decided, MoveCash
from ..core.payment_code import WALLET_NUMBER_MAX
from ..core.payments import Payment, Purpose
from ..core.texts import DEFAULT_LANGUAGE, decline_text
from ..settings import Settings
from .authentication import Authentication
from .bodies import read_body
from .carrying_out import carry_out
from .problems import Problem


class CashRequest(BaseModel):
    """The body. Repeat it with the same `payment_id` until it is answered: money moves once."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    payment_id: UUID
    wallet_number: Annotated[int, Field(ge=1, le=WALLET_NUMBER_MAX)]
    amount_minor: PositiveMinor
    reference: Reference | None = None


class CancelRequest(BaseModel):
    """The body. Repeat it until it is answered."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    payment_id: UUID


class Cash:
    """Answers 201 when it was done now, 200 when it had been before; a decline is 409 with its code."""

    def __init__(
        self, settings: Settings, authentication: Authentication, authorizer: Authorizer, admission: Admission
    ) -> None:
        self._body_bytes_max = settings.api_body_bytes_max
        self._authentication = authentication
        self._authorizer = authorizer
        self._admission = admission

    async def top_up(self, request: Request) -> Response:
        """Put cash that the merchant took into a wallet."""
        return await self._move(request, Purpose.TOP_UP)

    async def withdraw(self, request: Request) -> Response:
        """Take out of a wallet what the merchant pays out in cash."""
        return await self._move(request, Purpose.WITHDRAWAL)

    async def cancel(self, request: Request) -> Response:
        """Take one of the merchant's payments back, whatever it was for and wherever it was made."""
        merchant_id, currency = (await self._authentication.require(request)).merchant
        body = await read_body(request, CancelRequest, self._body_bytes_max)
        wish = Cancel(
            terminal_number=None,
            merchant_id=merchant_id,
            currency=currency,
            payment_id=body.payment_id,
            reference=None,
            tombstone_id=body.payment_id,
        )
        return _answer(_decided(await carry_out(self._authorizer, self._admission, wish)))

    async def _move(self, request: Request, purpose: Purpose) -> Response:
        merchant_id, currency = (await self._authentication.require(request)).merchant
        body = await read_body(request, CashRequest, self._body_bytes_max)
        wish = MoveCash(
            payment_id=body.payment_id,
            merchant_id=merchant_id,
            wallet_number=body.wallet_number,
            reference=str(body.payment_id) if body.reference is None else body.reference,
            amount_minor=body.amount_minor,
            currency=currency,
            purpose=purpose,
        )
        decided = _decided(await carry_out(self._authorizer, self._admission, wish))
        code = decided.payment.decline_code
        if code is not None:
            raise Problem(HTTPStatus.CONFLICT, code.value, decline_text(DEFAULT_LANGUAGE, "cashier", code))
        return _answer(decided)


def _decided(outcome: object) -> Decided:
    if not isinstance(outcome, Decided):
        raise AssertionError(f"a payment became a {type(outcome).__name__}")
    return outcome


def _answer(decided: Decided) -> Response:
    status = HTTPStatus.OK if decided.replayed else HTTPStatus.CREATED
    return Response(orjson.dumps(_fields(decided.payment)), status, media_type="application/json")


def _fields(payment: Payment) -> dict[str, object]:
    return {
        "payment_id": payment.payment_id,
        "purpose": payment.purpose,
        "status": payment.status,
        "wallet_number": payment.wallet_number,
        "reference": payment.reference,
        "amount_minor": payment.amount_minor or None,
        "currency": payment.currency,
        "version": payment.version,
        "decided_at_ms": payment.changed_at_ms,
    }
