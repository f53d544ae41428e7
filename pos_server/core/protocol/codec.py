"""Text frames to messages and back."""

from typing import Annotated, Literal

import msgspec
from pydantic import (
    BaseModel,
    Field,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import from_json

from ..errors import CloseCode, ConnectionClosing, ErrorCode, MessageError
from .client_messages import ONE_OF, ClientMessage
from .fields import MESSAGE_ID_CHARS_MAX, MessageId
from .server_messages import ServerMessage

_message_ids: TypeAdapter[str] = TypeAdapter(MessageId)
_client_messages: TypeAdapter[ClientMessage] = TypeAdapter(Annotated[ClientMessage, Field(discriminator="type")])


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
    # PRINTABLE_PATTERN in other words, which take a third of the work.
    is_printable = message_id.isascii() and message_id.isprintable() and message_id.strip(" ") == message_id
    return message_id if is_printable else None


def describe(error: ValidationError) -> tuple[list[str], str]:
    """The path of the first field at fault and what is wrong with it, without what the client sent."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    # pydantic's text for this one quotes a character of the input.
    problem = "Input should be a UUID" if first["type"] == "uuid_parsing" else first["msg"]
    # A model's own check has no place: the first of the fields that it is about stands for them.
    field = ["payment_id"] if first["type"] == ONE_OF else []
    return [*(str(part) for part in first["loc"]), *field], problem


def _well_formed_message_id(value: object) -> str | None:
    try:
        return _message_ids.validate_python(value, strict=True)
    except ValidationError:
        return None
