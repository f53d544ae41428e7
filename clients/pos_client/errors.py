"""What can go wrong for a client.

    ClientError
    ├── CredentialsError      no usable credentials: activate first
    ├── ActivationError       the server refused the activation code, or could not be asked
    ├── ConnectionStopped     the server said not to come back, or coming back cannot help
    ├── ScanRefused           the scan was refused before any decision: nothing was charged
    ├── ScanNotDone           no scan got through in time: nothing was charged
    ├── OutcomeUnknown        a scan was sent and not answered: it may or may not have been charged
    ├── CodesExhausted        all ten codes of this 30-second step are used: wait for the next step
    └── ImageError            an image could not be drawn or read
        └── ImageLibrariesMissing   the `demo` extra is not installed; an ImportError too

No text holds a code or a key. A decline is not here: it is an answer.
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


class ConnectionStopped(ClientError):
    """The connection ended for good. `close_code` is the WebSocket close code (RFC 6455), None where there was none."""

    def __init__(self, close_code: int | None, reason: str) -> None:
        super().__init__(close_code, reason)
        self.close_code = close_code
        self.reason = reason

    def __str__(self) -> str:
        return self.reason if self.close_code is None else f"{self.reason} (close code {self.close_code})"


class ScanRefused(ClientError):
    """The server answered a scan with an error that sending again cannot mend. Nothing was charged.

    `code` is a `core.errors.ErrorCode`, `field` the culprit where there is one.
    """

    def __init__(self, code: str, message: str, field: str | None) -> None:
        super().__init__(code, message, field)
        self.code = code
        self.message = message
        self.field = field

    def __str__(self) -> str:
        return f"{self.message} ({self.code}{f', field {self.field}' if self.field else ''})"


class ScanNotDone(ClientError):
    """The scan was never acted on: not sent, or each time answered that nothing has happened. Nothing was charged."""

    def __init__(self, payment_id: UUID, reason: str) -> None:
        super().__init__(payment_id, reason)
        self.payment_id = payment_id
        self.reason = reason

    def __str__(self) -> str:
        return f"nothing was charged: {self.reason}"


class OutcomeUnknown(ClientError):
    """The scan was sent and no answer came: the third outcome. Ask again with the same `payment_id` and the same code.

    Never treat it as a decline: the money may have moved.
    """

    def __init__(self, payment_id: UUID, reason: str) -> None:
        super().__init__(payment_id, reason)
        self.payment_id = payment_id
        self.reason = reason

    def __str__(self) -> str:
        return f"the outcome of payment {self.payment_id} is unknown: {self.reason}"


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
