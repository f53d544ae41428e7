"""Encode messages to text frames, and decode the text frames of clients."""

from typing import Annotated, Literal

import msgspec
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from ..errors import CloseCode, ConnectionClosing, ErrorCode, MessageError
from .client_messages import ONE_OF, ClientMessage
from .fields import MESSAGE_ID_CHARS_MAX, MessageId
from .server_messages import ServerMessage

_message_ids: TypeAdapter[str] = TypeAdapter(MessageId)
_client_messages: TypeAdapter[ClientMessage] = TypeAdapter(Annotated[ClientMessage, Field(discriminator="type")])


def encode(message: ServerMessage | BaseModel) -> str:
    """Return the text frame of a message."""
    return _encoder.encode(message).decode()


def _plain(part: object) -> object:
    """Convert a pydantic model, which msgspec does not know."""
    if isinstance(part, BaseModel):
        return part.model_dump(mode="json")
    raise TypeError(f"cannot encode {type(part).__name__}")


_encoder = msgspec.json.Encoder(enc_hook=_plain)


def decode_client_message(text: str) -> ClientMessage:
    """Return the message in a client's text frame.

    Raises ConnectionClosing if the frame is not a JSON object. Raises MessageError, with the field and any readable
    `message_id`, if the type is unknown or a field is wrong. Apart from a valid `message_id`, neither error repeats the
    client's input.
    """
    try:
        return _client_messages.validate_json(text)
    except ValidationError as error:
        field, problem = first_problem(error)
        kind = error.errors(include_url=False, include_context=False, include_input=False)[0]["type"]
    if kind in ("json_invalid", "string_unicode"):
        raise ConnectionClosing(CloseCode.NOT_JSON, "the frame is not JSON")
    document = from_json(text)
    if not isinstance(document, dict):
        raise ConnectionClosing(CloseCode.NOT_JSON, "the frame is not a JSON object")
    reply_to = _valid_message_id(document.get("message_id"))
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        raise MessageError(ErrorCode.UNKNOWN_TYPE, "unknown message type", field="type", reply_to=reply_to)
    # The first part comes from the discriminator: the type of the message.
    raise MessageError(ErrorCode.BAD_FIELD, problem, field=".".join(field[1:]), reply_to=reply_to)


class _ScanHead(msgspec.Struct, gc=False):
    type: Literal["payment.scan"]
    message_id: Annotated[str, msgspec.Meta(min_length=1, max_length=MESSAGE_ID_CHARS_MAX)]


_scan_heads = msgspec.json.Decoder(_ScanHead)


def message_id_of_scan(text: str) -> str | None:
    """Return the `message_id` of a `payment.scan` without validating its other fields; None for any other message.

    A server without room for a scan needs no more: this takes a quarter of the work of `decode_client_message`.
    """
    try:
        message_id = _scan_heads.decode(text).message_id
    except (msgspec.DecodeError, UnicodeError, RecursionError):  # the last for deeply nested arrays
        return None
    # Equivalent to PRINTABLE_PATTERN, in a third of the time.
    is_printable = message_id.isascii() and message_id.isprintable() and message_id.strip(" ") == message_id
    return message_id if is_printable else None


def first_problem(error: ValidationError) -> tuple[list[str], str]:
    """Return the path of the first wrong field and its problem, without the client's input."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    # pydantic's own text for this problem quotes a character of the input.
    problem = "Input should be a UUID" if first["type"] == "uuid_parsing" else first["msg"]
    # A check of the whole model has no path: the first field that it concerns stands for it.
    field = ["payment_id"] if first["type"] == ONE_OF else []
    return [*(str(part) for part in first["loc"]), *field], problem


def _valid_message_id(value: object) -> str | None:
    try:
        return _message_ids.validate_python(value, strict=True)
    except ValidationError:
        return None
