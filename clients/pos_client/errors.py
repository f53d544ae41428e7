"""The exceptions of this package.

    ClientError
    ├── CredentialsError      no usable credentials: activate first
    ├── ActivationError       the server rejected the activation code or could not be reached
    ├── ApiError              a REST request was rejected or not answered
    ├── ConnectionStopped     the session ended permanently: a reconnect is not allowed or would fail again
    ├── RequestRefused        the server returned an error that a retry cannot fix: nothing happened
    │   ├── ScanRefused           … to a scan: nothing was charged
    │   └── RefundRefused         … to a refund: nothing was refunded
    ├── RequestNotDone        the request was not processed in time: nothing happened
    │   ├── ScanNotDone           … a scan: nothing was charged
    │   └── RefundNotDone         … a refund: nothing was refunded
    ├── RequestUnanswered     no answer arrived: the request may or may not have been processed
    │   ├── OutcomeUnknown        … to a scan: the payment may or may not have been charged
    │   └── RefundUnknown         … to a refund: it may or may not have been made
    ├── CodesExhausted        all ten codes of this 30-second step are used: wait for the next step
    └── ImageError            an image could not be drawn or read
        └── ImageLibrariesMissing   the `demo` extra is not installed; also an ImportError

No text contains a code, a key or a PIN. A decline is an answer, so it is not an exception.
"""

from uuid import UUID

from pos_server.core.errors import PosError


class ClientError(PosError):
    """Base class of this package's exceptions. `str()` is one line for people."""


class CredentialsError(ClientError):
    """Credentials are missing, unreadable, or for the wrong kind of device."""


class ActivationError(ClientError):
    """No key was issued. `code` is the stable code of the server's problem (RFC 9457), None without one.

    `retryable` is true if the same activation code may work later: the server was unreachable or too busy.
    """

    def __init__(self, detail: str, *, code: str | None = None, retryable: bool = False) -> None:
        super().__init__(detail)
        self.code = code
        self.retryable = retryable


class ApiError(ClientError):
    """A REST request was rejected, or its answer did not arrive.

    `status` is the HTTP status, None without an answer. `code`, `pointer` and `request_id` come from the problem (RFC
    9457), None if it has none. `maybe_done` is true if the request may have been processed. To find out, repeat it with
    the same `idempotency_key` (None for an operation that needs none).
    """

    def __init__(
        self,
        status: int | None,
        code: str | None,
        detail: str,
        *,
        pointer: str | None = None,
        request_id: str | None = None,
        idempotency_key: str | None = None,
        maybe_done: bool = False,
    ) -> None:
        super().__init__(status, code, detail, pointer, request_id)
        self.status = status
        self.code = code
        self.detail = detail
        self.pointer = pointer
        self.request_id = request_id
        self.idempotency_key = idempotency_key
        self.maybe_done = maybe_done

    def __str__(self) -> str:
        parts = [f"HTTP {self.status}" if self.status else "", self.code or "", self.pointer or ""]
        parts.append(f"request {self.request_id}" if self.request_id else "")
        context = ", ".join(part for part in parts if part)
        return f"{self.detail} ({context})" if context else self.detail


class ConnectionStopped(ClientError):
    """The session ended permanently. `close_code` is the WebSocket close code (RFC 6455), None without one."""

    def __init__(self, close_code: int | None, reason: str) -> None:
        super().__init__(close_code, reason)
        self.close_code = close_code
        self.reason = reason

    def __str__(self) -> str:
        return self.reason if self.close_code is None else f"{self.reason} (close code {self.close_code})"


class RequestRefused(ClientError):
    """The server returned an error that a retry cannot fix, or not soon. Nothing happened.

    `code` is a `core.errors.ErrorCode`. `field` names the rejected field, None without one. `retry_after_s` is the
    server's wait in seconds, None without one.
    """

    def __init__(self, code: str, message: str, field: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(code, message, field, retry_after_s)
        self.code = code
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.message} ({self.code}{f', field {self.field}' if self.field else ''})"


class ScanRefused(RequestRefused):
    """The server rejected a scan before deciding it. Nothing was charged."""


class RefundRefused(RequestRefused):
    """The server rejected a refund. Nothing was refunded."""


class RequestNotDone(ClientError):
    """A request was not processed: it was not sent, or each answer said that nothing happened."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"nothing was done: {self.reason}"


class ScanNotDone(RequestNotDone):
    """A scan was not processed. Nothing was charged."""

    def __init__(self, payment_id: UUID, reason: str) -> None:
        super().__init__(reason)
        self.payment_id = payment_id

    def __str__(self) -> str:
        return f"nothing was charged: {self.reason}"


class RefundNotDone(RequestNotDone):
    """A refund was not processed. Nothing was refunded."""

    def __init__(self, refund_id: UUID, reason: str) -> None:
        super().__init__(reason)
        self.refund_id = refund_id

    def __str__(self) -> str:
        return f"nothing was refunded: {self.reason}"


class RequestUnanswered(ClientError):
    """A request got no answer: it may or may not have been processed. Repeating it is safe."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"no answer: {self.reason}"


class OutcomeUnknown(RequestUnanswered):
    """A scan was sent and got no answer: the third outcome, next to approved and declined.

    Repeat the scan with the same `payment_id` and the same code, or cancel it with `TerminalClient.cancel`. Never treat
    it as a decline, because the payment may have been charged.
    """

    def __init__(self, payment_id: UUID, reason: str) -> None:
        super().__init__(reason)
        self.payment_id = payment_id

    def __str__(self) -> str:
        return f"the outcome of payment {self.payment_id} is unknown: {self.reason}"


class RefundUnknown(RequestUnanswered):
    """A refund was sent and got no answer. Repeat it with the same `refund_id`: it is never made twice."""

    def __init__(self, refund_id: UUID, reason: str) -> None:
        super().__init__(reason)
        self.refund_id = refund_id

    def __str__(self) -> str:
        return f"the outcome of refund {self.refund_id} is unknown: {self.reason}"


class CodesExhausted(ClientError):
    """All ten codes of this step are used. `again_at_ms` is the start of the next step, in Unix ms of this machine."""

    def __init__(self, again_at_ms: int) -> None:
        super().__init__(again_at_ms)
        self.again_at_ms = again_at_ms

    def __str__(self) -> str:
        return "all codes of this half minute are used: wait for the next one"


class ImageError(ClientError):
    """The file is not an image of exactly one code, or it could not be read or written."""


class ImageLibrariesMissing(ImageError, ImportError):
    """The libraries of the `demo` extra are not installed."""
