"""Encoding and decoding of messages: accepted and rejected input, and rejections that repeat none of it.

Long, because it holds one table of literal messages per type.
"""

import json
from typing import Any, get_args
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from pos_server.core import texts
from pos_server.core.credentials import payment_code
from pos_server.core.errors import CloseCode, ConnectionClosing, ErrorCode, MessageError
from pos_server.core.payments.operations import Entry, Scan
from pos_server.core.protocol.client_messages import (
    OPERATOR_CHARS_MAX,
    PAGE_MAX,
    REPLAY_PAGE_MAX,
    Authenticate,
    ClientMessage,
    History,
    PaymentCancel,
    PaymentConfirm,
    PaymentQuery,
    PaymentReject,
    PaymentScan,
    PaymentsRecent,
    PinSet,
    RefundCreate,
    Resume,
    ShiftClose,
    ShiftOpen,
    ShiftQuery,
)
from pos_server.core.protocol.codec import decode_client_message, encode, message_id_of_scan
from pos_server.core.protocol.server_messages import (
    HistoryPage,
    PaymentList,
    ServerMessage,
    StatusChanged,
    TerminalMessage,
    TerminalPaymentResult,
    TerminalReady,
    WalletMessage,
    WalletPaymentResult,
)
from tests.copies import replace

QUICK = settings(max_examples=60)
PAYMENT_ID = "018f0000-0000-7000-8000-000000000001"
SCAN: dict[str, Any] = {
    "type": "payment.scan",
    "message_id": "m1",
    "payment_id": PAYMENT_ID,
    "reference": "order-1",
    "amount_minor": 1000,
    "currency": "EUR",
    "code": "771000000001006438058199",
}
AUTHENTICATE: dict[str, Any] = {
    "type": "authenticate",
    "message_id": "m1",
    "id": 7,
    "slot": 0,
    "kid": "k1",
    "mac": "0123456789abcdef" * 4,
}
REFUND_ID = "018f0000-0000-7000-8000-000000000002"
REQUEST_ID = "018f0000-0000-7000-8000-000000000003"
SHIFT_ID = "018f0000-0000-7000-8000-000000000004"
GOOD: dict[str, dict[str, Any]] = {
    "payment.scan": SCAN,
    "authenticate": AUTHENTICATE,
    "payment.query": {"type": "payment.query", "message_id": "m1", "payment_id": PAYMENT_ID},
    "payment.cancel": {"type": "payment.cancel", "message_id": "m1", "reference": "order-1"},
    "payments.recent": {"type": "payments.recent", "message_id": "m1", "limit": 5},
    "resume": {"type": "resume", "message_id": "m1", "since_ms": 5, "cursor": f"6.{PAYMENT_ID}.7", "limit": 8},
    "shift.open": {
        "type": "shift.open",
        "message_id": "m1",
        "shift_id": SHIFT_ID,
        "operator": "Alice",
        "opening_cash_minor": 10_000,
    },
    "shift.close": {"type": "shift.close", "message_id": "m1", "shift_id": SHIFT_ID, "counted_cash_minor": 9_950},
    "shift.query": {"type": "shift.query", "message_id": "m1", "shift_id": SHIFT_ID},
    "refund.create": {
        "type": "refund.create",
        "message_id": "m1",
        "refund_id": REFUND_ID,
        "payment_id": PAYMENT_ID,
        "amount_minor": 250,
    },
    "payment.confirm": {
        "type": "payment.confirm",
        "message_id": "m1",
        "payment_id": PAYMENT_ID,
        "version": 1,
        "pin": "407186",
    },
    "payment.reject": {"type": "payment.reject", "message_id": "m1", "payment_id": PAYMENT_ID},
    "pin.set": {
        "type": "pin.set",
        "message_id": "m1",
        "request_id": REQUEST_ID,
        "new_pin": "407186",
        "old_pin": "902531",
    },
    "history": {"type": "history", "message_id": "m1", "limit": 5, "cursor": f"1800000000000.{PAYMENT_ID}"},
}
TYPES = list(GOOD)


def frame(kind: str, **raw_fields: str | None) -> str:
    """The good message of a type with some fields replaced by raw JSON; None leaves a field out."""
    fields = {name: json.dumps(value) for name, value in GOOD[kind].items()} | raw_fields
    return "{" + ", ".join(f'"{name}": {raw}' for name, raw in fields.items() if raw is not None) + "}"


def rejection(text: str) -> MessageError:
    with pytest.raises(MessageError) as caught:
        decode_client_message(text)
    return caught.value


def closing(text: str) -> ConnectionClosing:
    with pytest.raises(ConnectionClosing) as caught:
        decode_client_message(text)
    return caught.value


def decoded(text: str) -> ClientMessage | MessageError | ConnectionClosing:
    """The message, or what was raised instead."""
    try:
        return decode_client_message(text)
    except (MessageError, ConnectionClosing) as error:
        return error


# --- accepted input


def test_a_scan() -> None:
    assert decode_client_message(json.dumps(SCAN)) == PaymentScan(
        message_id="m1",
        payment_id=UUID(PAYMENT_ID),
        reference="order-1",
        amount_minor=1000,
        currency="EUR",
        code="771000000001006438058199",
    )


def test_an_authentication() -> None:
    assert decode_client_message(json.dumps(AUTHENTICATE)) == Authenticate(
        message_id="m1", id=7, slot=0, kid="k1", mac="0123456789abcdef" * 4
    )


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("payment.query", PaymentQuery(message_id="m1", payment_id=UUID(PAYMENT_ID))),
        ("payment.cancel", PaymentCancel(message_id="m1", reference="order-1")),
        ("payments.recent", PaymentsRecent(message_id="m1", limit=5)),
        ("resume", Resume(message_id="m1", since_ms=5, cursor=f"6.{PAYMENT_ID}.7", limit=8)),
        (
            "shift.open",
            ShiftOpen(message_id="m1", shift_id=UUID(SHIFT_ID), operator="Alice", opening_cash_minor=10_000),
        ),
        ("shift.close", ShiftClose(message_id="m1", shift_id=UUID(SHIFT_ID), counted_cash_minor=9_950)),
        ("shift.query", ShiftQuery(message_id="m1", shift_id=UUID(SHIFT_ID))),
        (
            "refund.create",
            RefundCreate(message_id="m1", refund_id=UUID(REFUND_ID), payment_id=UUID(PAYMENT_ID), amount_minor=250),
        ),
        ("payment.confirm", PaymentConfirm(message_id="m1", payment_id=UUID(PAYMENT_ID), version=1, pin="407186")),
        ("payment.reject", PaymentReject(message_id="m1", payment_id=UUID(PAYMENT_ID))),
        (
            "pin.set",
            PinSet(message_id="m1", request_id=UUID(REQUEST_ID), new_pin="407186", old_pin="902531"),
        ),
        ("history", History(message_id="m1", limit=5, cursor=f"1800000000000.{PAYMENT_ID}")),
    ],
)
def test_a_request(kind: str, message: ClientMessage) -> None:
    assert decode_client_message(json.dumps(GOOD[kind])) == message


def test_every_type_of_request_is_tried() -> None:
    assert set(GOOD) == {model.model_fields["type"].default for model in get_args(ClientMessage)}


@pytest.mark.parametrize("kind", ["payment.query", "payment.cancel"])
def test_a_payment_is_named_by_its_id_or_by_its_reference(kind: str) -> None:
    by_id = frame(kind, payment_id=f'"{PAYMENT_ID}"', reference=None)
    by_reference = frame(kind, payment_id=None, reference='"order-1"')
    nulls = frame(kind, payment_id="null", reference='"order-1"')
    for text, found in (
        (by_id, (UUID(PAYMENT_ID), None)),
        (by_reference, (None, "order-1")),
        (nulls, (None, "order-1")),
    ):
        message = decode_client_message(text)
        assert isinstance(message, PaymentQuery | PaymentCancel)
        assert (message.payment_id, message.reference) == found


@pytest.mark.parametrize("kind", ["payment.query", "payment.cancel"])
@pytest.mark.parametrize(
    ("payment_id", "reference"),
    [(None, None), ("null", "null"), ("null", None), (f'"{PAYMENT_ID}"', '"order-1"')],
    ids=["neither", "both null", "null", "both"],
)
def test_a_payment_is_named_in_one_way_only(kind: str, payment_id: str | None, reference: str | None) -> None:
    error = rejection(frame(kind, payment_id=payment_id, reference=reference))
    assert (error.code, error.field, error.reply_to) == (ErrorCode.BAD_FIELD, "payment_id", "m1")
    assert error.detail == "give either payment_id or reference"


@pytest.mark.parametrize(
    ("kind", "field", "raw", "value"),
    [
        ("payment.scan", "amount_minor", "1", 1),
        ("payment.scan", "amount_minor", "9007199254740991", 2**53 - 1),
        ("payment.scan", "reference", '"!"', "!"),
        ("payment.scan", "reference", '"A 1/2 ~"', "A 1/2 ~"),
        ("payment.scan", "reference", json.dumps("r" * 64), "r" * 64),
        ("payment.scan", "message_id", json.dumps("m" * 64), "m" * 64),
        ("payment.scan", "payment_id", f'"{PAYMENT_ID.upper()}"', UUID(PAYMENT_ID)),
        # Any scanned text is accepted as a code: a wrong one is declined, not rejected.
        ("payment.scan", "code", '""', ""),
        ("payment.scan", "code", '"\\u0000"', "\0"),
        ("payment.scan", "code", '"https://example.com/\\u00e9"', "https://example.com/é"),
        ("payment.scan", "code", '"\\ud83d\\ude00"', "\U0001f600"),
        ("authenticate", "id", "1", 1),
        ("authenticate", "id", "9007199254740991", 2**53 - 1),
        ("authenticate", "slot", "9", 9),
        ("authenticate", "slot", None, 0),
        ("authenticate", "kid", json.dumps("k" * 32), "k" * 32),
        ("authenticate", "kid", '"2026-07_A"', "2026-07_A"),
        ("authenticate", "language", None, "en"),
        ("authenticate", "language", '"zh-Hans-CN"', "zh-Hans-CN"),
        ("authenticate", "language", json.dumps("x" * 35), "x" * 35),
        ("authenticate", "since_ms", "null", None),
        ("payment.scan", "entry", None, "scanned"),
        ("payment.scan", "entry", '"scanned"', "scanned"),
        ("payment.scan", "entry", '"typed"', "typed"),
        ("payments.recent", "limit", None, 10),
        ("resume", "cursor", None, None),
        ("resume", "cursor", "null", None),
        ("resume", "limit", None, REPLAY_PAGE_MAX),
        ("resume", "since_ms", str(2**53 - 1), 2**53 - 1),
        ("shift.open", "operator", '"\u674e\u96f7 B."', "\u674e\u96f7 B."),
        ("shift.open", "operator", json.dumps("x" * OPERATOR_CHARS_MAX), "x" * OPERATOR_CHARS_MAX),
        ("shift.open", "opening_cash_minor", None, 0),
        ("shift.open", "opening_cash_minor", "0", 0),
        ("shift.open", "opening_cash_minor", str(2**53 - 1), 2**53 - 1),
        ("shift.close", "counted_cash_minor", None, None),
        ("shift.close", "counted_cash_minor", "null", None),
        ("shift.close", "counted_cash_minor", "0", 0),
        ("shift.query", "shift_id", None, None),
        ("shift.query", "shift_id", "null", None),
        ("payments.recent", "limit", "1", 1),
        ("payments.recent", "limit", str(PAGE_MAX), PAGE_MAX),
        ("history", "limit", None, 20),
        ("history", "limit", str(PAGE_MAX), PAGE_MAX),
        ("history", "cursor", None, None),
        ("history", "cursor", "null", None),
        ("payment.confirm", "pin", '"0000"', "0000"),
        ("payment.confirm", "pin", '"123456789012"', "123456789012"),
        ("payment.confirm", "version", "2147483647", 2**31 - 1),
        ("pin.set", "old_pin", None, None),
        ("pin.set", "old_pin", "null", None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_field_is_accepted(kind: str, field: str, raw: str | None, value: object) -> None:
    assert getattr(decode_client_message(frame(kind, **{field: raw})), field) == value


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    "raw",
    ["1", "null", '"x"', "[]", '{"a": [{}]}', "1e3", "-0.5", pytest.param("[" * 150 + "]" * 150, id="150 arrays deep")],
)
def test_unknown_fields_are_ignored(kind: str, raw: str) -> None:
    assert decode_client_message(frame(kind, newer=raw)) == decode_client_message(frame(kind))


@pytest.mark.parametrize("kind", TYPES)
def test_white_space_around_is_ignored(kind: str) -> None:
    assert decode_client_message(f"\r\n\t {frame(kind)} \n") == decode_client_message(frame(kind))


# --- rejected input

INTEGERS_REJECTED: dict[str, str | None] = {
    "zero": "0",
    "minus zero": "-0",
    "negative": "-1",
    "fraction": "1.5",
    "whole float": "1.0",
    "exponent": "1e2",
    "string": '"1"',
    "true": "true",
    "2**53": "9007199254740992",
    "2**63": "9223372036854775808",
    "2**64": "18446744073709551616",
    "null": "null",
    "missing": None,
    "array": "[1]",
    "object": "{}",
}
CASH_REJECTED = {
    name: raw for name, raw in INTEGERS_REJECTED.items() if name not in ("zero", "minus zero", "missing", "null")
}
STRINGS_REJECTED: dict[str, str | None] = {
    "number": "5",
    "null": "null",
    "missing": None,
    "true": "true",
    "array": '["EUR"]',
    "object": "{}",
}
PRINTABLE_REJECTED: dict[str, str | None] = {
    "empty": '""',
    "space": '" "',
    "space before": '" a"',
    "space after": '"a "',
    "NUL": '"a\\u0000b"',
    "newline": '"a\\nb"',
    "newline at the end": '"a\\n"',
    "unit separator": '"a\\u001fb"',
    "DEL": '"a\\u007fb"',
    "non-ASCII": '"\\u00e9"',
    "non-ASCII, raw": '"é"',
    "right-to-left override": '"a\\u202eb"',
    "emoji": '"\\ud83d\\ude00"',
    "65 characters": json.dumps("a" * 65),
    "4000 characters": json.dumps("a" * 4000),
}
PINS_REJECTED: dict[str, str | None] = {
    "empty": '""',
    "3 digits": '"407"',
    "13 digits": '"4071864071864"',
    "letter": '"407a"',
    "space": '"4071 "',
    "newline": '"4071\\n"',
    "other digits": '"\\u0664\\u0660\\u0667\\u0661"',
}
LIMITS_REJECTED: dict[str, str | None] = {
    "zero": "0",
    "negative": "-1",
    "too many": str(PAGE_MAX + 1),
    "float": "1.0",
    "string": '"5"',
    "null": "null",
}
BAD_FIELDS: list[tuple[str, str, dict[str, str | None]]] = [
    ("payment.scan", "amount_minor", INTEGERS_REJECTED),
    (
        "payment.scan",
        "currency",
        STRINGS_REJECTED
        | {
            "empty": '""',
            "lower case": '"eur"',
            "mixed case": '"Eur"',
            "two letters": '"EU"',
            "four letters": '"EURO"',
            "digit": '"EU1"',
            "space": '"EUR "',
            "newline": '"EUR\\n"',
            "Cyrillic": '"\\u0415UR"',
        },
    ),
    (
        "payment.scan",
        "payment_id",
        STRINGS_REJECTED
        | {
            "empty": '""',
            "word": '"payment"',
            "too short": '"018f0000-0000-7000-8000-00000000000"',
            "too long": '"018f0000-0000-7000-8000-0000000000011"',
            "not hex": '"018f0000-0000-7000-8000-00000000000g"',
            "newline": f'"{PAYMENT_ID}\\n"',
            "spaces": f'" {PAYMENT_ID} "',
        },
    ),
    ("payment.scan", "reference", STRINGS_REJECTED | PRINTABLE_REJECTED),
    ("payment.scan", "code", STRINGS_REJECTED),
    ("authenticate", "id", INTEGERS_REJECTED),
    (
        "authenticate",
        "slot",
        {"negative": "-1", "ten": "10", "float": "1.0", "true": "true", "string": '"1"', "null": "null"},
    ),
    (
        "authenticate",
        "kid",
        STRINGS_REJECTED
        | {
            "empty": '""',
            "space": '"a b"',
            "dot": '"k.1"',
            "newline": '"k1\\n"',
            "NUL": '"k\\u0000"',
            "non-ASCII": '"\\u00e9"',
            "33 characters": json.dumps("k" * 33),
        },
    ),
    (
        "authenticate",
        "mac",
        STRINGS_REJECTED
        | {
            "empty": '""',
            "63 digits": json.dumps("a" * 63),
            "65 digits": json.dumps("a" * 65),
            "capital letters": json.dumps("A" * 64),
            "not hex": json.dumps("g" * 64),
            "newline": json.dumps("a" * 64 + "\n"),
        },
    ),
    (
        "authenticate",
        "language",
        {
            "number": "5",
            "null": "null",
            "empty": '""',
            "36 characters": json.dumps("x" * 36),
            "underscore": '"zh_CN"',
            "newline": '"en\\n"',
            "non-ASCII": '"\\u4e2d"',
        },
    ),
    ("payment.scan", "entry", {"null": "null", "number": "1", "word": '"swiped"', "capital letters": '"TYPED"'}),
    ("payment.query", "payment_id", {"number": "5", "word": '"payment"', "object": "{}"}),
    ("payment.cancel", "reference", PRINTABLE_REJECTED | {"number": "5", "object": "{}"}),
    ("payments.recent", "limit", LIMITS_REJECTED),
    ("resume", "limit", LIMITS_REJECTED | {"too many": "1001"}),
    ("resume", "since_ms", {"missing": None, "null": "null", "-1": "-1", "text": '"1"', "too large": str(2**53)}),
    (
        "resume",
        "cursor",
        {
            "number": "1",
            "a cursor of the history": f'"1.{PAYMENT_ID}"',
            "long time": f'"{"1" * 16}.{PAYMENT_ID}.1"',
            "long merchant": f'"1.{PAYMENT_ID}.{"1" * 16}"',
        },
    ),
    ("shift.open", "shift_id", STRINGS_REJECTED | {"word": '"shift"'}),
    ("shift.open", "operator", STRINGS_REJECTED | {"41 characters": json.dumps("x" * 41), "newline": '"a\\nb"'}),
    ("shift.open", "opening_cash_minor", CASH_REJECTED | {"null": "null"}),
    ("shift.close", "shift_id", STRINGS_REJECTED | {"word": '"shift"'}),
    ("shift.close", "counted_cash_minor", CASH_REJECTED),
    ("shift.query", "shift_id", {"number": "5", "word": '"shift"', "object": "{}"}),
    ("history", "limit", LIMITS_REJECTED),
    ("refund.create", "refund_id", STRINGS_REJECTED | {"word": '"refund"'}),
    ("refund.create", "payment_id", STRINGS_REJECTED | {"word": '"payment"'}),
    ("refund.create", "amount_minor", INTEGERS_REJECTED),
    ("payment.confirm", "payment_id", STRINGS_REJECTED | {"word": '"payment"'}),
    ("payment.confirm", "version", INTEGERS_REJECTED | {"2**31": "2147483648"}),
    ("payment.reject", "payment_id", STRINGS_REJECTED | {"word": '"payment"'}),
    ("pin.set", "request_id", STRINGS_REJECTED | {"word": '"request"'}),
    *(
        (kind, field, STRINGS_REJECTED | PINS_REJECTED)
        for kind, field in (("payment.confirm", "pin"), ("pin.set", "new_pin"))
    ),
    ("pin.set", "old_pin", PINS_REJECTED | {"number": "4071"}),
    (
        "history",
        "cursor",
        {"number": "5", "empty": '""', "65 characters": json.dumps("1" * 65), "word": '"next page"', "capitals": '"A"'},
    ),
]


@pytest.mark.parametrize(
    ("kind", "field", "raw"),
    [
        pytest.param(kind, field, raw, id=f"{kind}.{field} {name}")
        for kind, field, values in BAD_FIELDS
        for name, raw in values.items()
    ],
)
def test_a_bad_field_is_named(kind: str, field: str, raw: str | None) -> None:
    error = rejection(frame(kind, **{field: raw}))
    assert (error.code, error.field, error.reply_to) == (ErrorCode.BAD_FIELD, field, "m1")


@pytest.mark.parametrize(
    "raw",
    ["1e400", "-1e400", "9" * 400, "-" + "9" * 400, "0." + "9" * 400],
    ids=["1e400", "-1e400", "400 digits", "minus 400 digits", "400 decimals"],
)
@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("payment.scan", "amount_minor"),
        ("authenticate", "id"),
        ("refund.create", "amount_minor"),
        ("payment.confirm", "version"),
        ("history", "limit"),
    ],
)
def test_a_huge_number_is_a_bad_field(kind: str, field: str, raw: str) -> None:
    error = rejection(frame(kind, **{field: raw}))
    assert (error.code, error.field) == (ErrorCode.BAD_FIELD, field)


@pytest.mark.parametrize(
    ("field", "raw", "text"),
    [
        ("amount_minor", "0", "bad_field: Input should be greater than or equal to 1 (field amount_minor)"),
        ("amount_minor", "1.0", "bad_field: Input should be a valid integer (field amount_minor)"),
        ("amount_minor", None, "bad_field: Field required (field amount_minor)"),
        ("currency", '"eur"', "bad_field: String should match pattern '^[A-Z]{3}$' (field currency)"),
    ],
)
def test_the_text_of_a_bad_field(field: str, raw: str | None, text: str) -> None:
    assert str(rejection(frame("payment.scan", **{field: raw}))) == text


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    "raw",
    [None, "null", "5", "true", '""', '"\\u0000"', json.dumps("a" * 65), '["m1"]', '{"a": "m1"}'],
    ids=["missing", "null", "number", "true", "empty", "NUL", "too long", "array", "object"],
)
def test_a_bad_message_id_is_a_bad_field(kind: str, raw: str | None) -> None:
    error = rejection(frame(kind, message_id=raw))
    assert (error.code, error.field) == (ErrorCode.BAD_FIELD, "message_id")


@pytest.mark.parametrize(
    "raw",
    [None, "null", "5", '""', json.dumps("a" * 65), '["m1"]'],
    ids=["missing", "null", "number", "empty", "too long", "array"],
)
def test_an_unreadable_message_id_is_not_replied_to(raw: str | None) -> None:
    assert rejection(frame("payment.scan", message_id=raw)).reply_to is None
    assert rejection(frame("payment.scan", message_id=raw, amount_minor="0")).reply_to is None
    assert rejection(frame("payment.scan", message_id=raw, type='"newer"')).reply_to is None


@pytest.mark.parametrize(
    "raw",
    [
        None,
        "null",
        "5",
        "1.5",
        "true",
        "[]",
        "{}",
        '["payment.scan"]',
        '""',
        '"\\u0000"',
        '"payment.guess"',
        '"Payment.Scan"',
        '"payment.scan "',
        '"PaymentScan"',
        '"hello"',
        '"payment.result"',
    ],
)
def test_an_unknown_type(raw: str | None) -> None:
    error = rejection(frame("payment.scan", type=raw))
    assert (error.code, error.detail) == (ErrorCode.UNKNOWN_TYPE, "unknown message type")
    assert (error.field, error.reply_to) == ("type", "m1")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(" ", id="space"),
        pytest.param("\0", id="NUL"),
        pytest.param("hello", id="word"),
        pytest.param("nul", id="half a word"),
        pytest.param("{", id="half an object"),
        pytest.param(json.dumps(SCAN)[:-1], id="cut message"),
        pytest.param(json.dumps(SCAN) * 2, id="two messages"),
        pytest.param(json.dumps(SCAN)[:-1] + ",}", id="trailing comma"),
        pytest.param(json.dumps(SCAN).replace('"', "'"), id="single quotes"),
        pytest.param("\ufeff" + json.dumps(SCAN), id="byte order mark"),
        pytest.param(frame("payment.scan", amount_minor="01"), id="leading zero"),
        pytest.param(frame("payment.scan", amount_minor="+1"), id="plus sign"),
        pytest.param(frame("payment.scan", amount_minor="0x10"), id="hexadecimal"),
        pytest.param(frame("payment.scan", code='"\\ud800"'), id="lone leading surrogate"),
        pytest.param(frame("payment.scan", code='"\\udc00"'), id="lone trailing surrogate"),
        pytest.param(frame("payment.scan", code='"\\ude00\\ud83d"'), id="surrogates in the wrong order"),
        pytest.param(frame("payment.scan", newer='"\\ud800"'), id="lone surrogate in an unknown field"),
        pytest.param(frame("payment.scan", code='"\n"'), id="raw newline in a string"),
        pytest.param("[" * 5000, id="open brackets"),
        pytest.param("[" * 2000 + "]" * 2000, id="nested arrays"),
        pytest.param('{"type":' * 500 + "1" + "}" * 500, id="nested objects"),
        pytest.param(frame("payment.scan", newer="[" * 1900 + "]" * 1900), id="nested in an unknown field"),
        pytest.param(frame("payment.scan", amount_minor="[" * 1900 + "]" * 1900), id="nested in a field"),
    ],
)
def test_not_json_ends_the_connection(text: str) -> None:
    error = closing(text)
    assert (error.code, error.reason) == (CloseCode.NOT_JSON, "the frame is not JSON")


@pytest.mark.parametrize("text", ["null", "true", "5", "-1.5", '"x"', "[]", "[{}]", json.dumps([SCAN])])
def test_not_an_object_ends_the_connection(text: str) -> None:
    error = closing(text)
    assert (error.code, error.reason) == (CloseCode.NOT_JSON, "the frame is not a JSON object")


@pytest.mark.parametrize(
    ("field", "raw", "value"),
    [("amount_minor", "7", 7), ("message_id", '"m2"', "m2"), ("type", '"payment.scan"', "payment.scan")],
)
def test_the_last_of_two_equal_keys_counts(field: str, raw: str, value: object) -> None:
    doubled = frame("payment.scan")[:-1] + f', "{field}": {raw}}}'
    assert getattr(decode_client_message(doubled), field) == value


def test_a_bad_last_key_is_not_saved_by_a_good_first_one() -> None:
    doubled = frame("payment.scan")[:-1] + ', "amount_minor": 0, "message_id": "m2"}'
    error = rejection(doubled)
    assert (error.field, error.reply_to) == ("amount_minor", "m2")


def test_the_last_type_chooses_the_fields() -> None:
    assert rejection(frame("payment.scan")[:-1] + ', "type": "authenticate"}').field == "id"
    assert rejection(frame("payment.scan")[:-1] + ', "type": "newer"}').code is ErrorCode.UNKNOWN_TYPE


# --- properties

MARKER = "mArKeR"
NUMBER_MARKER = 86_753_090_351
TEXTS = st.sampled_from(["", "\0", "é", "7", "018f0000-"]).map(lambda start: start + MARKER)
SECRETS = st.recursive(
    TEXTS | st.just(NUMBER_MARKER) | st.just(NUMBER_MARKER + 0.5) | st.just(-NUMBER_MARKER),
    lambda children: st.lists(children, min_size=1, max_size=2) | st.dictionaries(TEXTS, children, min_size=1),
    max_leaves=3,
)


def messages_with_secrets() -> st.SearchStrategy[dict[str, Any]]:
    def with_secrets(kind: str) -> st.SearchStrategy[dict[str, Any]]:
        names = st.sampled_from([*GOOD[kind], "newer", MARKER])
        return st.dictionaries(names, SECRETS, min_size=1, max_size=3).map(lambda secrets: GOOD[kind] | secrets)

    return st.sampled_from(TYPES).flatmap(with_secrets)


def assert_repeats_nothing(error: MessageError | ConnectionClosing) -> None:
    shown = [str(error)]
    if isinstance(error, MessageError):
        shown += [error.detail, str(error.field)]
    else:
        shown += [repr(error)]
    for text in shown:
        assert MARKER not in text
        assert str(NUMBER_MARKER) not in text
    # An exception behind it could be logged with it, and pydantic's carry the input.
    assert error.__context__ is None
    assert error.__cause__ is None


@QUICK
@given(messages_with_secrets())
def test_a_rejection_repeats_nothing(message: dict[str, Any]) -> None:
    result = decoded(json.dumps(message))
    if isinstance(result, MessageError | ConnectionClosing):
        assert_repeats_nothing(result)


@pytest.mark.parametrize(
    ("kind", "field"), [(kind, field) for kind in TYPES for field in GOOD[kind]], ids=lambda value: value
)
@pytest.mark.parametrize("secret", [[MARKER], {MARKER: MARKER}, NUMBER_MARKER + 0.5], ids=["array", "object", "float"])
def test_a_rejection_repeats_nothing_of_any_field(kind: str, field: str, secret: object) -> None:
    error = rejection(json.dumps(GOOD[kind] | {field: secret}))
    assert error.field == field
    assert MARKER not in repr(error)
    assert_repeats_nothing(error)


@QUICK
@given(messages_with_secrets(), st.integers(0, 400))
def test_a_cut_frame_is_closed_without_repeating_it(message: dict[str, Any], cut: int) -> None:
    text = json.dumps(message)
    assert_repeats_nothing(closing(text[: min(cut, len(text) - 1)]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=6,
)


@QUICK
@given(st.sampled_from(TYPES), st.data())
def test_any_json_object_is_a_message_or_rejected(kind: str, data: st.DataObject) -> None:
    changed = data.draw(st.dictionaries(st.sampled_from([*GOOD[kind], "newer"]), JSON))
    result = decoded(json.dumps(GOOD[kind] | changed))
    if isinstance(result, MessageError):
        # Neither of two fields is there: the first of them is named.
        assert result.field in changed or (result.field == "payment_id" and "reference" in changed)
    else:
        assert not isinstance(result, ConnectionClosing)
        assert result.type == kind


@QUICK
@given(st.text(st.characters(exclude_categories=())) | st.text(alphabet='{}[]":, 0123456789eE.+-\\untrfalsd'))
def test_any_text_is_rejected_in_one_of_two_ways(text: str) -> None:
    assert isinstance(decoded(text), MessageError | ConnectionClosing)


@QUICK
@given(st.lists(st.integers(0, 0xFFFF) | st.sampled_from([0xD800, 0xDC00, 0xDBFF, 0xDFFF]), max_size=5))
def test_whatever_a_code_is_escaped_from_can_be_handled(units: list[int]) -> None:
    escaped = "".join(f"\\u{unit:04x}" for unit in units)
    message = decoded(frame("payment.scan", code=f'"{escaped}"'))
    if isinstance(message, ConnectionClosing):
        assert message.code is CloseCode.NOT_JSON
        return
    assert isinstance(message, PaymentScan)
    scan = Scan(
        message.payment_id,
        11,
        5,
        message.reference,
        message.amount_minor,
        message.currency,
        message.code,
        Entry(message.entry),
    )
    assert len(scan.fingerprint) == 16
    assert payment_code.parse(message.code) is None
    assert decode_client_message(encode(message)) == message


PRINTABLE = st.from_regex(r"[!-~]([ -~]{0,62}[!-~])?", fullmatch=True)
PINS = st.from_regex(r"[0-9]{4,12}", fullmatch=True)
CLIENT_MESSAGES: st.SearchStrategy[ClientMessage] = st.one_of(
    st.builds(
        PaymentScan,
        message_id=PRINTABLE,
        payment_id=st.uuids(),
        reference=PRINTABLE,
        amount_minor=st.integers(1, 2**53 - 1),
        currency=st.from_regex(r"[A-Z]{3}", fullmatch=True),
        code=st.text(max_size=30),
        entry=st.sampled_from(["scanned", "typed"]),
    ),
    st.builds(
        Authenticate,
        message_id=PRINTABLE,
        id=st.integers(1, 2**53 - 1),
        slot=st.integers(0, 9),
        kid=st.from_regex(r"[A-Za-z0-9_-]{1,32}", fullmatch=True),
        mac=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
        since_ms=st.none() | st.integers(0, 2**53 - 1),
        language=st.from_regex(r"[A-Za-z0-9-]{1,35}", fullmatch=True),
    ),
    st.builds(PaymentQuery, message_id=PRINTABLE, payment_id=st.uuids()),
    st.builds(PaymentQuery, message_id=PRINTABLE, reference=PRINTABLE),
    st.builds(PaymentCancel, message_id=PRINTABLE, payment_id=st.uuids()),
    st.builds(PaymentCancel, message_id=PRINTABLE, reference=PRINTABLE),
    st.builds(PaymentsRecent, message_id=PRINTABLE, limit=st.integers(1, PAGE_MAX)),
    st.builds(
        Resume,
        message_id=PRINTABLE,
        since_ms=st.integers(0, 2**53 - 1),
        cursor=st.none()
        | st.from_regex(r"[0-9]{1,15}\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.[0-9]{1,15}", fullmatch=True),
        limit=st.integers(1, REPLAY_PAGE_MAX),
    ),
    st.builds(
        ShiftOpen,
        message_id=PRINTABLE,
        shift_id=st.uuids(),
        operator=st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=OPERATOR_CHARS_MAX),
        opening_cash_minor=st.integers(0, 2**53 - 1),
    ),
    st.builds(
        ShiftClose,
        message_id=PRINTABLE,
        shift_id=st.uuids(),
        counted_cash_minor=st.none() | st.integers(0, 2**53 - 1),
    ),
    st.builds(ShiftQuery, message_id=PRINTABLE, shift_id=st.none() | st.uuids()),
    st.builds(
        RefundCreate,
        message_id=PRINTABLE,
        refund_id=st.uuids(),
        payment_id=st.uuids(),
        amount_minor=st.integers(1, 2**53 - 1),
    ),
    st.builds(PaymentConfirm, message_id=PRINTABLE, payment_id=st.uuids(), version=st.integers(1, 2**31 - 1), pin=PINS),
    st.builds(PaymentReject, message_id=PRINTABLE, payment_id=st.uuids()),
    st.builds(PinSet, message_id=PRINTABLE, request_id=st.uuids(), new_pin=PINS, old_pin=st.none() | PINS),
    st.builds(
        History,
        message_id=PRINTABLE,
        limit=st.integers(1, PAGE_MAX),
        cursor=st.none() | st.from_regex(r"[0-9]{1,15}\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", fullmatch=True),
    ),
)


@QUICK
@given(CLIENT_MESSAGES)
def test_a_clients_message_survives_the_wire(message: ClientMessage) -> None:
    assert decode_client_message(encode(message)) == message


# --- secrets


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("payment.scan", "code"),
        ("authenticate", "mac"),
        ("payment.confirm", "pin"),
        ("pin.set", "new_pin"),
        ("pin.set", "old_pin"),
    ],
)
def test_messages_are_printed_without_their_secrets(kind: str, field: str) -> None:
    message = decode_client_message(json.dumps(GOOD[kind]))
    for text in (repr(message), str(message), f"{message}"):
        assert GOOD[kind][field] not in text


# --- server messages

TERMINAL_MESSAGES: TypeAdapter[Any] = TypeAdapter(TerminalMessage)
WALLET_MESSAGES: TypeAdapter[Any] = TypeAdapter(WalletMessage)
TOMBSTONE = TerminalPaymentResult(
    reply_to=None,
    payment_id=UUID(PAYMENT_ID),
    version=1,
    reference=None,
    amount_minor=None,
    currency="EUR",
    status="canceled",
    decline_code=None,
    retryable=False,
    next_step="new_order",
    text="Canceled. Nothing is charged.",
    paid_by=None,
    refunded_minor=0,
    decided_at_ms=1_800_000_012_345,
)
TOMBSTONE_TEXT = (
    f'{{"type":"payment.result","reply_to":null,"payment_id":"{PAYMENT_ID}","version":1,"reference":null,'
    '"amount_minor":null,"currency":"EUR","purpose":"sale","status":"canceled","decline_code":null,"retryable":false,'
    '"next_step":"new_order","text":"Canceled. Nothing is charged.","paid_by":null,"refunded_minor":0,'
    '"decided_at_ms":1800000012345}'
)


@pytest.mark.parametrize(
    ("message", "reader", "text"),
    [
        pytest.param(
            TerminalReady(
                reply_to="a1",
                server_time_ms=1_800_000_000_000,
                resumed=True,
                terminal_number=11,
                merchant_name="Café Ω",
                store_name="Main hall",
                currency="EUR",
            ),
            TERMINAL_MESSAGES,
            '{"type":"ready","reply_to":"a1","server_time_ms":1800000000000,"resumed":true,"terminal_number":11,'
            '"merchant_name":"Café Ω","store_name":"Main hall","currency":"EUR","shift_id":null}',
            id="defaults, and text that is not ASCII",
        ),
        pytest.param(TOMBSTONE, TERMINAL_MESSAGES, TOMBSTONE_TEXT, id="nulls"),
        pytest.param(
            PaymentList(reply_to="m1", payments=(TOMBSTONE,)),
            TERMINAL_MESSAGES,
            f'{{"type":"payments.list","reply_to":"m1","payments":[{TOMBSTONE_TEXT}]}}',
            id="messages in a message",
        ),
        pytest.param(
            StatusChanged(status="frozen", text="Your wallet is frozen."),
            WALLET_MESSAGES,
            '{"type":"status.changed","status":"frozen","text":"Your wallet is frozen."}',
            id="wallet",
        ),
    ],
)
def test_a_server_message_survives_the_wire(message: ServerMessage, reader: TypeAdapter[Any], text: str) -> None:
    """docs/protocol.md has an example of every other message; tests/docs compares them."""
    assert encode(message) == text
    assert reader.validate_json(text) == message
    assert reader.validate_json(json.dumps(json.loads(text) | {"newer": [1]})) == message


def test_only_messages_can_be_encoded() -> None:
    with pytest.raises(TypeError, match="cannot encode object"):
        encode(object())  # type: ignore[arg-type]


@pytest.mark.parametrize("chars_max", [60])
def test_the_longest_page_fits_into_64_kib(chars_max: int) -> None:
    """docs/protocol.md says so, for names of up to 60 characters in any script."""
    name = "\u5e97" * chars_max
    at_till = replace(TOMBSTONE, reference="r" * 64, amount_minor=2**53 - 1, paid_by=UUID(int=1), text="\u5e97" * 90)
    on_phone = WalletPaymentResult(
        reply_to=None,
        payment_id=UUID(PAYMENT_ID),
        version=100,
        merchant_name=name,
        store_name=name,
        amount_minor=2**53 - 1,
        currency="EUR",
        status="approved",
        decline_code=None,
        text=texts.text("zh", "customer.approved_refunded", amount="9" * 20, refunded="9" * 20, merchant=name),
        refunded_minor=2**53 - 1,
        balance_minor=2**53 - 1,
        decided_at_ms=1_800_000_012_345,
    )
    pages = (
        PaymentList(reply_to="m" * 64, payments=(at_till,) * PAGE_MAX),
        HistoryPage(reply_to="m" * 64, payments=(on_phone,) * PAGE_MAX, next_cursor="1" * 64),
    )
    for page in pages:
        assert len(encode(page).encode()) <= 64 * 1024


NEARLY_PRINTABLE = st.text(st.characters(min_codepoint=31, max_codepoint=128), max_size=66)
ODD = st.sampled_from(["", " ", "a b", " a", "a ", "x" * 64, "x" * 65, "a\n", "é", '"\\'])


@QUICK
@given(NEARLY_PRINTABLE | PRINTABLE | ODD)
def test_the_message_id_of_a_scan_is_found_where_reading_all_of_it_finds_it(message_id: str) -> None:
    text = json.dumps(SCAN | {"message_id": message_id})
    try:
        read = decode_client_message(text)
    except MessageError:
        assert message_id_of_scan(text) is None
    else:
        assert message_id_of_scan(text) == read.message_id == message_id
        # The other fields do not matter.
        assert message_id_of_scan(json.dumps({"type": "payment.scan", "message_id": message_id})) == message_id


@pytest.mark.parametrize("text", ["", "{", "[]", "1", '{"type": "payment.scan"}', json.dumps(SCAN | {"message_id": 1})])
def test_what_is_no_scan_has_no_message_id_of_one(text: str) -> None:
    assert message_id_of_scan(text) is None
    assert message_id_of_scan(json.dumps(SCAN | {"type": "payment.cancel"})) is None
