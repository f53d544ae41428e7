"""What clients send, as pydantic models. It is checked against their annotations.

docs/protocol.md describes them for people who write clients, asyncapi.py for their tools. Unknown fields are ignored,
so that either side can be newer; unknown types are answered with an error.
"""

from typing import Annotated, Literal, Self, final
from uuid import UUID

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ..credentials.device_keys import SLOT_MAX
from ..money import MAX_AMOUNT_MINOR, Currency, PositiveMinor
from .fields import CURSOR_PATTERN, UUID_PATTERN, MessageId, PaymentId, Reference, ShiftId, described

OPERATOR_CHARS_MAX = 40
PAGE_MAX = 50
ONE_OF = "one_of"
Pin = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{4,12}$"),
    Field(description="4 to 12 digits"),
]
_Cash = Annotated[int, Field(ge=0, le=MAX_AMOUNT_MINOR)]


class _ClientMessage(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, hide_input_in_errors=True)

    message_id: MessageId


@final
class Authenticate(_ClientMessage):
    """The answer to `hello`: who the device is, and the proof. Allowed once, and nothing else is allowed before it."""

    type: Literal["authenticate"] = "authenticate"
    id: Annotated[int, Field(ge=1, le=2**53 - 1, description="the terminal's or the wallet's number")]
    slot: Annotated[int, Field(ge=0, le=SLOT_MAX, description="which device of the wallet; 0 for a terminal")] = 0
    kid: Annotated[
        str,
        StringConstraints(max_length=32, pattern=r"^[A-Za-z0-9_-]+$"),
        Field(description="the master key that the device's key comes from, as the activation named it"),
    ]
    mac: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] = Field(
        repr=False, description='HMAC-SHA256(device_key, "ws-auth-1" ‖ nonce ‖ id as 8 bytes, big-endian), in hex'
    )
    since_ms: Annotated[int, Field(ge=0, le=2**53 - 1)] | None = Field(
        default=None,
        description="asks for the results that this device may have missed: the largest `decided_at_ms` it "
        "has seen, or the `server_time_ms` of a `ready` whose replay it has seen. Without it nothing is sent again",
    )
    language: Annotated[str, StringConstraints(max_length=35, pattern=r"^[A-Za-z0-9-]+$")] = Field(
        default="en",
        description="a language tag (RFC 5646), such as zh-CN: the language of `text`, where the server has it",
    )


class PaymentScan(_ClientMessage):
    """A till asks to be paid with a scanned code. Safe to send again with the same `payment_id` until answered."""

    type: Literal["payment.scan"] = "payment.scan"
    payment_id: PaymentId
    reference: Reference
    amount_minor: PositiveMinor
    currency: Currency
    code: Annotated[
        str, Field(repr=False, description="the digits as scanned; what is no code is declined, it is not an error")
    ]
    entry: Annotated[Literal["scanned", "typed"], Field(description="a code that was typed by hand needs the PIN")] = (
        "scanned"
    )
    purpose: Annotated[
        Literal["sale", "top_up", "withdrawal"],
        Field(description="what the money is for: a sale, cash that the customer pays in, or cash that is paid out"),
    ] = "sale"


class _ByIdOrReference(_ClientMessage):
    payment_id: Annotated[UUID | None, described("which payment; or else give `reference`", pattern=UUID_PATTERN)] = (
        None
    )
    reference: Annotated[Reference | None, Field(description="which order; or else give `payment_id`")] = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.payment_id is None) == (self.reference is None):
            raise PydanticCustomError(ONE_OF, "give either payment_id or reference")
        return self


class PaymentQuery(_ByIdOrReference):
    """Asks what became of a payment: of an order, the payment that occupies it, or else the latest."""

    type: Literal["payment.query"] = "payment.query"


class PaymentCancel(_ByIdOrReference):
    """Takes a payment back, also one that never arrived. Safe to send again until answered."""

    type: Literal["payment.cancel"] = "payment.cancel"


class PaymentsRecent(_ClientMessage):
    """The till's last payments, latest change first."""

    type: Literal["payments.recent"] = "payments.recent"
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX, description="how many at the most")] = 10


class RefundCreate(_ClientMessage):
    """Give some of an approved payment back. Safe to send again with the same `refund_id` until answered."""

    type: Literal["refund.create"] = "refund.create"
    refund_id: Annotated[
        UUID, described("names the refund for ever; made by the till, best as a UUIDv7", pattern=UUID_PATTERN)
    ]
    payment_id: PaymentId
    amount_minor: PositiveMinor


class PaymentConfirm(_ClientMessage):
    """The customer agrees to a pending payment. Safe to send again: a `version` that is gone counts nothing."""

    type: Literal["payment.confirm"] = "payment.confirm"
    payment_id: PaymentId
    version: Annotated[
        int, Field(ge=1, le=2**31 - 1, description="of the `payment.confirmation_required` that it answers")
    ]
    pin: Annotated[Pin, Field(repr=False)]


class PaymentReject(_ClientMessage):
    """The customer does not want to pay. Safe to send again."""

    type: Literal["payment.reject"] = "payment.reject"
    payment_id: PaymentId


class PinSet(_ClientMessage):
    """Sets the wallet's PIN, or changes it with the old one. Safe to send again with the same `request_id`."""

    type: Literal["pin.set"] = "pin.set"
    request_id: Annotated[UUID, described("made by the wallet for this change", pattern=UUID_PATTERN)]
    new_pin: Annotated[Pin, Field(repr=False)]
    old_pin: Annotated[Pin | None, Field(repr=False, description="the PIN of now; leave it out when there is none")] = (
        None
    )


class History(_ClientMessage):
    """The wallet's payments, latest change first, a page at a time."""

    type: Literal["history"] = "history"
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX, description="how many at the most")] = 20
    cursor: Annotated[
        str | None,
        StringConstraints(pattern=CURSOR_PATTERN),
        Field(description="`next_cursor` of the page before; leave it out for the first"),
    ] = None


class ShiftOpen(_ClientMessage):
    """An operator begins at the till. Safe to send again with the same `shift_id` until answered."""

    type: Literal["shift.open"] = "shift.open"
    shift_id: ShiftId
    operator: Annotated[
        str,
        StringConstraints(max_length=OPERATOR_CHARS_MAX, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$"),
        Field(description="who works at the till, as the report names them"),
    ]
    opening_cash_minor: Annotated[_Cash, Field(description="what is in the drawer, in minor units")] = 0


class ShiftClose(_ClientMessage):
    """The operator ends: nothing is added to the shift after this. Safe to send again until answered."""

    type: Literal["shift.close"] = "shift.close"
    shift_id: ShiftId
    counted_cash_minor: Annotated[
        _Cash | None, Field(description="what was counted in the drawer, in minor units; leave it out if nobody did")
    ] = None


class ShiftQuery(_ClientMessage):
    """Asks for a shift's report: of the open shift without closing it, or of a closed one once more."""

    type: Literal["shift.query"] = "shift.query"
    shift_id: Annotated[
        UUID | None, described("which shift of this till; or else the one that is open", pattern=UUID_PATTERN)
    ] = None


TerminalRequest = (
    PaymentScan | PaymentQuery | PaymentCancel | PaymentsRecent | RefundCreate | ShiftOpen | ShiftClose | ShiftQuery
)
WalletRequest = PaymentConfirm | PaymentReject | PinSet | History
Request = TerminalRequest | WalletRequest
ClientMessage = Authenticate | Request
