"""Every wire message, once. Clients' messages are pydantic models, the server's are msgspec structs.

docs/protocol.md describes them for people who write clients, core/protocol/asyncapi.py for their tools. Unknown fields
are ignored, so that either side can be newer; unknown types are answered with an error.

What a client sends is checked against its annotations. What the server sends is only described by them (`described`): a
client must take codes and values that a newer server adds.
"""

from typing import Annotated, Any, Literal, Self, final, get_type_hints
from uuid import UUID

import msgspec
from msgspec import NODEFAULT, Struct
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, from_json
from pydantic_core.core_schema import no_info_after_validator_function

from ..accounting.shifts import REPORT_COLUMNS, TotalKind
from ..credentials.device_keys import NONCE_BYTES, SLOT_MAX
from ..errors import CloseCode, ConnectionClosing, ErrorCode, MessageError
from ..money import MAX_AMOUNT_MINOR, Currency, PositiveMinor
from ..payments.declines import NextStep
from ..payments.payment import DeclineCode, Purpose, Status
from ..payments.snapshot import TerminalStatus, WalletStatus

SUBPROTOCOL = "pos.v1"
MESSAGE_ID_CHARS_MAX = 64
REFERENCE_CHARS_MAX = 64
OPERATOR_CHARS_MAX = 40
PAGE_MAX = 50
_ONE_OF = "one_of"
_CURSOR = r"^[0-9]{1,15}\.[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$"


def described(description: str, **schema: Any) -> Any:
    """Describes a field, with more of JSON Schema, and checks nothing."""
    return Field(description=description, json_schema_extra=schema)


_PRINTABLE = r"^[!-~](?:[ -~]*[!-~])?$"
MessageId = Annotated[
    str,
    StringConstraints(max_length=MESSAGE_ID_CHARS_MAX, pattern=_PRINTABLE),
    Field(description="the client's choice, printable ASCII; the answer carries it as `reply_to`"),
]
Reference = Annotated[
    str,
    StringConstraints(max_length=REFERENCE_CHARS_MAX, pattern=_PRINTABLE),
    Field(description="the merchant's order number, printable ASCII; one order is paid once"),
]
_UUID = r"^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
Pin = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{4,12}$"),
    Field(description="4 to 12 digits"),
]
PaymentId = Annotated[UUID, described("names the payment for ever; made by the till, best as a UUIDv7", pattern=_UUID)]
ShiftId = Annotated[UUID, described("names the shift for ever; made by the till, best as a UUIDv7", pattern=_UUID)]
_Cash = Annotated[int, Field(ge=0, le=MAX_AMOUNT_MINOR)]

# What the server says
_Number = {"minimum": 1, "maximum": 2**53 - 1}
_Currency = Annotated[str, described("ISO 4217 alphabetic code", pattern="^[A-Z]{3}$")]
_Amount = Annotated[int, described("amount in minor units of the currency", minimum=1, maximum=MAX_AMOUNT_MINOR)]
_Balance = Annotated[
    int, described("what is in the wallet now, in minor units of its currency", minimum=0, maximum=MAX_AMOUNT_MINOR)
]
_ServerTime = Annotated[int, described("the server's clock in Unix milliseconds", minimum=0)]
_DecidedAt = Annotated[int, described("when it was decided, in Unix milliseconds", minimum=0)]
_Version = Annotated[int, described("counts the changes of this payment; drop what is not newer than seen", minimum=1)]
_Status = Annotated[str, described("what became of the payment", enum=[status.value for status in Status])]
_DeclineCode = Annotated[
    str, described("why it was declined; see `x-decline-codes`", enum=[code.value for code in DeclineCode])
]
_Resumed = Annotated[bool, described("false: too much was missed to be sent again, ask for what is open")]
_NextStep = Annotated[
    str | None,
    described("what the cashier does next; null when there is nothing to do", enum=[*map(str, NextStep), None]),
]
_Purpose = Annotated[str, described("what the money is for", enum=[purpose.value for purpose in Purpose])]
_ExpiresAt = Annotated[int, described("until when the customer may confirm, in Unix milliseconds", minimum=0)]
_Refunded = Annotated[int, described("how much of it was refunded so far", minimum=0, maximum=MAX_AMOUNT_MINOR)]
_Tries = Annotated[int, described("how many wrong PINs are still allowed for it", minimum=0)]
_Merchants = Annotated[
    str | None, described("the merchant's order number; null when canceled by id before it was scanned")
]
_AmountOrNone = Annotated[
    int | None,
    described(
        "in minor units of the currency; null when it was canceled before it was scanned",
        minimum=1,
        maximum=MAX_AMOUNT_MINOR,
    ),
]
_ReplyTo = Annotated[
    str, described("the `message_id` that this answers", maxLength=MESSAGE_ID_CHARS_MAX, pattern=_PRINTABLE)
]
_MerchantName = Annotated[str, described("who is paid")]
_WalletStatus = Annotated[
    str, described("whether the wallet can pay and be topped up", enum=[status.value for status in WalletStatus])
]
# A terminal's and a wallet's, each once.
_STATUSES = list(dict.fromkeys(status.value for status in (*TerminalStatus, *WalletStatus)))
_StoreName = Annotated[str, described("where the till stands")]


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
    payment_id: Annotated[UUID | None, described("which payment; or else give `reference`", pattern=_UUID)] = None
    reference: Annotated[Reference | None, Field(description="which order; or else give `payment_id`")] = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.payment_id is None) == (self.reference is None):
            raise PydanticCustomError(_ONE_OF, "give either payment_id or reference")
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
        UUID, described("names the refund for ever; made by the till, best as a UUIDv7", pattern=_UUID)
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
    request_id: Annotated[UUID, described("made by the wallet for this change", pattern=_UUID)]
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
        StringConstraints(pattern=_CURSOR),
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
        UUID | None, described("which shift of this till; or else the one that is open", pattern=_UUID)
    ] = None


TerminalRequest = (
    PaymentScan | PaymentQuery | PaymentCancel | PaymentsRecent | RefundCreate | ShiftOpen | ShiftClose | ShiftQuery
)
WalletRequest = PaymentConfirm | PaymentReject | PinSet | History
Request = TerminalRequest | WalletRequest
ClientMessage = Authenticate | Request
_message_ids: TypeAdapter[str] = TypeAdapter(MessageId)
_client_messages: TypeAdapter[ClientMessage] = TypeAdapter(Annotated[ClientMessage, Field(discriminator="type")])


class ServerStruct(Struct, frozen=True, kw_only=True, gc=False):
    """What the server says. To pydantic it is a model with the same fields: that describes it, and clients read it."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Self], handler: GetCoreSchemaHandler) -> CoreSchema:
        defaults = {
            each.name: ... if each.default is NODEFAULT else each.default for each in msgspec.structs.fields(cls)
        }
        hints = get_type_hints(cls, include_extras=True)
        definitions: dict[str, Any] = {name: (hints[name], default) for name, default in defaults.items()}
        model = create_model(cls.__name__, __doc__=cls.__doc__, **definitions)
        return no_info_after_validator_function(lambda fields: cls(**dict(fields)), handler(model))


class Hello(ServerStruct, frozen=True, kw_only=True, gc=False):
    """The server's first message. `nonce` (hex) is to be signed; `server_time_ms` sets the wallet's clock."""

    type: Literal["hello"] = "hello"
    protocol: Annotated[str, described("the subprotocol", const=SUBPROTOCOL)] = SUBPROTOCOL
    nonce: Annotated[
        str,
        described(
            f"{NONCE_BYTES} random bytes in hex, new for each connection", pattern=f"^[0-9a-f]{{{NONCE_BYTES * 2}}}$"
        ),
    ]
    server_time_ms: _ServerTime
    heartbeat_s: Annotated[int, described("how often the server sends a WebSocket ping", minimum=1)]
    authenticate_within_s: Annotated[int, described("how long the server waits for `authenticate`", minimum=1)]
    frame_bytes_max: Annotated[int, described("the longest message that the server takes, in bytes", minimum=1)]


class TerminalReady(ServerStruct, frozen=True, kw_only=True, gc=False):
    """The terminal is authenticated and may scan. What it missed follows, unless `resumed` says it was too much."""

    type: Literal["ready"] = "ready"
    reply_to: _ReplyTo
    server_time_ms: _ServerTime
    resumed: _Resumed
    terminal_number: Annotated[int, described("the terminal's number", **_Number)]
    merchant_name: _MerchantName
    store_name: _StoreName
    currency: _Currency
    shift_id: Annotated[
        UUID | None, described("the shift that is open here; null when there is none", pattern=_UUID)
    ] = None


class WalletReady(ServerStruct, frozen=True, kw_only=True, gc=False):
    """The wallet device is authenticated and will be told of its payments; first of those it missed."""

    type: Literal["ready"] = "ready"
    reply_to: _ReplyTo
    server_time_ms: _ServerTime
    resumed: _Resumed
    wallet_number: Annotated[int, described("the wallet's number", **_Number)]
    slot: Annotated[int, described("which device of the wallet", minimum=0, maximum=SLOT_MAX)]
    currency: _Currency
    balance_minor: _Balance
    pin_set: Annotated[bool, described("whether the wallet has a PIN")]
    status: _WalletStatus = WalletStatus.ACTIVE.value


class TerminalPaymentResult(ServerStruct, frozen=True, kw_only=True, gc=False):
    """What became of a payment, for the till. `paid_by` names the payment that holds an order already."""

    type: Literal["payment.result"] = "payment.result"
    reply_to: _ReplyTo | None
    payment_id: PaymentId
    version: _Version
    reference: _Merchants
    amount_minor: _AmountOrNone
    currency: _Currency
    purpose: _Purpose = Purpose.SALE.value
    status: _Status
    decline_code: _DeclineCode | None
    retryable: Annotated[bool, described("the same customer may pay this order with a new code and a new `payment_id`")]
    next_step: _NextStep
    text: Annotated[str, described("for the cashier")]
    paid_by: (
        Annotated[UUID, described("the payment that holds the order, when it is paid or pending", pattern=_UUID)] | None
    )
    refunded_minor: _Refunded
    decided_at_ms: _DecidedAt


class PaymentPending(ServerStruct, frozen=True, kw_only=True, gc=False):
    """A payment waits for the customer's PIN, for the till. Its `payment.result` follows by itself."""

    type: Literal["payment.pending"] = "payment.pending"
    reply_to: _ReplyTo | None
    payment_id: PaymentId
    version: _Version
    reference: Annotated[str, described("the merchant's order number")]
    amount_minor: _Amount
    currency: _Currency
    purpose: _Purpose = Purpose.SALE.value
    expires_at_ms: _ExpiresAt
    wallet_online: Annotated[
        bool, described("false: no device of the wallet is connected, so the customer must open the app")
    ]
    text: Annotated[str, described("for the cashier")]
    decided_at_ms: _DecidedAt


class PaymentList(ServerStruct, frozen=True, kw_only=True, gc=False):
    """The till's last payments, latest change first."""

    type: Literal["payments.list"] = "payments.list"
    reply_to: _ReplyTo
    payments: Annotated[
        tuple[TerminalPaymentResult | PaymentPending, ...], described("as they are now, each with `reply_to` null")
    ]


class TerminalRefundResult(ServerStruct, frozen=True, kw_only=True, gc=False):
    """A refund was made, for the till. `reply_to` is null for the till of the payment when another asked for it."""

    type: Literal["refund.result"] = "refund.result"
    reply_to: _ReplyTo | None
    refund_id: Annotated[UUID, described("names the refund for ever", pattern=_UUID)]
    payment_id: PaymentId
    version: _Version
    reference: Annotated[str, described("the merchant's order number")]
    amount_minor: _Amount
    currency: _Currency
    refunded_minor: _Refunded
    refundable_minor: Annotated[int, described("what may still be refunded", minimum=0, maximum=MAX_AMOUNT_MINOR)]
    text: Annotated[str, described("for the cashier")]
    decided_at_ms: _DecidedAt


class ShiftTotal(ServerStruct, frozen=True, kw_only=True, gc=False):
    """How many of a kind, and how much."""

    kind: Annotated[str, described("what is counted", enum=[kind.value for kind in TotalKind])]
    count: Annotated[int, described("how many", minimum=0)]
    amount_minor: Annotated[int, described("their sum in minor units, never negative", minimum=0)]


class ShiftReport(ServerStruct, frozen=True, kw_only=True, gc=False):
    """What was done in a shift: the X-report while it is open, the Z-report, which never changes, once it is closed."""

    type: Literal["shift.report"] = "shift.report"
    reply_to: _ReplyTo
    report: Annotated[str, described("X while the shift is open, Z once it is closed", enum=["X", "Z"])]
    shift_id: ShiftId
    shift_number: Annotated[int, described("counts the shifts of the terminal", **_Number)]
    terminal_number: Annotated[int, described("the terminal's number", **_Number)]
    merchant_name: _MerchantName
    store_name: _StoreName
    operator: Annotated[str, described("who worked at the till")]
    currency: _Currency
    opened_at_ms: Annotated[int, described("when it was opened, in Unix milliseconds", minimum=0)]
    closed_at_ms: Annotated[
        int | None, described("when it was closed, in Unix milliseconds; null while it is open", minimum=0)
    ]
    made_at_ms: Annotated[
        int, described("what the report shows is as of then: of a Z-report, when it closed", minimum=0)
    ]
    totals: Annotated[tuple[ShiftTotal, ...], described("one of each kind, in a fixed order")]
    net_sales_minor: Annotated[int, described("sales less their cancels and refunds; may be negative")]
    opening_cash_minor: Annotated[int, described("what was in the drawer at first, in minor units", minimum=0)]
    expected_cash_minor: Annotated[int, described("what should be in the drawer now; may be negative")]
    counted_cash_minor: Annotated[int | None, described("what was counted; null when nobody did", minimum=0)]
    cash_difference_minor: Annotated[int | None, described("counted less expected; null when nobody counted")]
    text: Annotated[str, described(f"to be printed: lines of at most {REPORT_COLUMNS} columns")]


class WalletPaymentResult(ServerStruct, frozen=True, kw_only=True, gc=False):
    """The same, for the customer: who was paid, and what is left."""

    type: Literal["payment.result"] = "payment.result"
    reply_to: _ReplyTo | None
    payment_id: PaymentId
    version: _Version
    merchant_name: _MerchantName
    store_name: _StoreName
    amount_minor: _Amount
    currency: _Currency
    purpose: _Purpose = Purpose.SALE.value
    status: _Status
    decline_code: _DeclineCode | None
    text: Annotated[str, described("for the customer")]
    refunded_minor: _Refunded
    balance_minor: _Balance
    decided_at_ms: _DecidedAt


class ConfirmationRequired(ServerStruct, frozen=True, kw_only=True, gc=False):
    """The customer is asked for the PIN, on every device; again after a wrong one, with a new `version`."""

    type: Literal["payment.confirmation_required"] = "payment.confirmation_required"
    reply_to: _ReplyTo | None
    payment_id: PaymentId
    version: _Version
    merchant_name: _MerchantName
    store_name: _StoreName
    amount_minor: _Amount
    currency: _Currency
    purpose: _Purpose = Purpose.SALE.value
    expires_at_ms: _ExpiresAt
    pin_tries_left: _Tries
    text: Annotated[str, described("for the customer")]
    decided_at_ms: _DecidedAt


class WalletRefundResult(ServerStruct, frozen=True, kw_only=True, gc=False):
    """Money came back, for the customer."""

    type: Literal["refund.result"] = "refund.result"
    refund_id: Annotated[UUID, described("names the refund for ever", pattern=_UUID)]
    payment_id: PaymentId
    version: _Version
    merchant_name: _MerchantName
    store_name: _StoreName
    amount_minor: _Amount
    currency: _Currency
    refunded_minor: _Refunded
    text: Annotated[str, described("for the customer")]
    balance_minor: _Balance
    decided_at_ms: _DecidedAt


class PinChanged(ServerStruct, frozen=True, kw_only=True, gc=False):
    """The wallet's PIN was set or changed; every device hears of it, whoever did it."""

    type: Literal["pin.changed"] = "pin.changed"
    reply_to: _ReplyTo | None
    text: Annotated[str, described("for the customer")]


class StatusChanged(ServerStruct, frozen=True, kw_only=True, gc=False):
    """The terminal was disabled or enabled, or the wallet frozen, thawed or closed; no one on this connection asked."""

    type: Literal["status.changed"] = "status.changed"
    status: Annotated[str, described("what it is from now on", enum=_STATUSES)]
    text: Annotated[str, described("for the cashier, or the customer")]


class HistoryPage(ServerStruct, frozen=True, kw_only=True, gc=False):
    """A page of the wallet's payments, latest change first."""

    type: Literal["history.page"] = "history.page"
    reply_to: _ReplyTo
    payments: Annotated[
        tuple[WalletPaymentResult | ConfirmationRequired, ...], described("as they are now, each with `reply_to` null")
    ]
    next_cursor: Annotated[str, described("asks for the next page; null on the last", pattern=_CURSOR)] | None


class Error(ServerStruct, frozen=True, kw_only=True, gc=False):
    """A message was not acted on, or its outcome is not known; `code` is stable, `message` is for people."""

    type: Literal["error"] = "error"
    reply_to: _ReplyTo | None
    code: Annotated[str, described("stable; see `x-error-codes`", enum=[code.value for code in ErrorCode])]
    message: Annotated[str, described("for people, in English")]
    field: Annotated[str, described("the first wrong field, nested ones with dots")] | None = None
    retryable: Annotated[bool, described("whether the same message, sent again later, can succeed")]
    retry_after_s: (
        Annotated[int, described("how long to wait before that, where the server knows", minimum=0)] | None
    ) = None


class Draining(ServerStruct, frozen=True, kw_only=True, gc=False):
    """The server is about to close this connection: reconnect after a random time of up to `reconnect_within_s`."""

    type: Literal["draining"] = "draining"
    reconnect_within_s: Annotated[int, described("the bound of that time", minimum=1)]


TerminalMessage = Annotated[
    Hello
    | TerminalReady
    | TerminalPaymentResult
    | PaymentPending
    | PaymentList
    | TerminalRefundResult
    | ShiftReport
    | StatusChanged
    | Draining
    | Error,
    Field(discriminator="type"),
]
WalletMessage = Annotated[
    Hello
    | WalletReady
    | WalletPaymentResult
    | ConfirmationRequired
    | WalletRefundResult
    | PinChanged
    | HistoryPage
    | StatusChanged
    | Draining
    | Error,
    Field(discriminator="type"),
]
ServerMessage = (
    Hello
    | TerminalReady
    | WalletReady
    | TerminalPaymentResult
    | PaymentPending
    | PaymentList
    | TerminalRefundResult
    | ShiftReport
    | WalletPaymentResult
    | ConfirmationRequired
    | WalletRefundResult
    | PinChanged
    | HistoryPage
    | StatusChanged
    | Draining
    | Error
)


def encode(message: ServerMessage | BaseModel) -> str:
    """The text frame of a message."""
    return _encoder.encode(message).decode()


def _plain(part: object) -> object:
    """What msgspec does not know: a pydantic model."""
    if isinstance(part, BaseModel):
        return part.model_dump(mode="json")
    raise TypeError(f"cannot encode {type(part).__name__}")


_encoder = msgspec.json.Encoder(enc_hook=_plain)


def decode_client_message(text: str) -> ClientMessage:
    """The message in a client's text frame.

    Raises ConnectionClosing when it is not a JSON object, MessageError (with the field and, where it could be read,
    the `message_id`) when it is one of an unknown type or with bad fields. Neither repeats what the client sent,
    but for a well-formed `message_id`.
    """
    try:
        return _client_messages.validate_json(text)
    except ValidationError as error:
        field, problem = describe(error)
        kind = error.errors(include_url=False, include_context=False, include_input=False)[0]["type"]
    if kind in ("json_invalid", "string_unicode"):
        raise ConnectionClosing(CloseCode.NOT_JSON, "the frame is not JSON")
    document = from_json(text)
    if not isinstance(document, dict):
        raise ConnectionClosing(CloseCode.NOT_JSON, "the frame is not a JSON object")
    reply_to = _well_formed_message_id(document.get("message_id"))
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        raise MessageError(ErrorCode.UNKNOWN_TYPE, "unknown message type", field="type", reply_to=reply_to)
    # The first part is the discriminator's: which type of message it was.
    raise MessageError(ErrorCode.BAD_FIELD, problem, field=".".join(field[1:]), reply_to=reply_to)


class _ScanHead(msgspec.Struct, gc=False):
    type: Literal["payment.scan"]
    message_id: Annotated[str, msgspec.Meta(min_length=1, max_length=MESSAGE_ID_CHARS_MAX)]


_scan_heads = msgspec.json.Decoder(_ScanHead)


def message_id_of_scan(text: str) -> str | None:
    """The `message_id` of a `payment.scan`, without a look at its other fields; None for all else.

    For a server that has no room for a scan: a quarter of the work of `decode_client_message`, and no model is made.
    """
    try:
        message_id = _scan_heads.decode(text).message_id
    except (msgspec.DecodeError, UnicodeError):
        return None
    # _PRINTABLE in other words, which take a third of the work.
    is_printable = message_id.isascii() and message_id.isprintable() and message_id.strip(" ") == message_id
    return message_id if is_printable else None


def describe(error: ValidationError) -> tuple[list[str], str]:
    """The path of the first field at fault and what is wrong with it, without what the client sent."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    # pydantic's text for this one quotes a character of the input.
    problem = "Input should be a UUID" if first["type"] == "uuid_parsing" else first["msg"]
    # A model's own check has no place: the first of the fields that it is about stands for them.
    field = ["payment_id"] if first["type"] == _ONE_OF else []
    return [*(str(part) for part in first["loc"]), *field], problem


def _well_formed_message_id(value: object) -> str | None:
    try:
        return _message_ids.validate_python(value, strict=True)
    except ValidationError:
        return None
