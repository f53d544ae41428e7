"""Error codes, WebSocket close codes, and the exceptions that carry them.

    PosError
    ├── MessageError          one message is rejected with an `error`; the connection stays open
    └── ConnectionClosing     the connection closes with a code that says reconnect or stop

A decline is not an error: it is a decision about a payment (`core.payments.payment.DeclineCode`). An error means that
the message was not decided. docs/protocol.md has the same tables; a test compares them.
"""

from enum import IntEnum, StrEnum


class ErrorCode(StrEnum):
    """The stable `code` of an `error` message."""

    BAD_FIELD = "bad_field"
    UNKNOWN_TYPE = "unknown_type"
    WRONG_CURRENCY = "wrong_currency"
    ID_REUSED = "id_reused"
    PAYMENT_UNKNOWN = "payment_unknown"
    PAYMENT_ARCHIVED = "payment_archived"
    TERMINAL_DISABLED = "terminal_disabled"
    WALLET_UNKNOWN = "wallet_unknown"
    FUNDS_SPENT = "funds_spent"
    CANCEL_TOO_LATE = "cancel_too_late"
    ALREADY_REFUNDED = "already_refunded"
    NOT_REFUNDABLE = "not_refundable"
    REFUND_TOO_LATE = "refund_too_late"
    REFUND_EXCEEDS_REMAINING = "refund_exceeds_remaining"
    TOO_MANY_REFUNDS = "too_many_refunds"
    PIN_NOT_SET = "pin_not_set"
    PIN_TOO_WEAK = "pin_too_weak"
    PIN_WRONG = "pin_wrong"
    PIN_LOCKED = "pin_locked"
    SHIFT_ALREADY_OPEN = "shift_already_open"
    SHIFT_UNKNOWN = "shift_unknown"
    PAYMENT_PENDING = "payment_pending"
    TOO_MANY_QUERIES = "too_many_queries"
    TOO_MANY_BAD_CODES = "too_many_bad_codes"
    TOO_MANY_MESSAGES = "too_many_messages"
    DRAINING = "draining"
    BUSY = "busy"
    UNKNOWN_OUTCOME = "unknown_outcome"

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

    DRAINING = 4000
    SLOW_CONSUMER = 4001
    AUTHENTICATION_TIMEOUT = 4002
    UNAVAILABLE = 4003
    HEARTBEAT_LOST = 4004
    UNAUTHORIZED = 4100
    SUPERSEDED = 4101
    NOT_TEXT = 4102
    NOT_JSON = 4103
    NOT_AUTHENTICATED = 4104
    ALREADY_AUTHENTICATED = 4105
    REVOKED = 4106
    TOO_MANY_MESSAGES = 4107

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
