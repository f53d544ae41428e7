"""The protocol for tools: an AsyncAPI 3.0.0 document, made from the messages, codes and texts that the server uses.

https://www.asyncapi.com/docs/reference/specification/v3.0.0. The application that it describes is the server: it
`receive`s what clients send and `send`s the rest. Schemas are JSON Schema draft 07, as the specification asks.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter

from ..credentials.device_keys import DeviceKind
from ..errors import CloseCode, ErrorCode
from ..payments.declines import ADVICE
from ..texts import LANGUAGES, decline_text
from .client_messages import (
    OPERATOR_CHARS_MAX,
    Authenticate,
    History,
    PaymentCancel,
    PaymentConfirm,
    PaymentQuery,
    PaymentReject,
    PaymentScan,
    PaymentsRecent,
    PinSet,
    RefundCreate,
    ShiftClose,
    ShiftOpen,
    ShiftQuery,
)
from .fields import MESSAGE_ID_CHARS_MAX, REFERENCE_CHARS_MAX
from .notices import ERROR_TEXTS
from .server_messages import (
    SUBPROTOCOL,
    ConfirmationRequired,
    Draining,
    Error,
    Hello,
    HistoryPage,
    PaymentList,
    PaymentPending,
    PinChanged,
    ShiftReport,
    StatusChanged,
    TerminalMessage,
    TerminalPaymentResult,
    TerminalReady,
    TerminalRefundResult,
    WalletMessage,
    WalletPaymentResult,
    WalletReady,
    WalletRefundResult,
)

ASYNCAPI_VERSION = "3.0.0"
# RFC 6455 section 4.1: the version of the WebSocket protocol.
_WEBSOCKET_VERSION = "13"
_WS_BINDING_VERSION = "0.1.0"

Document = dict[str, Any]
Message = type[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class WireLimits:
    """The settings that a client can notice. Times in seconds, `messages_per_s` on average, after a burst."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Operation:
    """What the server does on a channel. `reply` holds the messages that answer, each with its `reply_to`."""

    name: str
    action: str
    summary: str
    messages: tuple[Message, ...]
    reply: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Channel:
    """One kind of device: its WebSocket's path, both directions' messages in the order of a connection's life."""

    kind: DeviceKind
    summary: str
    server_says: tuple[Message, ...]
    operations: tuple[_Operation, ...]

    @property
    def messages(self) -> tuple[Message, ...]:
        """Every message of the channel, once."""
        heard = (operation.messages for operation in self.operations if operation.action == "receive")
        return (*chain.from_iterable(heard), *self.server_says)


def _members(union: Any) -> tuple[Message, ...]:
    return get_args(get_args(union)[0])


_CHANNELS = (
    _Channel(
        kind=DeviceKind.TERMINAL,
        summary="A till: it scans codes and hears what became of them.",
        server_says=_members(TerminalMessage),
        operations=(
            _Operation(
                name="greetTerminal",
                action="send",
                summary="The server speaks first.",
                messages=(Hello,),
            ),
            _Operation(
                name="authenticateTerminal",
                action="receive",
                summary="A till proves who it is. When it cannot, the connection is closed.",
                messages=(Authenticate,),
                reply=(TerminalReady,),
            ),
            _Operation(
                name="scanPayment",
                action="receive",
                summary="A till asks to be paid. A till that hears nothing sends the same again.",
                messages=(PaymentScan,),
                reply=(TerminalPaymentResult, PaymentPending, Error),
            ),
            _Operation(
                name="cancelPayment",
                action="receive",
                summary="A till takes a payment back, also one that never arrived.",
                messages=(PaymentCancel,),
                reply=(TerminalPaymentResult, Error),
            ),
            _Operation(
                name="queryPayment",
                action="receive",
                summary="A till asks what became of a payment.",
                messages=(PaymentQuery,),
                reply=(TerminalPaymentResult, PaymentPending, Error),
            ),
            _Operation(
                name="listPayments",
                action="receive",
                summary="A till asks for its last payments.",
                messages=(PaymentsRecent,),
                reply=(PaymentList, Error),
            ),
            _Operation(
                name="refundPayment",
                action="receive",
                summary="A till gives some of a payment back.",
                messages=(RefundCreate,),
                reply=(TerminalRefundResult, Error),
            ),
            _Operation(
                name="openShift",
                action="receive",
                summary="An operator begins at a till.",
                messages=(ShiftOpen,),
                reply=(ShiftReport, Error),
            ),
            _Operation(
                name="closeShift",
                action="receive",
                summary="An operator ends, and gets the Z-report.",
                messages=(ShiftClose,),
                reply=(ShiftReport, Error),
            ),
            _Operation(
                name="queryShift",
                action="receive",
                summary="A till asks for the report of its open shift (X) or of one that is closed (Z).",
                messages=(ShiftQuery,),
                reply=(ShiftReport, Error),
            ),
            _Operation(
                name="tellTerminal",
                action="send",
                summary="What the till did not ask for: results that come later or were missed, refunds by others, a "
                "new status, errors, the end of the connection.",
                messages=(TerminalPaymentResult, PaymentPending, TerminalRefundResult, StatusChanged, Error, Draining),
            ),
        ),
    ),
    _Channel(
        kind=DeviceKind.WALLET,
        summary="A customer's wallet: it is told of its payments.",
        server_says=_members(WalletMessage),
        operations=(
            _Operation(
                name="greetWallet",
                action="send",
                summary="The server speaks first.",
                messages=(Hello,),
            ),
            _Operation(
                name="authenticateWallet",
                action="receive",
                summary="A wallet proves who it is. When it cannot, the connection is closed.",
                messages=(Authenticate,),
                reply=(WalletReady,),
            ),
            _Operation(
                name="confirmPayment",
                action="receive",
                summary="A customer agrees to a payment, with the PIN.",
                messages=(PaymentConfirm,),
                reply=(WalletPaymentResult, ConfirmationRequired, Error),
            ),
            _Operation(
                name="rejectPayment",
                action="receive",
                summary="A customer does not want to pay.",
                messages=(PaymentReject,),
                reply=(WalletPaymentResult, Error),
            ),
            _Operation(
                name="setPin",
                action="receive",
                summary="A customer sets or changes the PIN.",
                messages=(PinSet,),
                reply=(PinChanged, Error),
            ),
            _Operation(
                name="showHistory",
                action="receive",
                summary="A customer looks back.",
                messages=(History,),
                reply=(HistoryPage, Error),
            ),
            _Operation(
                name="tellWallet",
                action="send",
                summary="What becomes of the wallet's payments, now and missed: results, questions for the PIN, "
                "refunds; a new PIN, a new status, errors, the end of the connection.",
                messages=(
                    WalletPaymentResult,
                    ConfirmationRequired,
                    WalletRefundResult,
                    PinChanged,
                    StatusChanged,
                    Error,
                    Draining,
                ),
            ),
        ),
    ),
)

_DESCRIPTION = f"""\
Tills and wallets hold one WebSocket each, with the subprotocol `{SUBPROTOCOL}`. A message is one JSON object in one
text message.

The server says `hello`, the device answers `authenticate`, the server says `ready`. Then a till may send
`payment.scan`, and both are told the result; a payment that needs the customer's PIN is `payment.pending` meanwhile.
Delivery is at least once: send a request that is not answered again, with the same id; drop what is told of a payment
in a `version` that is not newer than the one you have.

Ignore fields, messages and codes that you do not know: the server may be newer. It ignores fields too. A number with a
fraction is refused where an integer is due, `1250.0` too, which JSON Schema cannot say.

`x-error-codes`, `x-decline-codes`, `x-close-codes` and `x-limits` hold what AsyncAPI has no place for.
"""


def asyncapi_document(version: str, limits: WireLimits) -> Document:
    """The document of a server of this `version`, ready for JSON. The same input gives the same output, in order."""
    messages = tuple(dict.fromkeys(chain.from_iterable(channel.messages for channel in _CHANNELS)))
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
            "direct": _server("ws", "localhost:8080", "The server itself, without TLS: for tests on one machine."),
            "proxied": _server("wss", "localhost", "The TLS proxy in front of it."),
        },
        "channels": {channel.kind.value: _channel(channel) for channel in _CHANNELS},
        "operations": {
            operation.name: _operation(channel, operation) for channel in _CHANNELS for operation in channel.operations
        },
        "components": {
            "messages": {message.__name__: _message(message) for message in messages},
            "schemas": {message.__name__: _schema(message) for message in messages},
            "correlationIds": {
                "message_id": {"location": "$message.payload#/message_id", "description": "Comes back as `reply_to`."},
                "reply_to": {
                    "location": "$message.payload#/reply_to",
                    "description": "The `message_id` of the message that this answers.",
                },
            },
        },
        "x-error-codes": [
            {"code": code.value, "retryable": code.retryable, "message": ERROR_TEXTS.get(code)} for code in ErrorCode
        ],
        "x-decline-codes": [
            {
                "code": code.value,
                "retryable": advice.retryable,
                "next_step": advice.next_step.value,
                "cashier": {language: decline_text(language, "cashier", code) for language in LANGUAGES},
                "customer": {language: decline_text(language, "customer", code) for language in LANGUAGES},
            }
            for code, advice in ADVICE.items()
        ],
        "x-close-codes": [
            {"code": code.value, "name": code.name.lower(), "reconnect": code.reconnect} for code in CloseCode
        ],
        "x-limits": asdict(limits)
        | {
            "message_id_chars_max": MESSAGE_ID_CHARS_MAX,
            "reference_chars_max": REFERENCE_CHARS_MAX,
            "operator_chars_max": OPERATOR_CHARS_MAX,
        },
    }


def _server(protocol: str, host: str, description: str) -> Document:
    return {
        "host": "{host}",
        "protocol": protocol,
        "protocolVersion": _WEBSOCKET_VERSION,
        "description": description,
        "variables": {"host": {"default": host, "description": "host, or host:port"}},
    }


def _channel(channel: _Channel) -> Document:
    offered = {"type": "string", "const": SUBPROTOCOL, "description": "the only subprotocol; it must be offered"}
    return {
        "address": f"/v1/{channel.kind}",
        "title": channel.kind.value,
        "summary": channel.summary,
        "messages": {
            message.__name__: _ref("components", "messages", message.__name__) for message in channel.messages
        },
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


def _operation(channel: _Channel, operation: _Operation) -> Document:
    def messages(of: tuple[Message, ...]) -> list[Document]:
        return [_ref("channels", channel.kind.value, "messages", message.__name__) for message in of]

    described: Document = {
        "action": operation.action,
        "channel": _ref("channels", channel.kind.value),
        "summary": operation.summary,
        "messages": messages(operation.messages),
    }
    if operation.reply:
        described["reply"] = {"channel": described["channel"], "messages": messages(operation.reply)}
    return described


def _message(message: Message) -> Document:
    schema = _schema(message)
    described: Document = {
        "name": schema["properties"]["type"]["const"],
        "title": message.__name__,
        "summary": schema["description"],
        "contentType": "application/json",
        "payload": _ref("components", "schemas", message.__name__),
    }
    for name in ("message_id", "reply_to"):
        if name in schema["properties"]:
            described["correlationId"] = _ref("components", "correlationIds", name)
    return described


def _schema(message: Message) -> Document:
    """The JSON Schema of a message as it is on the wire."""
    schema = TypeAdapter(message).json_schema(ref_template="#/components/schemas/{model}")
    # Messages in a message are messages of their own, and stand among the others. What else it is made of stands in it.
    parts = {name: part for name, part in schema.pop("$defs", {}).items() if "type" not in part["properties"]}
    properties: dict[str, Document] = schema["properties"]
    for value in properties.values():
        part = parts.get(value.get("items", {}).get("$ref", "").rpartition("/")[2])
        if part is not None:
            value["items"] = part | {"properties": {k: dict(_tidy(v, True)) for k, v in part["properties"].items()}}
    # In Python `type` has a default, on the wire it is what tells messages apart. The server leaves no field out.
    always = {"type", *schema["required"]} if issubclass(message, BaseModel) else properties.keys()
    schema["properties"] = {name: dict(_tidy(value, name in always)) for name, value in properties.items()}
    schema["required"] = [name for name in properties if name in always]
    return schema


def _tidy(schema: Document, required: bool) -> Iterator[tuple[str, Any]]:
    """Without the titles that repeat the names, and without defaults where there is always a value."""
    return ((key, value) for key, value in schema.items() if key != "title" and not (required and key == "default"))


def _ref(*path: str) -> Document:
    return {"$ref": "#/" + "/".join(path)}
