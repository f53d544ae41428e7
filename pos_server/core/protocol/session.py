"""States of a connection, without I/O: frames go in, messages or errors come out.

    HELLO ── authenticate ──► READY ── any final error ──► CLOSED
      └──────────── timeout, bad credentials ───────────────┘

In HELLO only `authenticate` is allowed, in READY everything else. A violation raises ConnectionClosing. A bad message
(MessageError) does not change the state.
"""

from enum import Enum, auto
from typing import Final

from ..credentials.device_keys import DeviceKind
from ..errors import CloseCode, ConnectionClosing, ErrorCode, MessageError
from .client_messages import REQUESTS, Authenticate, Request
from .codec import decode_client_message

# Compared by type: isinstance with pydantic's models takes as long as decoding a message.
_REQUESTS = {kind: frozenset(requests) for kind, requests in REQUESTS.items()}


class State(Enum):
    HELLO = auto()
    READY = auto()
    CLOSED = auto()


_READY: Final = State.READY  # a global is found faster than an enum's attribute, see core/payments/payment.py


class Session:
    """The state of one connection."""

    def __init__(self, kind: DeviceKind) -> None:
        self.kind = kind
        self.state = State.HELLO
        self._closing: ConnectionClosing | None = None

    def receive(self, text: str) -> Authenticate | Request:
        """Return the message in a frame, if the device may send it now. Raises MessageError or ConnectionClosing."""
        if self._closing is not None:
            raise self._closing
        try:
            message = decode_client_message(text)
        except ConnectionClosing as closing:
            raise self.close(closing.code, closing.reason) from None
        except MessageError as error:
            if self.state is State.HELLO:
                raise self.close(
                    CloseCode.NOT_AUTHENTICATED, f"authenticate first ({error.code} in {error.field})"
                ) from None
            raise
        if type(message) is Authenticate:
            if self.state is not State.HELLO:
                raise self.close(CloseCode.ALREADY_AUTHENTICATED, "authenticate may be sent only once")
            return message
        if self.state is not _READY:
            raise self.close(CloseCode.NOT_AUTHENTICATED, "authenticate first")
        if type(message) not in _REQUESTS[self.kind]:
            raise MessageError(
                ErrorCode.UNKNOWN_TYPE, f"{self.kind}s do not send this type", field="type", reply_to=message.message_id
            )
        return message

    def authenticated(self) -> None:
        """Record that the device has proved its identity."""
        if self.state is not State.HELLO:
            raise AssertionError(f"authenticated in state {self.state}")
        self.state = State.READY

    def close(self, code: CloseCode, reason: str) -> ConnectionClosing:
        """End the session and return the exception to raise. If it has ended before, the first reason stays."""
        if self._closing is None:
            self.state = State.CLOSED
            self._closing = ConnectionClosing(code, reason)
        return self._closing
