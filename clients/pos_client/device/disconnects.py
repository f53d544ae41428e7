"""Classify the loss of a connection: a text for people, and whether to reconnect."""

import errno
import os

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from pos_server.core.errors import CloseCode

from ..errors import ConnectionStopped

# After these codes of RFC 6455 section 7.4.1 a reconnect would end the same way: protocol error, unacceptable data,
# inconsistent data, policy violation, message too big, missing extension.
_STOP_CODES = {1002, 1003, 1007, 1008, 1009, 1010}
_STOP_RANGE = range(4100, 4200)
_RETRY_AFTER_DIGITS_MAX = 10
_RETRY_STATUSES = {408, 425, 429}
_STOP_TEXTS: dict[int, str] = {
    CloseCode.UNAUTHORIZED: "the server rejected this device: it was revoked or replaced, activate it again",
    CloseCode.REVOKED: "this device was revoked or replaced: activate it again",
    CloseCode.SUPERSEDED: "another program connected with the same credentials and took over",
    CloseCode.TOO_MANY_MESSAGES: "this device sent too many messages: update this program",
}


def may_reconnect(close_code: int) -> bool:
    """Return whether to reconnect after this close code. Unknown codes allow it, except 4100 to 4199."""
    return close_code not in _STOP_CODES and close_code not in _STOP_RANGE


def describe_loss(error: OSError | WebSocketException) -> str:
    """Return one line for people about a loss that a reconnect may fix. Raises ConnectionStopped if none can."""
    match error:
        case ConnectionClosed():
            close = error.rcvd or error.sent  # this client closes too, such as for a frame that is too large
            if close is None:
                return "the connection was lost"
            if not may_reconnect(close.code):
                text = _STOP_TEXTS.get(close.code, close.reason or "the server closed the connection permanently")
                raise ConnectionStopped(close.code, text) from error
            return f"the connection was closed ({close.reason or close.code})"
        case InvalidStatus():
            status = error.response.status_code
            if 400 <= status < 500 and status not in _RETRY_STATUSES:
                raise ConnectionStopped(None, f"the server returned HTTP {status}: check its URL") from error
            return f"the server returned HTTP {status}"
        case TimeoutError():
            return "the server does not answer"
        case _:  # a captive portal fails like a wrong address, so both are retried
            return f"cannot reach the server: {_reason(error)}"


def retry_after_s(error: OSError | WebSocketException) -> int:
    """Return the `Retry-After` of an HTTP response in seconds (RFC 9110 section 10.2.3), 0 without one."""
    value = error.response.headers.get("Retry-After", "") if isinstance(error, InvalidStatus) else ""
    return int(value) if value.isascii() and value.isdigit() and len(value) < _RETRY_AFTER_DIGITS_MAX else 0


def _reason(error: Exception) -> str:
    """Return the system's text for an error number, since asyncio's texts repeat addresses."""
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number is not None and number in errno.errorcode else str(error)
