"""The AsyncAPI document is valid, and says what the server really sends and takes, both ways.

No Python package ships the official JSON Schema of AsyncAPI 3. `asyncapi3`, pydantic models of the same objects, stands
in for it; what those leave open (schemas, references) is checked here.
"""

import inspect
import json
import re
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import hypothesis
import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jsonschema import Draft7Validator, FormatChecker
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from pydantic import BaseModel
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from pos_server.api.asyncapi import MEDIA_TYPE, asyncapi_json
from pos_server.cli import operator_acts
from pos_server.core.credentials.api_keys import Role
from pos_server.core.credentials.device_keys import DeviceId, DeviceKind
from pos_server.core.errors import CloseCode, ConnectionClosing, ErrorCode, MessageError
from pos_server.core.payments.declines import ADVICE
from pos_server.core.payments.payment import DeclineCode
from pos_server.core.protocol import client_messages, server_messages
from pos_server.core.protocol.codec import decode_client_message
from pos_server.core.protocol.server_messages import SUBPROTOCOL
from pos_server.core.protocol.session import Session
from pos_server.core.texts import LANGUAGES, decline_text
from pos_server.server import RunningServer, serving
from tests.end_to_end.server_process import pos_server
from tests.support import KEYRING, Shop, TestDevice, activated, authenticate, new_id, receive, scan_message, settings

with warnings.catch_warnings():
    # Two of its models have a field called `schema`.
    warnings.simplefilter("ignore", UserWarning)
    from asyncapi3 import AsyncAPI3

DOCUMENT: dict[str, Any] = json.loads(asyncapi_json(settings()))
SCHEMAS: dict[str, dict[str, Any]] = DOCUMENT["components"]["schemas"]
CLASSES: dict[str, type] = {
    name: value
    for module in (client_messages, server_messages)
    for name, value in inspect.getmembers(module, inspect.isclass)
    if value.__module__ == module.__name__ and "type" in inspect.get_annotations(value) and not name.startswith("_")
}
OF_CLIENTS = {name: value for name, value in CLASSES.items() if issubclass(value, BaseModel)}
OF_SERVER = {name: value for name, value in CLASSES.items() if issubclass(value, msgspec.Struct)}
CHANNELS = [kind.value for kind in DeviceKind]


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """As in ECMA 262, which JSON Schema means: `$` is the very end. Python's takes a line break after it."""
    if isinstance(instance, str) and not re.search(python_pattern(pattern), instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def python_pattern(pattern: str) -> str:
    return re.sub(r"\$$", r"\\Z", pattern)


Validator = extend(Draft7Validator, {"pattern": _pattern})


def accepts(name: str, message: object) -> bool:
    """Whether the document's schema `name` takes the message."""
    return validator(name).is_valid(message)


def validator(name: str) -> Any:
    """Of one of the document's schemas, with the rest of the document within reach of its references."""
    return Validator(SCHEMAS[name] | {"components": {"schemas": SCHEMAS}}, format_checker=FormatChecker())


def walk(node: object) -> Iterator[dict[str, Any]]:
    """Every object in it."""
    if isinstance(node, dict):
        yield node
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(value)


def resolve(reference: dict[str, str]) -> Any:
    """What a reference within the document points at. Raises LookupError."""
    start, *path = reference["$ref"].split("/")
    assert start == "#"
    found: Any = DOCUMENT
    for part in path:
        found = found[part]
    return found


def names(references: list[dict[str, str]], channel: str) -> set[str]:
    """The classes behind an operation's messages, which must stand in the channel."""
    prefix = f"#/channels/{channel}/messages/"
    assert all(reference["$ref"].startswith(prefix) for reference in references), references
    return {resolve(resolve(reference))["title"] for reference in references}


def operations(channel: str, action: str) -> list[dict[str, Any]]:
    wanted = {"$ref": f"#/channels/{channel}"}
    every = DOCUMENT["operations"].values()
    return [operation for operation in every if operation["channel"] == wanted and operation["action"] == action]


# The document as such


def test_it_is_valid_asyncapi() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    parsed = AsyncAPI3.model_validate(DOCUMENT)
    assert parsed.model_dump(mode="json", by_alias=True) == DOCUMENT, "something in it is not AsyncAPI"


def test_its_schemas_are_valid_draft_07() -> None:
    headers = [channel["bindings"]["ws"]["headers"] for channel in DOCUMENT["channels"].values()]
    for schema in [*SCHEMAS.values(), *headers]:
        Draft7Validator.check_schema(schema)
        known = {*Draft7Validator.META_SCHEMA["properties"]}
        assert all(part.keys() <= known for part in schemas_in(schema)), schema


def schemas_in(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schema and those in it."""
    yield schema
    for inner in (*schema.get("properties", {}).values(), *schema.get("anyOf", ()), schema.get("items")):
        if inner is not None:
            yield from schemas_in(inner)


def test_its_references_resolve() -> None:
    references = [node for node in walk(DOCUMENT) if "$ref" in node]
    assert references
    for reference in references:
        assert isinstance(resolve(reference), dict)


def test_every_field_is_described() -> None:
    for name, schema in SCHEMAS.items():
        assert schema["description"], name
        for field, value in schema["properties"].items():
            described = any("description" in part for part in (value, *value.get("anyOf", ())))
            assert described or field == "type", f"{name}.{field}"


def test_the_subprotocol_must_be_offered() -> None:
    for channel in DOCUMENT["channels"].values():
        binding = channel["bindings"]["ws"]
        assert (binding["method"], binding["bindingVersion"]) == ("GET", "0.1.0")
        headers = Draft7Validator(binding["headers"])
        assert headers.is_valid({"Sec-WebSocket-Protocol": SUBPROTOCOL})
        assert not headers.is_valid({})
        assert not headers.is_valid({"Sec-WebSocket-Protocol": "pos.v2"})


def test_codes_are_those_of_the_enums() -> None:
    assert [(row["code"], row["retryable"]) for row in DOCUMENT["x-error-codes"]] == [
        (code.value, code.retryable) for code in ErrorCode
    ]
    assert [(row["code"], row["name"], row["reconnect"]) for row in DOCUMENT["x-close-codes"]] == [
        (code.value, code.name.lower(), code.reconnect) for code in CloseCode
    ]
    assert DOCUMENT["x-decline-codes"] == [
        {
            "code": code.value,
            "retryable": ADVICE[code].retryable,
            "next_step": ADVICE[code].next_step.value,
            "cashier": {language: decline_text(language, "cashier", code) for language in LANGUAGES},
            "customer": {language: decline_text(language, "customer", code) for language in LANGUAGES},
        }
        for code in DeclineCode
    ]


# Which messages go where


def test_every_message_class_is_in_it() -> None:
    assert set(SCHEMAS) == set(DOCUMENT["components"]["messages"]) == set(CLASSES)
    for name, message in DOCUMENT["components"]["messages"].items():
        assert message["payload"] == {"$ref": f"#/components/schemas/{name}"}
        assert SCHEMAS[name]["properties"]["type"]["const"] == message["name"]


@pytest.mark.parametrize("channel", CHANNELS)
def test_the_server_sends_a_channel_what_its_union_says(channel: str) -> None:
    union = {"terminal": server_messages.TerminalMessage, "wallet": server_messages.WalletMessage}[channel]
    members = {member.__name__ for member in union.__origin__.__args__}
    sent = chain.from_iterable(operation["messages"] for operation in operations(channel, "send"))
    replied = chain.from_iterable(
        operation["reply"]["messages"] for operation in operations(channel, "receive") if "reply" in operation
    )
    assert names([*sent, *replied], channel) == members


@pytest.mark.parametrize("channel", CHANNELS)
def test_the_server_takes_from_a_channel_what_its_session_takes(channel: str) -> None:
    assert set(EXAMPLES) == set(OF_CLIENTS)

    def taken(message: dict[str, Any]) -> bool:
        session = Session(DeviceKind(channel))
        if message["type"] != "authenticate":
            session.authenticated()
        try:
            session.receive(json.dumps(message))
        except MessageError:
            return False
        return True

    received = chain.from_iterable(operation["messages"] for operation in operations(channel, "receive"))
    assert names(list(received), channel) == {name for name, message in EXAMPLES.items() if taken(message)}


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_channel_lists_what_its_operations_use(channel: str) -> None:
    used: set[str] = set()
    for operation in (*operations(channel, "send"), *operations(channel, "receive")):
        used |= names(operation["messages"], channel)
        if "reply" in operation:
            assert operation["reply"]["channel"] == operation["channel"]
            used |= names(operation["reply"]["messages"], channel)
    assert used == set(DOCUMENT["channels"][channel]["messages"])


# What the server sends


class Wire:
    """A device's WebSocket to the address that the document gives. Checks and keeps every frame of the server's."""

    def __init__(self, socket: ClientConnection, channel: str, frames: list[tuple[str, dict[str, Any]]]) -> None:
        self._socket = socket
        self._channel = channel
        self._frames = frames

    async def receive(self) -> dict[str, Any]:
        frame = await receive(self._socket)
        self._frames.append((schema_of(self._channel, frame), frame))
        return frame

    async def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        await self._socket.send(json.dumps(message))
        return await self.receive()

    async def receive_all(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                await self.receive()

    async def log_in(self, device: TestDevice, **fields: Any) -> dict[str, Any]:
        hello = await self.receive()
        limits = DOCUMENT["x-limits"]
        for limit in ("frame_bytes_max", "heartbeat_s", "authenticate_within_s"):
            assert hello[limit] == limits[limit]
        return await self.ask(authenticate(device, hello["nonce"], **fields))


def schema_of(channel: str, frame: dict[str, Any]) -> str:
    """The one message of the server's on this channel that has the frame's type."""
    sent = DOCUMENT["channels"][channel]["messages"]
    of_server = [name for name in sent if name in OF_SERVER]
    [name] = [name for name in of_server if resolve(sent[name])["name"] == frame["type"]]
    validator(name).validate(frame)
    assert frame.keys() == SCHEMAS[name]["properties"].keys(), "the server sends a field that the document lacks"
    return name


PIN = "407186"


async def play(dsn: str, shop: Shop, second_phone: TestDevice, issuer_key: str) -> list[tuple[str, dict[str, Any]]]:
    """A short day: every message that the server has, and most reasons for it."""
    frames: list[tuple[str, dict[str, Any]]] = []
    till_device, wallet_device = shop.terminals[0], shop.wallets[0]
    async with AsyncExitStack() as sockets:

        async def dial(server: RunningServer, channel: str) -> Wire:
            address = server.url.replace("http", "ws", 1) + DOCUMENT["channels"][channel]["address"]
            dialed = connect(address, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None)
            return Wire(await sockets.enter_async_context(dialed), channel, frames)

        async with serving(settings(pin_free_minor_max=5_000), KEYRING, dsn) as server:
            till, wallet = await dial(server, "terminal"), await dial(server, "wallet")
            other = await dial(server, "wallet")
            await till.log_in(till_device)
            await wallet.log_in(wallet_device)
            await other.log_in(second_phone, language="zh-CN")
            order = scan_message(wallet_device.code())
            for scan in (
                order,
                scan_message(wallet_device.code(), reference=order["reference"]),
                scan_message(wallet_device.code(), amount_minor=1_000_000),
            ):
                await till.ask(scan)
                await wallet.receive()
                await other.receive()
            await till.ask(scan_message("not a code"))
            await misuse(till, wallet, order)
            await confirm(till, wallet, other, wallet_device)
            await take_back(till, wallet, other, wallet_device, order)
            await freeze(server, issuer_key, wallet, other, wallet_device)
            # They come back and hear what they missed, and what still waits.
            till, wallet = await dial(server, "terminal"), await dial(server, "wallet")
            assert (await till.log_in(till_device, since_ms=1))["resumed"]
            await wallet.log_in(wallet_device, since_ms=1)
        for wire in (till, wallet, other):
            await wire.receive_all()
    assert [frame["reply_to"] for _, frame in frames if frame["type"] == "payment.pending"][-1] is None
    return frames


async def misuse(till: Wire, wallet: Wire, order: dict[str, Any]) -> None:
    for bad in (
        order | {"amount_minor": 2000},
        scan_message("", currency="USD"),
        scan_message("", amount_minor=0),
        {"type": "no.such.type", "message_id": "7"},
        {"type": "payment.scan"},
        {"type": "payment.query", "message_id": "7", "payment_id": str(new_id())},
        {"type": "payment.query", "message_id": "7"},
        EXAMPLES["RefundCreate"],
    ):
        assert (await till.ask(bad))["type"] == "error"
    for bad in (scan_message(""), EXAMPLES["PaymentReject"], EXAMPLES["PinSet"] | {"new_pin": "1111"}):
        assert (await wallet.ask(bad))["type"] == "error"


async def confirm(till: Wire, wallet: Wire, other: Wire, wallet_device: TestDevice) -> None:
    """The PIN is set. A payment needs it, and gets a wrong one first; another is rejected."""
    assert (await wallet.ask(EXAMPLES["PinSet"] | {"new_pin": PIN}))["type"] == "pin.changed"
    assert (await other.receive())["reply_to"] is None
    large = scan_message(wallet_device.code(), amount_minor=6_000)
    assert (await till.ask(large))["type"] == "payment.pending"
    asked = await wallet.receive()
    assert asked == await other.receive() | {"text": asked["text"]}
    query = {"type": "payment.query", "message_id": "q", "reference": large["reference"]}
    assert (await till.ask(query))["type"] == "payment.pending"
    confirmation = EXAMPLES["PaymentConfirm"] | {"payment_id": large["payment_id"], "version": asked["version"]}
    again = await wallet.ask(confirmation | {"pin": "902531"})
    assert (again["type"], again["pin_tries_left"]) == ("payment.confirmation_required", asked["pin_tries_left"] - 1)
    await other.receive()
    paid = await wallet.ask(confirmation | {"version": again["version"], "pin": PIN})
    assert (paid["status"], paid["reply_to"]) == ("approved", confirmation["message_id"])
    for wire in (till, other):
        assert (await wire.receive())["reply_to"] is None
    typed = scan_message(wallet_device.code(), amount_minor=500, entry="typed")
    assert (await till.ask(typed))["type"] == "payment.pending"
    await wallet.receive()
    await other.receive()
    rejection = EXAMPLES["PaymentReject"] | {"payment_id": typed["payment_id"]}
    assert (await wallet.ask(rejection))["decline_code"] == "customer_rejected"
    for wire in (till, other):
        await wire.receive()


async def take_back(till: Wire, wallet: Wire, other: Wire, wallet_device: TestDevice, order: dict[str, Any]) -> None:
    """Some of an order is refunded; others are canceled: one that is paid, one that never came. One is left pending."""
    refund = EXAMPLES["RefundCreate"] | {"payment_id": order["payment_id"], "amount_minor": 250}
    assert (await till.ask(refund))["refundable_minor"] == 750
    cancel = EXAMPLES["PaymentCancel"]
    assert (await till.ask(cancel | {"payment_id": order["payment_id"]}))["code"] == "already_refunded"
    unseen = await till.ask(cancel | {"payment_id": str(new_id())})
    assert (unseen["status"], unseen["amount_minor"], unseen["reference"]) == ("canceled", None, None)
    small = scan_message(wallet_device.code())
    await till.ask(small)
    assert (await till.ask(cancel | {"payment_id": small["payment_id"]}))["status"] == "canceled"
    assert (await till.ask(scan_message(wallet_device.code(), entry="typed")))["type"] == "payment.pending"
    for wire in (wallet, other):
        assert [(await wire.receive())["type"] for _ in range(4)] == [
            "refund.result",
            "payment.result",
            "payment.result",
            "payment.confirmation_required",
        ]
    shift = {"shift_id": str(new_id())}
    assert (await till.ask(EXAMPLES["ShiftOpen"] | shift))["report"] == "X"
    assert (await till.ask(EXAMPLES["ShiftQuery"] | shift))["report"] == "X"
    assert (await till.ask(EXAMPLES["ShiftClose"] | shift))["report"] == "Z"
    assert len((await till.ask(EXAMPLES["PaymentsRecent"]))["payments"]) == EXAMPLES["PaymentsRecent"]["limit"]
    page = await wallet.ask(EXAMPLES["History"] | {"limit": 2})
    assert len(page["payments"]) == 2
    assert (await wallet.ask(EXAMPLES["History"] | {"cursor": page["next_cursor"]}))["next_cursor"] is None


async def freeze(server: RunningServer, issuer_key: str, wallet: Wire, other: Wire, wallet_device: TestDevice) -> None:
    """The wallet is frozen and thawed through the API."""
    async with httpx.AsyncClient(base_url=server.url, headers={"Authorization": f"Bearer {issuer_key}"}) as issuer:
        for status in ("frozen", "active"):
            await issuer.patch(f"/v1/wallets/{wallet_device.device.number}", json={"status": status})
            for wire in (wallet, other):
                told = await wire.receive()
                assert (told["type"], told["status"]) == ("status.changed", status)


# Integers that may be null: of what was canceled before it was scanned, of a shift that is open or uncounted.
NULLABLE = {
    ("TerminalPaymentResult", "amount_minor"),
    ("ShiftReport", "closed_at_ms"),
    ("ShiftReport", "counted_cash_minor"),
    ("ShiftReport", "cash_difference_minor"),
}


def broken(name: str, frame: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The frame with one fault: a field less, a value of another type, a value out of bounds."""
    faults = {
        "amount_minor": [0, -1, 2**53, 12.5],
        "balance_minor": [-1, 2**53],
        "expires_at_ms": [-1],
        "next_cursor": ["x" * 65],
        "next_step": ["no_such_step", ""],
        "payments": [[{}], [7], [frame], [*frame.get("payments", []), {"type": "payment.result"}]],
        "pin_tries_left": [-1],
        "refund_id": ["7", ""],
        "refundable_minor": [-1, 2**53],
        "refunded_minor": [-1, 2**53],
        "code": ["no_such_code", ""],
        "currency": ["eur", "EURO", "EUR\n"],
        "decline_code": ["no_such_code", ""],
        "nonce": [str(frame.get("nonce"))[:-1], "Z" * 64],
        "paid_by": ["7", ""],
        "payment_id": [str(frame.get("payment_id"))[:-1], str(frame.get("payment_id")).upper()],
        "protocol": ["pos.v2"],
        "reply_to": [" ", "é", "x" * 65],
        "slot": [-1, 10],
        "report": ["Y", ""],
        "shift_id": ["7", ""],
        "shift_number": [0],
        "totals": [[{}], [7], [{"kind": "gift", "count": 1, "amount_minor": 1}]],
        "status": ["paid", "APPROVED"],
        "type": ["no.such.type"],
        "version": [0],
    }
    for field in frame:
        yield {name: value for name, value in frame.items() if name != field}
        for value in ({}, *([] if field in ("payments", "totals") else [[]]), *faults.get(field, ())):
            yield frame | {field: value}
        if isinstance(frame[field], bool | int):
            yield frame | {field: str(frame[field])}
            if (name, field) not in NULLABLE:
                yield frame | {field: None}
        if isinstance(frame[field], str):
            yield frame | {field: 7}
            yield frame | {field: True}


@pytest.mark.asyncio
async def test_the_server_sends_what_it_says(dsn: str, shop: Shop, connection: asyncpg.Connection) -> None:
    second_phone = await activated(connection, DeviceId(DeviceKind.WALLET, shop.wallets[0].device.number, 1))
    issuer_key = await operator_acts.new_key(connection, Role.ISSUER, None, "the issuer's")
    frames = await play(dsn, shop, second_phone, issuer_key)
    assert {name for name, _ in frames} == set(OF_SERVER)
    for name, frame in frames:
        assert [fault for fault in broken(name, frame) if accepts(name, fault)] == []
        assert [other for other in set(SCHEMAS) - {name} if accepts(other, frame)] == []


# What the server takes


def authenticate_message(**fields: Any) -> dict[str, Any]:
    return {"type": "authenticate", "message_id": "1", "id": 1, "kid": "k1", "mac": "0" * 64} | fields


A_UUID = "019cae79-5378-7645-91fc-d6f07823cb87"
EXAMPLES: dict[str, dict[str, Any]] = {
    "Authenticate": authenticate_message(),
    "PaymentScan": scan_message("1"),
    "PaymentQuery": {"type": "payment.query", "message_id": "1", "reference": "order-1"},
    "PaymentCancel": {"type": "payment.cancel", "message_id": "1", "payment_id": A_UUID},
    "PaymentsRecent": {"type": "payments.recent", "message_id": "1", "limit": 5},
    "ShiftOpen": {"type": "shift.open", "message_id": "1", "shift_id": A_UUID, "operator": "Alice"},
    "ShiftClose": {"type": "shift.close", "message_id": "1", "shift_id": A_UUID, "counted_cash_minor": 0},
    "ShiftQuery": {"type": "shift.query", "message_id": "1", "shift_id": None},
    "RefundCreate": {
        "type": "refund.create",
        "message_id": "1",
        "refund_id": A_UUID,
        "payment_id": A_UUID,
        "amount_minor": 1,
    },
    "PaymentConfirm": {"type": "payment.confirm", "message_id": "1", "payment_id": A_UUID, "version": 1, "pin": PIN},
    "PaymentReject": {"type": "payment.reject", "message_id": "1", "payment_id": A_UUID},
    "PinSet": {"type": "pin.set", "message_id": "1", "request_id": A_UUID, "new_pin": PIN},
    "History": {"type": "history", "message_id": "1"},
}


def values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of the simple schemas that fields have here. KeyError: it has grown, teach this function."""
    if "anyOf" in schema:
        return st.one_of([values(option) for option in schema["anyOf"]])
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("format") == "uuid":
        return st.uuids().map(str)
    makers: dict[str, Callable[[], st.SearchStrategy[Any]]] = {
        "null": st.none,
        "integer": lambda: st.integers(schema.get("minimum"), schema.get("maximum")),
        "string": lambda: (
            st.from_regex(python_pattern(schema["pattern"])).filter(
                lambda value: len(value) <= schema.get("maxLength", len(value))
            )
            if "pattern" in schema
            else st.text(max_size=schema.get("maxLength"))
        ),
    }
    return makers[schema["type"]]()


# Exactly one of the two is to be given. Their schemas leave that to the descriptions.
BY_ID_OR_REFERENCE = {"PaymentQuery", "PaymentCancel"}


@st.composite
def messages_of(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """Messages that the document's schema describes, with fields of its own and of nobody's."""
    schema = SCHEMAS[name]
    message = draw(st.dictionaries(st.text().filter(lambda key: key not in schema["properties"]), JSON, max_size=2))
    for field, value in schema["properties"].items():
        if field in schema["required"] or draw(st.booleans()):
            message[field] = draw(values(value))
    if name in BY_ID_OR_REFERENCE:
        given, left_out = draw(st.permutations(["payment_id", "reference"]))
        message[given] = draw(values(schema["properties"][given]["anyOf"][0]))
        message[left_out] = None
    return message


# A float without a fraction is left out: an integer to JSON Schema, none to the server. See below.
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda value: not value.is_integer())
)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2))


def near(value: Any) -> st.SearchStrategy[Any]:
    """What is almost the value."""
    if isinstance(value, str):
        ends = st.sampled_from(["\n", " ", "é", "0", "\0"])
        return st.one_of(
            ends.map(lambda end: value + end),
            ends.map(lambda end: end + value),
            st.just(value[:-1]),
            st.just(value * 70),
        )
    if isinstance(value, int):
        return st.sampled_from([-value, value + 2**53, value * 10**20, str(value), value + 0.5, -1, 0])
    return SCALARS


def taken(message: dict[str, Any]) -> bool:
    """Whether the server's decoder takes it. Any other object must be answered, not end the connection."""
    try:
        decode_client_message(json.dumps(message))
    except MessageError:
        return False
    except ConnectionClosing as closing:
        raise AssertionError(f"{closing} for a JSON object") from closing
    return True


# Of each type of message.
FEWER = hypothesis.settings(max_examples=40)


@pytest.mark.parametrize("name", OF_CLIENTS)
@FEWER
@given(st.data())
def test_the_decoder_takes_what_the_document_describes(name: str, data: st.DataObject) -> None:
    message = data.draw(messages_of(name))
    assert accepts(name, message)
    assert type(decode_client_message(json.dumps(message))).__name__ == name


@pytest.mark.parametrize("name", OF_CLIENTS)
@FEWER
@given(st.data())
def test_the_decoder_refuses_what_the_document_does_not_describe(name: str, data: st.DataObject) -> None:
    message = data.draw(messages_of(name))
    field = data.draw(st.sampled_from(sorted(SCHEMAS[name]["properties"])))
    if data.draw(st.booleans()):
        message.pop(field, None)
    else:
        message[field] = data.draw(near(message.get(field)) | JSON)
    assume(not any(is_a_uuid_in_other_words(message.get(field)) for field in UUIDS))
    if name in BY_ID_OR_REFERENCE:
        assume((message.get("payment_id") is None) != (message.get("reference") is None))
    assert taken(message) == accepts(name, message), field


UUIDS = ("payment_id", "refund_id", "request_id", "shift_id")


def is_a_uuid_in_other_words(value: object) -> bool:
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) != value
    except ValueError:
        return False


def test_where_the_document_and_the_decoder_differ() -> None:
    """All of it: the server reads other spellings of a UUID, JSON Schema cannot tell 1250.0 from 1250, and it does not
    say that a payment is named in one way only."""
    known = scan_message("1")
    assert taken(known)
    assert accepts("PaymentScan", known)
    for spelling in (str.upper, lambda text: text.replace("-", ""), "urn:uuid:{}".format, "{{{}}}".format):
        message = known | {"payment_id": spelling(known["payment_id"])}
        assert taken(message)
        assert not accepts("PaymentScan", message)
    for message in (known | {"amount_minor": 1250.0}, authenticate_message(id=1.0), authenticate_message(since_ms=1.0)):
        assert not taken(message)
        assert accepts(type_name(message), message)
    for name in BY_ID_OR_REFERENCE:
        neither = {"type": EXAMPLES[name]["type"], "message_id": "1"}
        for message in (neither, neither | {"payment_id": A_UUID, "reference": "order-1"}):
            assert not taken(message)
            assert accepts(name, message)


def type_name(message: dict[str, Any]) -> str:
    [name] = [name for name, schema in SCHEMAS.items() if schema["properties"]["type"]["const"] == message["type"]]
    return name


# Where to get it


@pytest.mark.asyncio
async def test_what_is_served_is_what_is_printed(server: RunningServer, tmp_path: Path) -> None:
    async with httpx.AsyncClient() as client:
        served = await client.get(f"{server.url}/asyncapi.json")
    assert (served.status_code, served.headers["content-type"]) == (200, MEDIA_TYPE)
    # Another process, with other hashes, and a database that nobody could reach.
    printed = await pos_server(
        "asyncapi",
        "--data-dir",
        tmp_path / "none",
        PYTHONHASHSEED="7",
        POS_DATABASE_URL="postgresql://127.0.0.1:1/none",
    )
    assert (printed.status, printed.err) == (0, "")
    assert printed.out.encode() == served.content
    assert not (tmp_path / "none").exists()


def test_the_settings_are_in_it() -> None:
    other = json.loads(asyncapi_json(settings(frame_bytes_max=9000, heartbeat_s=7, device_operations_max=3)))
    assert other["x-limits"] == DOCUMENT["x-limits"] | {
        "frame_bytes_max": 9000,
        "heartbeat_s": 7,
        "device_operations_max": 3,
    }
    assert other | {"x-limits": {}} == DOCUMENT | {"x-limits": {}}
