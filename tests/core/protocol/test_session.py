"""The states of a connection as a table: state, frame, result, next state."""

import json
from dataclasses import dataclass
from typing import get_args

import pytest

from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.errors import CloseCode, ConnectionClosing, ErrorCode, MessageError
from pos_server.core.protocol.client_messages import (
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
    Request,
    Resume,
    ShiftClose,
    ShiftOpen,
    ShiftQuery,
    Workload,
)
from pos_server.core.protocol.session import Session, State

AUTHENTICATE = {"type": "authenticate", "message_id": "a1", "id": 7, "slot": 0, "kid": "k1", "mac": "0" * 64}
SCAN = {
    "type": "payment.scan",
    "message_id": "m1",
    "payment_id": "018f0000-0000-7000-8000-000000000001",
    "reference": "order-1",
    "amount_minor": 1000,
    "currency": "EUR",
    "code": "771000000001006438058199",
}
PAYMENT_ID = SCAN["payment_id"]
RESUME = {"type": "resume", "message_id": "m1", "since_ms": 0}
# Requests that only one kind of device may send, apart from `scan`.
REQUESTS: dict[DeviceKind, dict[type[Request], dict[str, object]]] = {
    DeviceKind.TERMINAL: {
        PaymentQuery: {"type": "payment.query", "reference": "order-1"},
        PaymentCancel: {"type": "payment.cancel", "payment_id": PAYMENT_ID},
        PaymentsRecent: {"type": "payments.recent"},
        ShiftOpen: {"type": "shift.open", "shift_id": "018f0000-0000-7000-8000-000000000003", "operator": "Alice"},
        ShiftClose: {"type": "shift.close", "shift_id": "018f0000-0000-7000-8000-000000000003"},
        ShiftQuery: {"type": "shift.query"},
        RefundCreate: {
            "type": "refund.create",
            "refund_id": "018f0000-0000-7000-8000-000000000002",
            "payment_id": PAYMENT_ID,
            "amount_minor": 1,
        },
    },
    DeviceKind.WALLET: {
        PaymentConfirm: {"type": "payment.confirm", "payment_id": PAYMENT_ID, "version": 1, "pin": "4071"},
        PaymentReject: {"type": "payment.reject", "payment_id": PAYMENT_ID},
        PinSet: {"type": "pin.set", "request_id": "018f0000-0000-7000-8000-000000000003", "new_pin": "4071"},
        History: {"type": "history"},
    },
}
FRAMES = {
    "authenticate": json.dumps(AUTHENTICATE),
    "scan": json.dumps(SCAN),
    "bad authenticate": json.dumps(AUTHENTICATE | {"id": 0}),
    "bad scan": json.dumps(SCAN | {"amount_minor": 0}),
    "unknown type": json.dumps(SCAN | {"type": "payment.guess"}),
    "no type": '{"message_id": "m1"}',
    "not JSON": "{",
    "not an object": "[]",
    **{
        str(fields["type"]): json.dumps({"message_id": "m1", **fields})
        for requests in REQUESTS.values()
        for fields in requests.values()
    },
}

TERMINAL, WALLET = DeviceKind.TERMINAL, DeviceKind.WALLET
HELLO, READY, CLOSED = State.HELLO, State.READY, State.CLOSED


@dataclass(frozen=True)
class Message:
    type: type[Authenticate | Request]


@dataclass(frozen=True)
class Refused:
    code: ErrorCode
    field: str | None
    reply_to: str | None = "m1"


@dataclass(frozen=True)
class Closing:
    code: CloseCode
    reason: str


Result = Message | Refused | Closing
NOT_JSON = Closing(CloseCode.NOT_JSON, "the frame is not JSON")
NOT_AN_OBJECT = Closing(CloseCode.NOT_JSON, "the frame is not a JSON object")
NOT_YET = Closing(CloseCode.NOT_AUTHENTICATED, "authenticate first")
ONLY_ONCE = Closing(CloseCode.ALREADY_AUTHENTICATED, "authenticate may be sent only once")


def not_yet(why: str) -> Closing:
    return Closing(CloseCode.NOT_AUTHENTICATED, f"authenticate first ({why})")


SAME_FOR_BOTH_KINDS: list[tuple[State, str, Result, State]] = [
    (HELLO, "authenticate", Message(Authenticate), HELLO),
    (HELLO, "scan", NOT_YET, CLOSED),
    (HELLO, "bad authenticate", not_yet("bad_field in id"), CLOSED),
    (HELLO, "bad scan", not_yet("bad_field in amount_minor"), CLOSED),
    (HELLO, "unknown type", not_yet("unknown_type in type"), CLOSED),
    (HELLO, "no type", not_yet("unknown_type in type"), CLOSED),
    (HELLO, "not JSON", NOT_JSON, CLOSED),
    (HELLO, "not an object", NOT_AN_OBJECT, CLOSED),
    (READY, "authenticate", ONLY_ONCE, CLOSED),
    (READY, "bad authenticate", Refused(ErrorCode.BAD_FIELD, "id", "a1"), READY),
    (READY, "bad scan", Refused(ErrorCode.BAD_FIELD, "amount_minor"), READY),
    (READY, "unknown type", Refused(ErrorCode.UNKNOWN_TYPE, "type"), READY),
    (READY, "no type", Refused(ErrorCode.UNKNOWN_TYPE, "type"), READY),
    (READY, "not JSON", NOT_JSON, CLOSED),
    (READY, "not an object", NOT_AN_OBJECT, CLOSED),
    # After the end, the first reason stays.
    *((CLOSED, frame, NOT_JSON, CLOSED) for frame in FRAMES),
]
TABLE: list[tuple[DeviceKind, State, str, Result, State]] = [
    *((kind, *row) for kind in DeviceKind for row in SAME_FOR_BOTH_KINDS),
    (TERMINAL, READY, "scan", Message(PaymentScan), READY),
    (WALLET, READY, "scan", Refused(ErrorCode.UNKNOWN_TYPE, "type"), READY),
    *(
        (
            kind,
            READY,
            str(fields["type"]),
            Message(message) if kind is sender else Refused(ErrorCode.UNKNOWN_TYPE, "type"),
            READY,
        )
        for sender, requests in REQUESTS.items()
        for message, fields in requests.items()
        for kind in DeviceKind
    ),
    *(
        (kind, HELLO, str(fields["type"]), NOT_YET, CLOSED)
        for requests in REQUESTS.values()
        for fields in requests.values()
        for kind in DeviceKind
    ),
]


def session_in(kind: DeviceKind, state: State) -> Session:
    """A session that got into `state` through its events."""
    session = Session(kind)
    if state is READY:
        session.receive(FRAMES["authenticate"])
        session.authenticated()
    elif state is CLOSED:
        with pytest.raises(ConnectionClosing):
            session.receive(FRAMES["not JSON"])
    assert session.state is state
    return session


def receive(session: Session, frame: str) -> Result:
    try:
        return Message(type(session.receive(frame)))
    except MessageError as error:
        return Refused(error.code, error.field, error.reply_to)
    except ConnectionClosing as closing:
        return Closing(closing.code, closing.reason)


@pytest.mark.parametrize(
    ("kind", "state", "frame", "result", "next_state"),
    [pytest.param(*row, id=f"{row[0]}, {row[1].name}: {row[2]}") for row in TABLE],
)
def test_receive(kind: DeviceKind, state: State, frame: str, result: Result, next_state: State) -> None:
    session = session_in(kind, state)
    assert receive(session, FRAMES[frame]) == result
    assert session.state is next_state


def test_every_request_has_its_row() -> None:
    rows = {type_ for requests in REQUESTS.values() for type_ in requests}
    assert {*get_args(Request)} == rows | {PaymentScan, Resume}


@pytest.mark.parametrize("kind", DeviceKind)
def test_both_kinds_of_device_may_resume(kind: DeviceKind) -> None:
    assert session_in(kind, READY).receive(json.dumps(RESUME)) == Resume(message_id="m1", since_ms=0)


def test_a_session_starts_in_hello() -> None:
    assert Session(TERMINAL).state is HELLO


@pytest.mark.parametrize("kind", DeviceKind)
def test_a_message_is_handed_on_as_it_was_sent(kind: DeviceKind) -> None:
    message = session_in(kind, HELLO).receive(FRAMES["authenticate"])
    assert message == Authenticate(message_id="a1", id=7, slot=0, kid="k1", mac="0" * 64)


@pytest.mark.parametrize("kind", DeviceKind)
@pytest.mark.parametrize("state", [READY, CLOSED])
def test_authenticated_is_legal_only_in_hello(kind: DeviceKind, state: State) -> None:
    session = session_in(kind, state)
    with pytest.raises(AssertionError, match=f"authenticated in state State.{state.name}"):
        session.authenticated()
    assert session.state is state


def test_a_bad_message_does_not_end_a_ready_connection() -> None:
    session = session_in(TERMINAL, READY)
    for _ in range(3):
        receive(session, FRAMES["bad scan"])
        receive(session, FRAMES["unknown type"])
    assert receive(session, FRAMES["scan"]) == Message(PaymentScan)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("frame", FRAMES)
def test_a_close_reason_fits_its_frame(state: State, frame: str) -> None:
    """A close frame's reason has at most 123 bytes (RFC 6455 section 5.5)."""
    result = receive(session_in(WALLET, state), FRAMES[frame])
    assert not isinstance(result, Closing) or len(result.reason.encode()) <= 123


@pytest.mark.parametrize("request_class", get_args(Request), ids=lambda each: each.__name__)
def test_every_request_declares_its_replies_and_its_workload(request_class: type[Request]) -> None:
    assert request_class.replies
    assert isinstance(request_class.workload, Workload)
