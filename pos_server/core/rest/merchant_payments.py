"""A merchant's part of the API: its payments, what is taken back of them, and payments by a code that was scanned."""

from typing import Annotated, Literal

from pydantic import Field

from ..credentials.api_keys import Role
from ..money import MAX_AMOUNT_MINOR, Currency
from ..payments.declines import NextStep
from ..payments.payment import DeclineCode, Purpose, Status
from .endpoints import Endpoint, Kind
from .fields import (
    Body,
    Id,
    Minor,
    Page,
    Paging,
    Parameters,
    PositiveMinor,
    Reference,
    Resource,
    SerialId,
    TerminalNumber,
    Time,
)

CODE_CHARS_MAX = 256
_STATUSES = [status.value for status in Status]
_PURPOSES = [purpose.value for purpose in Purpose]
_TerminalNumberOrNone = Annotated[
    TerminalNumber | None, Field(description="where it was made; null for what came through the API")
]


class PaymentCreate(Body):
    """A customer pays with the code on their wallet, at one of the merchant's terminals, in the merchant's currency."""

    terminal_number: TerminalNumber
    code: Annotated[
        str,
        Field(
            repr=False,
            max_length=CODE_CHARS_MAX,
            description="the digits as scanned; what is no code is declined, it is no problem",
        ),
    ]
    amount_minor: PositiveMinor
    reference: Reference
    entry: Annotated[Literal["scanned", "typed"], Field(description="a code typed by hand needs the PIN")] = "scanned"
    purpose: Annotated[Literal["sale", "top_up", "withdrawal"], Field(description="what the money is for")] = "sale"


class Payment(Resource):
    """A payment as it is now."""

    payment_id: Id
    version: Annotated[int, Field(ge=1, description="counts its changes")]
    terminal_number: _TerminalNumberOrNone
    reference: Annotated[
        str | None, Field(description="the merchant's order number; null when canceled by id before it was scanned")
    ]
    purpose: Annotated[str, Field(description="what the money is for", json_schema_extra={"enum": [*_PURPOSES]})]
    amount_minor: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_AMOUNT_MINOR,
            description="in minor units of the currency; null when it was canceled before it was scanned",
        ),
    ]
    currency: Currency
    status: Annotated[str, Field(description="what became of it", json_schema_extra={"enum": [*_STATUSES]})]
    decline_code: Annotated[
        str | None,
        Field(
            description="why it was declined; null when it was not",
            json_schema_extra={"enum": [*(code.value for code in DeclineCode), None]},
        ),
    ]
    retryable: Annotated[bool, Field(description="whether the order may be tried again with a new code")]
    next_step: Annotated[
        str | None,
        Field(
            description="what the cashier does next; null when there is nothing to do",
            json_schema_extra={"enum": [*(step.value for step in NextStep), None]},
        ),
    ]
    text: Annotated[str, Field(description="for the cashier, in the language of `Accept-Language`")]
    paid_by: Annotated[Id | None, Field(description="the payment that has paid this order, or waits for its PIN")]
    refunded_minor: Annotated[Minor, Field(description="what was refunded of it so far")]
    refundable_minor: Annotated[Minor, Field(description="what may still be refunded of it")]
    fee_minor: Annotated[Minor, Field(description="what the merchant pays for it")]
    shift_id: Annotated[Id | None, Field(description="the shift that it was scanned in")]
    changed_at: Annotated[Time, Field(description="when it changed last")]
    approved_at: Time | None
    expires_at: Annotated[Time | None, Field(description="until when the customer may confirm it, while it is pending")]


class PaymentPath(Parameters):
    """Which payment."""

    payment_id: Id


class PaymentQuery(Paging):
    """Which payments: those for which all of this holds."""

    reference: Reference | None = None
    store_id: Annotated[SerialId | None, Field(description="those made at its terminals")] = None
    terminal_number: TerminalNumber | None = None
    status: Status | None = None
    from_: Annotated[Time | None, Field(alias="from", description="changed last at this time or later")] = None
    to: Annotated[Time | None, Field(description="changed last before this time")] = None


class CancelByReference(Body):
    """The order that is not to be paid, or not to have been."""

    reference: Reference


class RefundCreate(Body):
    """How much is given back."""

    amount_minor: PositiveMinor


class Refund(Resource):
    """Money that was given back on a payment."""

    refund_id: Id
    payment_id: Id
    terminal_number: _TerminalNumberOrNone
    amount_minor: PositiveMinor
    currency: Currency
    shift_id: Annotated[Id | None, Field(description="the shift at the terminal that gave it back")]
    created_at: Time


PAYMENT_ENDPOINTS = (
    Endpoint(
        name="createPayment",
        role=Role.MERCHANT,
        kind=Kind.CREATE,
        method="POST",
        path="/v1/payments",
        summary="Take a payment with a scanned code. 202: it waits for the customer's PIN, so ask later.",
        body=PaymentCreate,
        answer=Payment,
        pends=True,
        archives=True,
        speaks=True,
    ),
    Endpoint(
        name="listPayments",
        role=Role.MERCHANT,
        kind=Kind.READ,
        method="GET",
        path="/v1/payments",
        summary="Payments, latest change first. What changes meanwhile moves to the front; archived ones are left out.",
        query=PaymentQuery,
        answer=Page[Payment],
        speaks=True,
    ),
    Endpoint(
        name="getPayment",
        role=Role.MERCHANT,
        kind=Kind.READ,
        method="GET",
        path="/v1/payments/{payment_id}",
        summary="A payment.",
        parameters=PaymentPath,
        answer=Payment,
        archives=True,
        speaks=True,
    ),
    Endpoint(
        name="cancelPayment",
        role=Role.MERCHANT,
        kind=Kind.CHANGE,
        method="POST",
        path="/v1/payments/{payment_id}/cancel",
        summary="Take a payment back whole.",
        parameters=PaymentPath,
        answer=Payment,
        conflicts=True,
        archives=True,
        speaks=True,
    ),
    Endpoint(
        name="cancelReference",
        role=Role.MERCHANT,
        kind=Kind.CHANGE,
        method="POST",
        path="/v1/cancels",
        summary="Take an order back, whether its payment has arrived or not: it cannot be paid any more.",
        body=CancelByReference,
        answer=Payment,
        conflicts=True,
        archives=True,
        speaks=True,
    ),
    Endpoint(
        name="createRefund",
        role=Role.MERCHANT,
        kind=Kind.CREATE,
        method="POST",
        path="/v1/payments/{payment_id}/refunds",
        summary="Give some or all of a sale back.",
        parameters=PaymentPath,
        body=RefundCreate,
        answer=Refund,
        archives=True,
    ),
    Endpoint(
        name="listRefunds",
        role=Role.MERCHANT,
        kind=Kind.READ,
        method="GET",
        path="/v1/payments/{payment_id}/refunds",
        summary="What was given back on a payment, oldest first.",
        parameters=PaymentPath,
        query=Paging,
        answer=Page[Refund],
        archives=True,
    ),
)
