"""A connection's life, without the connection: frames go in, what to do comes out.

    HELLO ── authenticate ──► READY ── anything final ──► CLOSED
      └──────────── timeout, bad credentials ──────────────┘

In HELLO only `authenticate` is allowed, in READY anything but it. What breaks that raises ConnectionClosing. Bad
messages (MessageError) leave the state alone.
"""

from enum import Enum, auto

from .device_keys import DeviceKind
from .errors import CloseCode, ConnectionClosing, ErrorCode, MessageError
from .messages import Authenticate, PaymentScan, decode_client_message


class State(Enum):
    HELLO = auto()
    READY = auto()
    CLOSED = auto()


class Session:
    """One per connection, fed with its frames."""

    def __init__(self, kind: DeviceKind) -> None:
        self.kind = kind
        self.state = State.HELLO

    def receive(self, text: str) -> Authenticate | PaymentScan:
        """The message in a frame, if this connection may send it now. Raises MessageError or ConnectionClosing."""
        message = self._decode(text)
        if isinstance(message, Authenticate):
            if self.state is not State.HELLO:
                self._close(CloseCode.ALREADY_AUTHENTICATED, "authenticate may be sent only once")
            return message
        if self.state is not State.READY:
            self._close(CloseCode.NOT_AUTHENTICATED, "authenticate first")
        if self.kind is not DeviceKind.TERMINAL:
            raise MessageError(
                ErrorCode.UNKNOWN_TYPE, "wallets do not send this type", field="type", reply_to=message.message_id
            )
        return message

    def authenticated(self) -> None:
        """The device has proved who it is."""
        if self.state is not State.HELLO:
            raise AssertionError(f"authenticated in state {self.state}")
        self.state = State.READY

    def _decode(self, text: str) -> Authenticate | PaymentScan:
        try:
            return decode_client_message(text)
        except ConnectionClosing:
            self.state = State.CLOSED
            raise
        except MessageError as error:
            if self.state is State.HELLO:
                self._close(CloseCode.NOT_AUTHENTICATED, f"authenticate first ({error.code} in {error.field})")
            raise

    def _close(self, code: CloseCode, reason: str) -> None:
        self.state = State.CLOSED
        raise ConnectionClosing(code, reason)
