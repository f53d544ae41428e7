"""Every wire message, once. Clients' messages are pydantic models, the server's are dataclasses that orjson encodes.

docs/protocol.md describes them for people who write clients. Unknown fields are ignored, so that either side can
be newer; unknown types are answered with an error.
"""

from dataclasses import dataclass
from typing import Annotated, Literal
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError
from pydantic_core import from_json

from .device_keys import SLOT_MAX
from .errors import CloseCode, ConnectionClosing, ErrorCode, MessageError
from .money import Currency, PositiveMinor

SUBPROTOCOL = "pos.v1"
MESSAGE_ID_CHARS_MAX = 64
REFERENCE_CHARS_MAX = 64

_PRINTABLE = r"^[!-~](?:[ -~]*[!-~])?$"
MessageId = Annotated[str, StringConstraints(max_length=MESSAGE_ID_CHARS_MAX, pattern=_PRINTABLE)]
Reference = Annotated[str, StringConstraints(max_length=REFERENCE_CHARS_MAX, pattern=_PRINTABLE)]


class _ClientMessage(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, hide_input_in_errors=True)

    message_id: MessageId


class Authenticate(_ClientMessage):
    """The answer to `hello`: who the device is, proved by `mac` (`device_keys.authentication_mac`, in hex).

    `since_ms` asks for the results that this device may have missed: the largest `server_time_ms` or `decided_at_ms` it
    has seen. Without it nothing is replayed.
    """

    type: Literal["authenticate"] = "authenticate"
    id: Annotated[int, Field(ge=1, le=2**53 - 1)]
    slot: Annotated[int, Field(ge=0, le=SLOT_MAX)] = 0
    kid: Annotated[str, StringConstraints(max_length=32, pattern=r"^[A-Za-z0-9_-]+$")]
    mac: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] = Field(repr=False)
    since_ms: Annotated[int, Field(ge=0, le=2**53 - 1)] | None = None


class PaymentScan(_ClientMessage):
    """A till asks to be paid with a scanned code. Safe to send again with the same `payment_id` until answered."""

    type: Literal["payment.scan"] = "payment.scan"
    payment_id: UUID
    reference: Reference
    amount_minor: PositiveMinor
    currency: Currency
    code: Annotated[str, Field(repr=False)]


ClientMessage = Authenticate | PaymentScan
_message_ids: TypeAdapter[str] = TypeAdapter(MessageId)
_client_messages: TypeAdapter[ClientMessage] = TypeAdapter(Annotated[ClientMessage, Field(discriminator="type")])


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The server's first message. `nonce` (hex) is to be signed; `server_time_ms` sets the wallet's clock."""

    type: Literal["hello"] = "hello"
    protocol: str = SUBPROTOCOL
    nonce: str
    server_time_ms: int
    heartbeat_s: int
    authenticate_within_s: int
    frame_bytes_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalReady:
    """The terminal is authenticated and may scan. What it missed follows, unless `resumed` says it was too much."""

    type: Literal["ready"] = "ready"
    reply_to: str
    server_time_ms: int
    resumed: bool
    terminal_number: int
    merchant_name: str
    store_name: str
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletReady:
    """The wallet device is authenticated and will be told of its payments; first of those it missed, as above."""

    type: Literal["ready"] = "ready"
    reply_to: str
    server_time_ms: int
    resumed: bool
    wallet_number: int
    slot: int
    currency: str
    balance_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalPaymentResult:
    """The final word on a payment, for the till. `paid_by` names the earlier payment when it is `already_paid`."""

    type: Literal["payment.result"] = "payment.result"
    reply_to: str | None
    payment_id: UUID
    version: int
    reference: str
    amount_minor: int
    currency: str
    status: str
    decline_code: str | None
    retryable: bool
    text: str
    paid_by: UUID | None
    decided_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletPaymentResult:
    """The same, for the customer: who was paid, and what is left."""

    type: Literal["payment.result"] = "payment.result"
    payment_id: UUID
    version: int
    merchant_name: str
    store_name: str
    amount_minor: int
    currency: str
    status: str
    decline_code: str | None
    text: str
    balance_minor: int
    decided_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """A message was not acted on, or its outcome is not known; `code` is stable, `message` is for people."""

    type: Literal["error"] = "error"
    reply_to: str | None
    code: str
    message: str
    field: str | None = None
    retryable: bool
    retry_after_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draining:
    """The server is about to close this connection: reconnect after a random time of up to `reconnect_within_s`."""

    type: Literal["draining"] = "draining"
    reconnect_within_s: int


ServerMessage = Hello | TerminalReady | WalletReady | TerminalPaymentResult | WalletPaymentResult | Draining | Error
TerminalMessage = Annotated[
    Hello | TerminalReady | TerminalPaymentResult | Draining | Error, Field(discriminator="type")
]
WalletMessage = Annotated[Hello | WalletReady | WalletPaymentResult | Draining | Error, Field(discriminator="type")]


def encode(message: ServerMessage | BaseModel) -> str:
    """The text frame of a message."""
    return orjson.dumps(message.model_dump(mode="json") if isinstance(message, BaseModel) else message).decode()


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
    if kind == "json_invalid":
        raise ConnectionClosing(CloseCode.NOT_JSON, "the frame is not JSON")
    document = from_json(text)
    if not isinstance(document, dict):
        raise ConnectionClosing(CloseCode.NOT_JSON, "the frame is not a JSON object")
    reply_to = _well_formed_message_id(document.get("message_id"))
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        raise MessageError(ErrorCode.UNKNOWN_TYPE, "unknown message type", field="type", reply_to=reply_to)
    # The first part is the discriminator's: which type of message it was.
    raise MessageError(ErrorCode.BAD_FIELD, problem, field=".".join(field[1:]), reply_to=reply_to)


def describe(error: ValidationError) -> tuple[list[str], str]:
    """The path of the first field at fault and what is wrong with it, without what the client sent."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    # pydantic's text for this one quotes a character of the input.
    problem = "Input should be a UUID" if first["type"] == "uuid_parsing" else first["msg"]
    return [str(part) for part in first["loc"]], problem


def _well_formed_message_id(value: object) -> str | None:
    try:
        return _message_ids.validate_python(value, strict=True)
    except ValidationError:
        return None
