"""The AsyncAPI document is well formed, and the decoder accepts exactly the messages that it describes.

No Python package contains the official JSON Schema of AsyncAPI 3. `asyncapi3`, pydantic models of the same objects,
stands in for it. tests/api/test_asyncapi.py compares the document with a real server.
"""

import json
import uuid
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from pos_server.core.errors import ConnectionClosing, MessageError
from pos_server.core.protocol.codec import decode_client_message
from pos_server.core.protocol.server_messages import SUBPROTOCOL
from tests.core.protocol.asyncapi_schemas import (
    A_UUID,
    DOCUMENT,
    EXAMPLES,
    SCHEMAS,
    accepts,
    names,
    python_pattern,
    resolve,
)

with warnings.catch_warnings():
    # Two of its models have a field called `schema`.
    warnings.simplefilter("ignore", UserWarning)
    from asyncapi3 import AsyncAPI3


def walk(node: object) -> Iterator[dict[str, Any]]:
    """Every object in it."""
    if isinstance(node, dict):
        yield node
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(value)


def schemas_in(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schema and those in it."""
    yield schema
    for inner in (*schema.get("properties", {}).values(), *schema.get("anyOf", ()), schema.get("items")):
        if inner is not None:
            yield from schemas_in(inner)


def test_it_is_valid_asyncapi() -> None:
    parsed = AsyncAPI3.model_validate(DOCUMENT)
    assert parsed.model_dump(mode="json", by_alias=True) == DOCUMENT, "a part of it is not AsyncAPI"


def test_its_schemas_are_valid_draft_07() -> None:
    headers = [channel["bindings"]["ws"]["headers"] for channel in DOCUMENT["channels"].values()]
    for schema in [*SCHEMAS.values(), *headers]:
        Draft7Validator.check_schema(schema)
        known = {*Draft7Validator.META_SCHEMA["properties"]}
        assert all(part.keys() <= known for part in schemas_in(schema)), schema


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


def test_a_request_names_its_replies() -> None:
    operations = DOCUMENT["operations"]
    for name, replies in (
        ("authenticateTerminal", ["TerminalReady"]),
        ("authenticateWallet", ["WalletReady"]),
        ("scanPayment", ["TerminalPaymentResult", "PaymentPending", "Error"]),
        ("history", ["HistoryPage", "Error"]),
    ):
        assert (operations[name]["action"], names(operations[name]["reply"]["messages"])) == ("receive", replies)
        assert operations[name]["reply"]["channel"] == operations[name]["channel"]


def test_messages_that_only_answer_are_no_notifications() -> None:
    operations = DOCUMENT["operations"]
    assert names(operations["greetWallet"]["messages"]) == ["Hello"]
    assert names(operations["notifyWallet"]["messages"]) == [
        "WalletPaymentResult",
        "ConfirmationRequired",
        "WalletRefundResult",
        "PinChanged",
        "StatusChanged",
        "Draining",
        "Error",
    ]
    assert "reply" not in operations["notifyWallet"]


def values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of the simple schemas that fields have. KeyError: extend this function."""
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


# Exactly one of the two must be given. Their schemas leave that to the descriptions.
BY_ID_OR_REFERENCE = {"PaymentQuery", "PaymentCancel"}


@st.composite
def messages_of(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """Messages that the document's schema describes, with its own fields and unknown ones."""
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


# Floats without a fraction are left out: integers to JSON Schema, not to the server. See the last test.
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda value: not value.is_integer())
)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2))


def near(value: Any) -> st.SearchStrategy[Any]:
    """Values that differ a little."""
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


def decodes(message: dict[str, Any]) -> bool:
    """Return True if the server's decoder accepts it. Any other object must be answered, not end the connection."""
    try:
        decode_client_message(json.dumps(message))
    except MessageError:
        return False
    except ConnectionClosing as closing:
        raise AssertionError(f"{closing} for a JSON object") from closing
    return True


# For each type of message.
FEWER = hypothesis.settings(max_examples=25)


@pytest.mark.parametrize("name", EXAMPLES)
@FEWER
@given(st.data())
def test_the_decoder_accepts_described_messages(name: str, data: st.DataObject) -> None:
    message = data.draw(messages_of(name))
    assert accepts(name, message)
    assert type(decode_client_message(json.dumps(message))).__name__ == name


@pytest.mark.parametrize("name", EXAMPLES)
@FEWER
@given(st.data())
def test_the_decoder_rejects_other_messages(name: str, data: st.DataObject) -> None:
    message = data.draw(messages_of(name))
    field = data.draw(st.sampled_from(sorted(SCHEMAS[name]["properties"])))
    if data.draw(st.booleans()):
        message.pop(field, None)
    else:
        message[field] = data.draw(near(message.get(field)) | JSON)
    assume(not any(is_unusual_uuid(message.get(field)) for field in UUIDS))
    # For JSON Schema 1.0 is an integer, for the decoder it is not.
    assume(not any(isinstance(value, float) and value.is_integer() for value in message.values()))
    if name in BY_ID_OR_REFERENCE:
        assume((message.get("payment_id") is None) != (message.get("reference") is None))
    assert decodes(message) == accepts(name, message), field


UUIDS = ("payment_id", "refund_id", "request_id", "shift_id")


def is_unusual_uuid(value: object) -> bool:
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) != value
    except ValueError:
        return False


def test_where_the_document_and_the_decoder_differ() -> None:
    """All differences: the server accepts other spellings of a UUID, JSON Schema cannot tell 1250.0 from 1250, and the
    schema does not require exactly one name of a payment."""
    scan = EXAMPLES["PaymentScan"]
    assert decodes(scan)
    assert accepts("PaymentScan", scan)
    for spelling in (str.upper, lambda text: text.replace("-", ""), "urn:uuid:{}".format, "{{{}}}".format):
        message = scan | {"payment_id": spelling(scan["payment_id"])}
        assert decodes(message)
        assert not accepts("PaymentScan", message)
    for name, change in (
        ("PaymentScan", {"amount_minor": 1250.0}),
        ("Authenticate", {"id": 1.0}),
        ("Authenticate", {"since_ms": 1.0}),
    ):
        assert not decodes(EXAMPLES[name] | change)
        assert accepts(name, EXAMPLES[name] | change)
    for name in BY_ID_OR_REFERENCE:
        neither = {"type": EXAMPLES[name]["type"], "message_id": "1"}
        for message in (neither, neither | {"payment_id": A_UUID, "reference": "order-1"}):
            assert not decodes(message)
            assert accepts(name, message)


def test_every_type_of_request_has_an_example() -> None:
    received = [operation for operation in DOCUMENT["operations"].values() if operation["action"] == "receive"]
    assert {name for operation in received for name in names(operation["messages"])} == set(EXAMPLES)
