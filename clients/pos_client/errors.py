"""What can go wrong for a client.

    ClientError
    ├── CredentialsError      no usable credentials: activate first
    ├── ActivationError       the server refused the activation code, or could not be asked
    ├── ApiError              a request to the REST API was refused, or not answered
    ├── ConnectionStopped     the server said not to come back, or coming back cannot help
    ├── RequestRefused        the server answered with an error that sending again cannot mend: nothing has happened
    │   ├── ScanRefused           … a scan: nothing was charged
    │   └── RefundRefused         … a refund: nothing was refunded
    ├── RequestNotDone        no request got through in time: nothing has happened
    │   ├── ScanNotDone           … a scan: nothing was charged
    │   └── RefundNotDone         … a refund: nothing was refunded
    ├── RequestUnanswered     no answer to a request: it may or may not have been acted on
    │   ├── OutcomeUnknown        … a scan: it may or may not have been charged
    │   └── RefundUnknown         … a refund: it may or may not have been made
    ├── CodesExhausted        all ten codes of this 30-second step are used: wait for the next step
    └── ImageError            an image could not be drawn or read
        └── ImageLibrariesMissing   the `demo` extra is not installed; an ImportError too

No text holds a code, a key or a PIN. A decline is not here: it is an answer.
"""

from uuid import UUID

from pos_server.core.errors import PosError


class ClientError(PosError):
    """Root of this package's exceptions. `str()` is one line for people."""


class CredentialsError(ClientError):
    """Credentials are missing, unreadable, or of the other kind of device."""


class ActivationError(ClientError):
    """No key was handed out. `code` is the problem's stable code where the server gave one (RFC 9457).

    `retryable` tells that the same code may work later: the server was not reached, or was too busy.
    """

    def __init__(self, detail: str, *, code: str | None = None, retryable: bool = False) -> None:
        super().__init__(detail)
        self.code = code
        self.retryable = retryable


class ApiError(ClientError):
    """A request to the REST API was not done, or its answer did not come.

    `status` is the HTTP status, None when no answer came. `code`, `pointer` and `request_id` are the problem's (RFC
    9457), None where it has none. `maybe_done`: what was asked for may have happened. To learn whether it did, ask
    again with the same `idempotency_key` (None when the operation needs none).
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
        told = [f"HTTP {self.status}" if self.status else "", self.code or "", self.pointer or ""]
        told.append(f"request {self.request_id}" if self.request_id else "")
        about = ", ".join(part for part in told if part)
        return f"{self.detail} ({about})" if about else self.detail


class ConnectionStopped(ClientError):
    """The connection ended for good. `close_code` is the WebSocket close code (RFC 6455), None where there was none."""

    def __init__(self, close_code: int | None, reason: str) -> None:
        super().__init__(close_code, reason)
        self.close_code = close_code
        self.reason = reason

    def __str__(self) -> str:
        return self.reason if self.close_code is None else f"{self.reason} (close code {self.close_code})"


class RequestRefused(ClientError):
    """The server answered with an error that sending again cannot mend, or not soon. Nothing has happened.

    `code` is a `core.errors.ErrorCode`, `field` the culprit where there is one, `retry_after_s` how long to wait where
    the server knows.
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
    """A scan was refused before any decision. Nothing was charged."""


class RefundRefused(RequestRefused):
    """A refund was refused. Nothing was refunded."""


class RequestNotDone(ClientError):
    """A request was never acted on: not sent, or each time answered that nothing has happened."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"nothing was done: {self.reason}"


class ScanNotDone(RequestNotDone):
    """A scan was never acted on. Nothing was charged."""

    def __init__(self, payment_id: UUID, reason: str) -> None:
        super().__init__(reason)
        self.payment_id = payment_id

    def __str__(self) -> str:
        return f"nothing was charged: {self.reason}"


class RefundNotDone(RequestNotDone):
    """A refund was never acted on. Nothing was refunded."""

    def __init__(self, refund_id: UUID, reason: str) -> None:
        super().__init__(reason)
        self.refund_id = refund_id

    def __str__(self) -> str:
        return f"nothing was refunded: {self.reason}"


class RequestUnanswered(ClientError):
    """No answer came to a request: it may or may not have been acted on. Asking again is safe."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"no answer: {self.reason}"


class OutcomeUnknown(RequestUnanswered):
    """A scan was sent and no answer came: the third outcome.

    Ask again with the same `payment_id` and the same code, or take it back with `TerminalClient.cancel`. Never treat it
    as a decline: the money may have moved.
    """

    def __init__(self, payment_id: UUID, reason: str) -> None:
        super().__init__(reason)
        self.payment_id = payment_id

    def __str__(self) -> str:
        return f"the outcome of payment {self.payment_id} is unknown: {self.reason}"


class RefundUnknown(RequestUnanswered):
    """A refund was sent and no answer came. Ask again with the same `refund_id`: it is never made twice."""

    def __init__(self, refund_id: UUID, reason: str) -> None:
        super().__init__(reason)
        self.refund_id = refund_id

    def __str__(self) -> str:
        return f"whether refund {self.refund_id} was made is unknown: {self.reason}"


class CodesExhausted(ClientError):
    """A step has ten codes, and all were used. `again_at_ms`: when the next starts, in Unix ms of this machine."""

    def __init__(self, again_at_ms: int) -> None:
        super().__init__(again_at_ms)
        self.again_at_ms = again_at_ms

    def __str__(self) -> str:
        return "all codes of this half minute are used: wait for the next one"


class ImageError(ClientError):
    """The file is no image of one code, or could not be written."""


class ImageLibrariesMissing(ImageError, ImportError):
    """The libraries of the `demo` extra are not installed."""
