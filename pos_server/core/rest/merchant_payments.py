"""Endpoints of the role `merchant`: payments with a scanned code, cancels and refunds."""

from typing import Annotated, Literal

from pydantic import Field

from ..credentials.api_keys import Role
from ..money import MAX_AMOUNT_MINOR, Currency
from ..payments.declines import DeclineCode, NextStep
from ..payments.payment import Purpose, Status
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
    TerminalNumber | None, Field(description="Number of the terminal; null if no terminal was involved.")
]


class PaymentCreate(Body):
    """A payment with the code of a customer's wallet at one of the merchant's terminals, in the merchant's currency."""

    terminal_number: TerminalNumber
    code: Annotated[
        str,
        Field(
            repr=False,
            max_length=CODE_CHARS_MAX,
            description="The scanned digits; a malformed code is a declined payment, not a problem.",
        ),
    ]
    amount_minor: PositiveMinor
    reference: Reference
    entry: Annotated[
        Literal["scanned", "typed"], Field(description="Entry method of the code; a typed code always needs the PIN.")
    ] = "scanned"
    purpose: Annotated[Literal["sale", "top_up", "withdrawal"], Field(description="Purpose of the payment.")] = "sale"


class Payment(Resource):
    """The current state of a payment."""

    payment_id: Id
    version: Annotated[int, Field(ge=1, description="Version of the payment, incremented by each change.")]
    terminal_number: _TerminalNumberOrNone
    reference: Annotated[
        str | None,
        Field(description="Order number of the merchant; null for a payment canceled by id before its scan."),
    ]
    purpose: Annotated[str, Field(description="Purpose of the payment.", json_schema_extra={"enum": [*_PURPOSES]})]
    amount_minor: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_AMOUNT_MINOR,
            description="Amount in minor units of the currency; null for a payment canceled before its scan.",
        ),
    ]
    currency: Currency
    status: Annotated[str, Field(description="Current status.", json_schema_extra={"enum": [*_STATUSES]})]
    decline_code: Annotated[
        str | None,
        Field(
            description="Reason for the decline; null unless declined.",
            json_schema_extra={"enum": [*(code.value for code in DeclineCode), None]},
        ),
    ]
    retryable: Annotated[bool, Field(description="True if the order can be paid with a new code.")]
    next_step: Annotated[
        str | None,
        Field(
            description="Next step for the cashier; null if there is none.",
            json_schema_extra={"enum": [*(step.value for step in NextStep), None]},
        ),
    ]
    text: Annotated[str, Field(description="Text for the cashier, in the language of `Accept-Language`.")]
    paid_by: Annotated[
        Id | None, Field(description="Other payment of this order, which is approved or waits for its PIN.")
    ]
    refunded_minor: Annotated[Minor, Field(description="Amount refunded so far.")]
    refundable_minor: Annotated[Minor, Field(description="Amount that can still be refunded.")]
    fee_minor: Annotated[Minor, Field(description="Fee paid by the merchant.")]
    shift_id: Annotated[Id | None, Field(description="Shift that was open at the terminal during the scan.")]
    changed_at: Annotated[Time, Field(description="Time of the last change, RFC 3339 in UTC.")]
    approved_at: Annotated[Time | None, Field(description="Time of the approval; null if never approved.")]
    expires_at: Annotated[
        Time | None, Field(description="Time limit for the customer's PIN; null unless the payment is pending.")
    ]


class PaymentPath(Parameters):
    """A payment in the path."""

    payment_id: Id


class PaymentQuery(Paging):
    """Filters for payments. A payment must match all of them."""

    reference: Reference | None = None
    store_id: Annotated[SerialId | None, Field(description="Store of the terminal.")] = None
    terminal_number: TerminalNumber | None = None
    status: Status | None = None
    from_: Annotated[Time | None, Field(alias="from", description="Earliest time of the last change.")] = None
    to: Annotated[Time | None, Field(description="Latest time of the last change, exclusive.")] = None


class CancelByReference(Body):
    """The order to cancel."""

    reference: Reference


class RefundCreate(Body):
    """The amount to refund."""

    amount_minor: PositiveMinor


class Refund(Resource):
    """A refund of part or all of a payment."""

    refund_id: Id
    payment_id: Id
    terminal_number: _TerminalNumberOrNone
    amount_minor: PositiveMinor
    currency: Currency
    shift_id: Annotated[Id | None, Field(description="Shift that was open at the terminal during the refund.")]
    created_at: Time


PAYMENT_ENDPOINTS = (
    Endpoint(
        name="createPayment",
        role=Role.MERCHANT,
        kind=Kind.CREATE,
        method="POST",
        path="/v1/payments",
        summary="Create a payment from a scanned code. 202: it waits for the customer's PIN; get it again later.",
        body=PaymentCreate,
        response=Payment,
        pends=True,
        archives=True,
        localized=True,
    ),
    Endpoint(
        name="listPayments",
        role=Role.MERCHANT,
        kind=Kind.READ,
        method="GET",
        path="/v1/payments",
        summary="List payments, latest change first. A change moves a payment to the front; archived ones are omitted.",
        query=PaymentQuery,
        response=Page[Payment],
        localized=True,
    ),
    Endpoint(
        name="getPayment",
        role=Role.MERCHANT,
        kind=Kind.READ,
        method="GET",
        path="/v1/payments/{payment_id}",
        summary="Get a payment.",
        parameters=PaymentPath,
        response=Payment,
        archives=True,
        localized=True,
    ),
    Endpoint(
        name="cancelPayment",
        role=Role.MERCHANT,
        kind=Kind.CHANGE,
        method="POST",
        path="/v1/payments/{payment_id}/cancel",
        summary="Cancel a payment in full.",
        parameters=PaymentPath,
        response=Payment,
        conflicts=True,
        archives=True,
        localized=True,
    ),
    Endpoint(
        name="cancelReference",
        role=Role.MERCHANT,
        kind=Kind.CHANGE,
        method="POST",
        path="/v1/cancels",
        summary="Cancel an order, even before its payment arrives. The order can no longer be paid.",
        body=CancelByReference,
        response=Payment,
        conflicts=True,
        archives=True,
        localized=True,
    ),
    Endpoint(
        name="createRefund",
        role=Role.MERCHANT,
        kind=Kind.CREATE,
        method="POST",
        path="/v1/payments/{payment_id}/refunds",
        summary="Refund part or all of a sale.",
        parameters=PaymentPath,
        body=RefundCreate,
        response=Refund,
        archives=True,
    ),
    Endpoint(
        name="listRefunds",
        role=Role.MERCHANT,
        kind=Kind.READ,
        method="GET",
        path="/v1/payments/{payment_id}/refunds",
        summary="List the refunds of a payment, oldest first.",
        parameters=PaymentPath,
        query=Paging,
        response=Page[Refund],
        archives=True,
    ),
)
