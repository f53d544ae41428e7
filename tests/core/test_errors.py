"""The exception tree, and the codes that clients act on: retryable errors, and closes after which to reconnect."""

import pytest

from pos_server.core.errors import CloseCode, ConnectionClosing, ErrorCode, MessageError, PosError

RETRYABLE = {
    ErrorCode.BAD_FIELD: False,
    ErrorCode.UNKNOWN_TYPE: False,
    ErrorCode.WRONG_CURRENCY: False,
    ErrorCode.ID_REUSED: False,
    ErrorCode.PAYMENT_UNKNOWN: False,
    ErrorCode.PAYMENT_ARCHIVED: False,
    ErrorCode.TERMINAL_DISABLED: False,
    ErrorCode.WALLET_UNKNOWN: False,
    ErrorCode.FUNDS_SPENT: False,
    ErrorCode.CANCEL_TOO_LATE: False,
    ErrorCode.ALREADY_REFUNDED: False,
    ErrorCode.NOT_REFUNDABLE: False,
    ErrorCode.REFUND_TOO_LATE: False,
    ErrorCode.REFUND_EXCEEDS_REMAINING: False,
    ErrorCode.TOO_MANY_REFUNDS: False,
    ErrorCode.PIN_NOT_SET: False,
    ErrorCode.PIN_TOO_WEAK: False,
    ErrorCode.PIN_WRONG: False,
    ErrorCode.PIN_LOCKED: True,
    ErrorCode.SHIFT_ALREADY_OPEN: False,
    ErrorCode.SHIFT_UNKNOWN: False,
    ErrorCode.PAYMENT_PENDING: True,
    ErrorCode.TOO_MANY_QUERIES: True,
    ErrorCode.TOO_MANY_BAD_CODES: True,
    ErrorCode.TOO_MANY_MESSAGES: True,
    ErrorCode.DRAINING: True,
    ErrorCode.BUSY: True,
    ErrorCode.UNKNOWN_OUTCOME: True,
}
RECONNECT = {
    CloseCode.DRAINING: (4000, True),
    CloseCode.SLOW_CONSUMER: (4001, True),
    CloseCode.AUTHENTICATION_TIMEOUT: (4002, True),
    CloseCode.UNAVAILABLE: (4003, True),
    CloseCode.HEARTBEAT_LOST: (4004, True),
    CloseCode.UNAUTHORIZED: (4100, False),
    CloseCode.SUPERSEDED: (4101, False),
    CloseCode.NOT_TEXT: (4102, False),
    CloseCode.NOT_JSON: (4103, False),
    CloseCode.NOT_AUTHENTICATED: (4104, False),
    CloseCode.ALREADY_AUTHENTICATED: (4105, False),
    CloseCode.REVOKED: (4106, False),
    CloseCode.TOO_MANY_MESSAGES: (4107, False),
}


def test_retryable_errors() -> None:
    assert {code: code.retryable for code in ErrorCode} == RETRYABLE


def test_reconnect_close_codes() -> None:
    assert {code: (code.value, code.reconnect) for code in CloseCode} == RECONNECT


def test_close_codes_are_in_their_ranges() -> None:
    assert all(4000 <= code <= 4199 for code in CloseCode)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MessageError(ErrorCode.BUSY, "come back"), "busy: come back"),
        (MessageError(ErrorCode.BUSY, "come back", reply_to="m1", retry_after_s=3), "busy: come back"),
        (
            MessageError(ErrorCode.BAD_FIELD, "is wrong", field="amount_minor"),
            "bad_field: is wrong (field amount_minor)",
        ),
        (MessageError(ErrorCode.BAD_FIELD, "is wrong", field=""), "bad_field: is wrong"),
        (ConnectionClosing(CloseCode.NOT_JSON, "the frame is not JSON"), "not_json (4103): the frame is not JSON"),
        (ConnectionClosing(CloseCode.DRAINING, "restart"), "draining (4000): restart"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_text(error: PosError, text: str) -> None:
    assert str(error) == text


def test_a_message_error_carries_its_data() -> None:
    error = MessageError(ErrorCode.BAD_FIELD, "is wrong", field="code", reply_to="m1", retry_after_s=3)
    assert (error.code, error.detail, error.field, error.reply_to, error.retry_after_s) == (
        ErrorCode.BAD_FIELD,
        "is wrong",
        "code",
        "m1",
        3,
    )
    bare = MessageError(ErrorCode.BUSY, "come back")
    assert (bare.field, bare.reply_to, bare.retry_after_s) == (None, None, None)


def test_a_closing_carries_its_data() -> None:
    closing = ConnectionClosing(CloseCode.SUPERSEDED, "another connection")
    assert (closing.code, closing.reason) == (CloseCode.SUPERSEDED, "another connection")


def test_the_tree() -> None:
    assert PosError.__bases__ == (Exception,)
    assert MessageError.__bases__ == (PosError,)
    assert ConnectionClosing.__bases__ == (PosError,)
