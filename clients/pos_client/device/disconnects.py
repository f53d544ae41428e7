"""Why a connection was lost, in words for people, and whether to come back."""

import errno
import os

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from pos_server.core.errors import CloseCode

from ..errors import ConnectionStopped

# RFC 6455 section 7.4.1: protocol error, unacceptable data, bad data, policy violation, too big, missing extension.
# The server would close for the same reason again.
_STOP_CODES = {1002, 1003, 1007, 1008, 1009, 1010}
_STOP_RANGE = range(4100, 4200)
_RETRY_AFTER_DIGITS_MAX = 10
_RETRY_STATUSES = {408, 425, 429}
_STOP_TEXTS: dict[int, str] = {
    CloseCode.UNAUTHORIZED: "the server does not accept this device: it was revoked or replaced, activate it again",
    CloseCode.REVOKED: "this device was revoked or replaced: activate it again",
    CloseCode.SUPERSEDED: "another program connected with the same credentials and took over",
    CloseCode.TOO_MANY_MESSAGES: "the server had too many messages from this device: is this program up to date?",
}


def may_reconnect(close_code: int) -> bool:
    """Whether a client should come back after this close code; unknown codes say yes, except 4100 to 4199."""
    return close_code not in _STOP_CODES and close_code not in _STOP_RANGE


def why_lost(error: OSError | WebSocketException) -> str:
    """A line for people about a loss that a new try may mend; raises ConnectionStopped when none will."""
    match error:
        case ConnectionClosed():
            close = error.rcvd or error.sent  # the latter is our own verdict, such as a frame too large
            if close is None:
                return "the connection was lost"
            if not may_reconnect(close.code):
                text = _STOP_TEXTS.get(close.code, close.reason or "the connection was ended for good")
                raise ConnectionStopped(close.code, text) from error
            return f"the connection was closed ({close.reason or close.code})"
        case InvalidStatus():
            status = error.response.status_code
            if 400 <= status < 500 and status not in _RETRY_STATUSES:
                raise ConnectionStopped(None, f"the server answered HTTP {status}: is the URL right?") from error
            return f"the server answered HTTP {status}"
        case TimeoutError():
            return "the server does not answer"
        case _:  # a captive portal can fail in any way that a wrong address can, so these are tried again too
            return f"cannot reach the server: {_reason(error)}"


def retry_after_s(error: OSError | WebSocketException) -> int:
    """How long an HTTP answer asks to wait (`Retry-After` in seconds, RFC 9110 section 10.2.3); 0 if it does not."""
    value = error.response.headers.get("Retry-After", "") if isinstance(error, InvalidStatus) else ""
    return int(value) if value.isascii() and value.isdigit() and len(value) < _RETRY_AFTER_DIGITS_MAX else 0


def _reason(error: Exception) -> str:
    """The system's words for an error number; asyncio's own texts repeat addresses."""
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number is not None and number in errno.errorcode else str(error)
