"""A connection's life, without the connection: frames go in, what to do comes out.

    HELLO ── authenticate ──► READY ── anything final ──► CLOSED
      └──────────── timeout, bad credentials ──────────────┘

In HELLO only `authenticate` is allowed, in READY anything but it. What breaks that raises ConnectionClosing. Bad
messages (MessageError) leave the state alone.
"""

from enum import Enum, auto
from typing import Final, get_args

from ..credentials.device_keys import DeviceKind
from ..errors import CloseCode, ConnectionClosing, ErrorCode, MessageError
from .client_messages import (
    Authenticate,
    Request,
    TerminalRequest,
    WalletRequest,
)
from .codec import decode_client_message

# What each kind of device may send once it is READY. By type: to ask pydantic's models whether something is one of
# them takes as long as to read it.
_REQUESTS = {
    DeviceKind.TERMINAL: frozenset(get_args(TerminalRequest)),
    DeviceKind.WALLET: frozenset(get_args(WalletRequest)),
}


class State(Enum):
    HELLO = auto()
    READY = auto()
    CLOSED = auto()


_READY: Final = State.READY  # as in payments.py


class Session:
    """One per connection, fed with its frames."""

    def __init__(self, kind: DeviceKind) -> None:
        self.kind = kind
        self.state = State.HELLO
        self._closing: ConnectionClosing | None = None

    def receive(self, text: str) -> Authenticate | Request:
        """The message in a frame, if this connection may send it now. Raises MessageError or ConnectionClosing."""
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
        """The device has proved who it is."""
        if self.state is not State.HELLO:
            raise AssertionError(f"authenticated in state {self.state}")
        self.state = State.READY

    def close(self, code: CloseCode, reason: str) -> ConnectionClosing:
        """End the session, now or earlier; returns what to raise. The first reason counts."""
        if self._closing is None:
            self.state = State.CLOSED
            self._closing = ConnectionClosing(code, reason)
        return self._closing
