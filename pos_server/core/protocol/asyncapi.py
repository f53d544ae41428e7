"""The protocol for tools: an AsyncAPI 3.0.0 document, derived from the message classes, codes and texts of the server.

https://www.asyncapi.com/docs/reference/specification/v3.0.0. The document describes the server: its operations
`receive` requests and `send` everything else. Schemas are JSON Schema draft 07, as the specification requires.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel, TypeAdapter

from ..credentials.device_keys import DeviceKind
from ..errors import CloseCode, ErrorCode
from ..payments.declines import ADVICE
from ..texts import LANGUAGES, decline_text
from .client_messages import OPERATOR_CHARS_MAX, REQUESTS, Authenticate
from .fields import MESSAGE_ID_CHARS_MAX, REFERENCE_CHARS_MAX
from .server_messages import MESSAGES_TO, SUBPROTOCOL, Hello

ASYNCAPI_VERSION = "3.0.0"
# RFC 6455 section 4.1: the version of the WebSocket protocol.
_WEBSOCKET_VERSION = "13"
_WS_BINDING_VERSION = "0.1.0"

Document = dict[str, Any]
Message = type[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class WireLimits:
    """Settings that a client can notice. `messages_per_s` and `queries_per_s` are averages, after a burst."""

    frame_bytes_max: int
    heartbeat_s: int
    heartbeat_timeout_s: float
    authenticate_within_s: int
    messages_per_s: float
    messages_burst: int
    device_operations_max: int
    operation_deadline_s: float
    queries_per_s: float
    queries_burst: int
    connection_requests_max: int
    confirmation_s: float
    pin_payment_failures_max: int
    pin_failures_max: int
    pin_lock_s: float


_CHANNEL_SUMMARIES = {
    DeviceKind.TERMINAL: "Connection of a till: it scans codes and receives the outcomes of its payments.",
    DeviceKind.WALLET: "Connection of a customer's wallet: it is notified of its payments and confirms them.",
}
_DESCRIPTION = f"""\
Each till and each wallet device holds one WebSocket, with the subprotocol `{SUBPROTOCOL}`. A message is one JSON object
in one text message.

The server sends `hello`, the device answers with `authenticate`, and the server sends `ready`. Then a till may send
`payment.scan`, and both sides receive the result. A payment that needs the customer's PIN is `payment.pending` first.
Delivery is at least once: repeat an unanswered request with the same id, and drop a message about a payment if its
`version` is not greater than the last one you processed.

Ignore unknown fields, messages and codes: the server may be newer. It ignores unknown fields, too. An integer written
with a fraction, such as `1250.0`, is rejected, which JSON Schema cannot express.

`x-error-codes`, `x-decline-codes`, `x-close-codes` and `x-limits` hold the parts that AsyncAPI has no place for.
"""


def asyncapi_document(version: str, limits: WireLimits) -> Document:
    """Return the document of a server of this `version`, ready for JSON. Equal input gives equal output, in order."""
    messages = tuple(dict.fromkeys(message for kind in DeviceKind for message in _messages(kind)))
    return {
        "asyncapi": ASYNCAPI_VERSION,
        "info": {
            "title": f"pos-server, {SUBPROTOCOL}",
            "version": version,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "direct": _server("ws", "localhost:8080", "The server without TLS, for tests on one machine."),
            "proxied": _server("wss", "localhost", "The server behind a TLS proxy."),
        },
        "channels": {kind.value: _channel(kind) for kind in DeviceKind},
        "operations": {name: operation for kind in DeviceKind for name, operation in _operations(kind)},
        "components": {
            "messages": {message.__name__: _message(message) for message in messages},
            "schemas": {message.__name__: message_schema(message) for message in messages},
            "correlationIds": {
                "message_id": {
                    "location": "$message.payload#/message_id",
                    "description": "The answer has it as `reply_to`.",
                },
                "reply_to": {
                    "location": "$message.payload#/reply_to",
                    "description": "The `message_id` of the request that this answers.",
                },
            },
        },
        "x-error-codes": [
            {"code": code.value, "retryable": code.retryable, "message": code.description} for code in ErrorCode
        ],
        "x-decline-codes": [
            {
                "code": code.value,
                "description": code.description,
                "retryable": advice.retryable,
                "next_step": advice.next_step.value,
                "cashier": {language: decline_text(language, "cashier", code) for language in LANGUAGES},
                "customer": {language: decline_text(language, "customer", code) for language in LANGUAGES},
            }
            for code, advice in ADVICE.items()
        ],
        "x-close-codes": [
            {
                "code": code.value,
                "name": code.name.lower(),
                "description": code.description,
                "reconnect": code.reconnect,
            }
            for code in CloseCode
        ],
        "x-limits": asdict(limits)
        | {
            "message_id_chars_max": MESSAGE_ID_CHARS_MAX,
            "reference_chars_max": REFERENCE_CHARS_MAX,
            "operator_chars_max": OPERATOR_CHARS_MAX,
        },
    }


def _messages(kind: DeviceKind) -> tuple[Message, ...]:
    """Every message of a channel, requests first."""
    return (Authenticate, *REQUESTS[kind], *MESSAGES_TO[kind])


def _server(protocol: str, host: str, description: str) -> Document:
    return {
        "host": "{host}",
        "protocol": protocol,
        "protocolVersion": _WEBSOCKET_VERSION,
        "description": description,
        "variables": {"host": {"default": host, "description": "host, or host:port"}},
    }


def _channel(kind: DeviceKind) -> Document:
    offered = {"type": "string", "const": SUBPROTOCOL, "description": "The only subprotocol. It must be offered."}
    return {
        "address": f"/v1/{kind}",
        "title": kind.value,
        "summary": _CHANNEL_SUMMARIES[kind],
        "messages": {message.__name__: _ref("components", "messages", message.__name__) for message in _messages(kind)},
        "bindings": {
            "ws": {
                "method": "GET",
                "headers": {
                    "type": "object",
                    "properties": {"Sec-WebSocket-Protocol": offered},
                    "required": ["Sec-WebSocket-Protocol"],
                },
                "bindingVersion": _WS_BINDING_VERSION,
            }
        },
    }


def _operations(kind: DeviceKind) -> Iterator[tuple[str, Document]]:
    """The operations of a channel: the greeting, each request with its replies, and what comes without a request."""
    channel = _ref("channels", kind.value)

    def operation(action: str, summary: str, *messages: Message) -> Document:
        return {"action": action, "channel": channel, "summary": summary, "messages": listed(messages)}

    def listed(messages: tuple[Message, ...]) -> list[Document]:
        return [_ref("channels", kind.value, "messages", message.__name__) for message in messages]

    yield f"greet{kind.capitalize()}", operation("send", "Greet the device: the server sends first.", Hello)
    for request in (Authenticate, *REQUESTS[kind]):
        replies = tuple(reply for reply in request.replies if reply in MESSAGES_TO[kind])
        yield (
            _operation_name(request, kind),
            operation("receive", _summary(request), request)
            | {"reply": {"channel": channel, "messages": listed(replies)}},
        )
    # A message that must have `reply_to` comes only as an answer.
    unsolicited = [message for message in MESSAGES_TO[kind] if message is not Hello and not _always_answers(message)]
    yield (
        f"notify{kind.capitalize()}",
        operation("send", "Notify the device of changes, errors and the end of the connection.", *unsolicited),
    )


def _operation_name(request: type[BaseModel], kind: DeviceKind) -> str:
    """`scanPayment` for `payment.scan`; `resumeWallet` for a request that both kinds of device send."""
    noun, _, verb = request.model_fields["type"].default.partition(".")
    if request is Authenticate or all(request in requests for requests in REQUESTS.values()):
        return f"{noun}{kind.capitalize()}"
    return f"{verb}{noun.capitalize()}" if verb else noun


def _always_answers(message: Message) -> bool:
    reply_to = message_schema(message)["properties"].get("reply_to")
    return reply_to is not None and "anyOf" not in reply_to


def _summary(message: Message) -> str:
    """The first paragraph of its description, in one line."""
    return " ".join(str(message_schema(message)["description"]).partition("\n\n")[0].split())


def _message(message: Message) -> Document:
    schema = message_schema(message)
    described: Document = {
        "name": schema["properties"]["type"]["const"],
        "title": message.__name__,
        "summary": _summary(message),
        "contentType": "application/json",
        "payload": _ref("components", "schemas", message.__name__),
    }
    for name in ("message_id", "reply_to"):
        if name in schema["properties"]:
            described["correlationId"] = _ref("components", "correlationIds", name)
    return described


def message_schema(message: Message) -> Document:
    """Return the JSON Schema of a message on the wire. Callers do not change it."""
    return _message_schemas()[message]


@cache  # each is needed four times
def _message_schemas() -> dict[Message, Document]:
    return {message: _message_schema(message) for kind in DeviceKind for message in _messages(kind)}


def _message_schema(message: Message) -> Document:
    schema = TypeAdapter(message).json_schema(ref_template="#/components/schemas/{model}")
    # Messages within a message have schemas of their own. Schemas of other parts are put in place.
    parts = {name: part for name, part in schema.pop("$defs", {}).items() if "type" not in part["properties"]}
    properties: dict[str, Document] = schema["properties"]
    for value in properties.values():
        part = parts.get(value.get("items", {}).get("$ref", "").rpartition("/")[2])
        if part is not None:
            value["items"] = part | {"properties": {k: dict(_tidy(v, True)) for k, v in part["properties"].items()}}
    # `type` has a default in Python but is required on the wire. The server omits no field.
    always = {"type", *schema["required"]} if issubclass(message, BaseModel) else properties.keys()
    schema["properties"] = {name: dict(_tidy(value, name in always)) for name, value in properties.items()}
    schema["required"] = [name for name in properties if name in always]
    return schema


def _tidy(schema: Document, required: bool) -> Iterator[tuple[str, Any]]:
    """Drop titles, which repeat the names, and defaults of required fields."""
    return ((key, value) for key, value in schema.items() if key != "title" and not (required and key == "default"))


def _ref(*path: str) -> Document:
    return {"$ref": "#/" + "/".join(path)}
