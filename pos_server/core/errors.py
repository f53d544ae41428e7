"""Error codes, WebSocket close codes, and the exceptions that carry them.

    PosError
    ├── MessageError          one message is rejected with an `error`; the connection stays open
    └── ConnectionClosing     the connection closes with a code that says reconnect or stop

A decline is not an error: it is a decision about a payment (`core.payments.declines.DeclineCode`). An error means that
the message was not decided. The tables of codes in docs/protocol.md are generated from the descriptions here.
"""

from enum import IntEnum
from typing import Self

from .codes import DescribedCode


class ErrorCode(DescribedCode):
    """The stable `code` of an `error` message. Its description says what happened, then what to do."""

    BAD_FIELD = "bad_field", "A field is missing or wrong. Correct the client; `field` names the first wrong field."
    UNKNOWN_TYPE = (
        "unknown_type",
        "The server does not know this `type`, or this kind of device may not send it. Do not send it to this server.",
    )
    WRONG_CURRENCY = "wrong_currency", "The terminal's merchant takes another currency. Use the `currency` of `ready`."
    ID_REUSED = (
        "id_reused",
        "This id belongs to another request. Make a new id for a new request.",
    )
    PAYMENT_UNKNOWN = (
        "payment_unknown",
        "There is no such payment. After an unknown outcome, it is not decided yet: query again. Otherwise check "
        "the id.",
    )
    PAYMENT_ARCHIVED = (
        "payment_archived",
        "The payment has been archived and cannot be changed. Ask the operator of the server for it.",
    )
    TERMINAL_DISABLED = "terminal_disabled", "This terminal is disabled. Use another terminal, or have it enabled."
    WALLET_UNKNOWN = "wallet_unknown", "There is no such wallet. Check the number."
    FUNDS_SPENT = (
        "funds_spent",
        "The wallet holds less than the top-up brought, so the top-up cannot be canceled. Pay out a smaller "
        "amount with a withdrawal.",
    )
    CANCEL_TOO_LATE = "cancel_too_late", "The payment is too old to be canceled. It stays paid. Refund it."
    ALREADY_REFUNDED = (
        "already_refunded",
        "The payment was partly refunded, so it cannot be canceled. It stays paid. Refund the rest.",
    )
    NOT_REFUNDABLE = "not_refundable", "Only an approved sale can be refunded. Query the payment for its status."
    REFUND_TOO_LATE = "refund_too_late", "The payment is too old to be refunded. Return the money in another way."
    REFUND_EXCEEDS_REMAINING = (
        "refund_exceeds_remaining",
        "The amount is more than the rest of the payment. Refund at most `amount_minor` less `refunded_minor`.",
    )
    TOO_MANY_REFUNDS = (
        "too_many_refunds",
        "The payment has reached its maximum number of refunds. Return the money in another way.",
    )
    PIN_NOT_SET = "pin_not_set", "The wallet has no PIN yet. Set one, then confirm again."
    PIN_TOO_WEAK = (
        "pin_too_weak",
        "The new PIN is too easy to guess: one digit repeated, or digits that count up or down. Choose another, "
        "with a new `request_id`.",
    )
    PIN_WRONG = "pin_wrong", "The old PIN is wrong or missing. Ask the customer again, with a new `request_id`."
    PIN_LOCKED = (
        "pin_locked",
        "The PIN is locked after too many wrong PINs. Wait `retry_after_s`, then send the same again.",
    )
    SHIFT_ALREADY_OPEN = "shift_already_open", "Another shift is open at this terminal. Close it first."
    SHIFT_UNKNOWN = (
        "shift_unknown",
        "There is no such shift at this terminal, or none is open. Check the id, or open a shift.",
    )
    PAYMENT_PENDING = (
        "payment_pending",
        "A payment of this shift waits for its PIN, so the shift cannot be closed. Wait for the payment or cancel "
        "it, then close again.",
    )
    TOO_MANY_QUERIES = (
        "too_many_queries",
        "Too many queries. The server did not act on this request. Wait `retry_after_s`, then send it again.",
    )
    TOO_MANY_BAD_CODES = (
        "too_many_bad_codes",
        "Too many forged codes were scanned at this terminal, so its scans are refused for a while. Wait, then "
        "send the same again.",
    )
    TOO_MANY_MESSAGES = (
        "too_many_messages",
        "Too many messages per second. The server did not act on this request. Wait `retry_after_s`, then send it "
        "again, more slowly.",
    )
    DRAINING = "draining", "The server is stopping and did not act on this request. Reconnect, then send it again."
    BUSY = "busy", "The server is busy and did not act on this request. Send it again, with backoff."
    UNKNOWN_OUTCOME = (
        "unknown_outcome",
        "The outcome is not known yet: the request may have been carried out. Send the same message again with "
        "the same ids, until it is answered.",
    )

    @property
    def retryable(self) -> bool:
        """True if the same message can succeed when it is sent again later."""
        return self in _RETRYABLE


_RETRYABLE = {
    ErrorCode.TOO_MANY_BAD_CODES,
    ErrorCode.TOO_MANY_MESSAGES,
    ErrorCode.TOO_MANY_QUERIES,
    ErrorCode.PIN_LOCKED,
    ErrorCode.PAYMENT_PENDING,
    ErrorCode.DRAINING,
    ErrorCode.BUSY,
    ErrorCode.UNKNOWN_OUTCOME,
}


class CloseCode(IntEnum):
    """WebSocket close codes (RFC 6455 section 7.4). 40xx: reconnect with backoff. 41xx: stop and call the operator."""

    _value_: int
    description: str

    def __new__(cls, value: int, description: str) -> Self:
        code = int.__new__(cls, value)
        code._value_ = value
        code.description = description
        return code

    DRAINING = (
        4000,
        "The server is stopping and has answered all accepted requests. After `ready`, `draining` came before.",
    )
    SLOW_CONSUMER = 4001, "The device did not read, so unsent messages were dropped."
    AUTHENTICATION_TIMEOUT = 4002, "`authenticate` came too late."
    UNAVAILABLE = (
        4003,
        "The server cannot authenticate or resume now because its database is unavailable, or it has a fault.",
    )
    HEARTBEAT_LOST = 4004, "The device did not answer a ping in time."
    UNAUTHORIZED = (
        4100,
        "The device is unknown or revoked, or its key is not the current one. Activate the device again.",
    )
    SUPERSEDED = (
        4101,
        "The device opened a newer connection, at this server or another one. Two programs may share its credentials.",
    )
    NOT_TEXT = 4102, "A message is binary. Correct the client."
    NOT_JSON = 4103, "A message is not a JSON object. Correct the client."
    NOT_AUTHENTICATED = 4104, "The first message is not a valid `authenticate`. Correct the client."
    ALREADY_AUTHENTICATED = 4105, "`authenticate` came a second time. Correct the client."
    REVOKED = 4106, "The key that opened this connection was replaced or revoked. Activate the device again."
    TOO_MANY_MESSAGES = 4107, "Too many bad messages came, or far too many messages in all. Correct the client."

    @property
    def reconnect(self) -> bool:
        """True if the client should reconnect by itself."""
        return self < 4100


class PosError(Exception):
    """Base class of this project's exceptions."""


class MessageError(PosError):
    """A message that is rejected without any effect; `field` names the invalid field if there is one."""

    def __init__(
        self,
        code: ErrorCode,
        detail: str,
        *,
        field: str | None = None,
        reply_to: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(code, detail, field, reply_to, retry_after_s)
        self.code = code
        self.detail = detail
        self.field = field
        self.reply_to = reply_to
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}" + (f" (field {self.field})" if self.field else "")


class ConnectionClosing(PosError):
    """The connection must close with this code; `reason` fits the close frame and contains no secret."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.code.name.lower()} ({self.code}): {self.reason}"
