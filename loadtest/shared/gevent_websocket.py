"""A client WebSocket on a gevent socket: the sans-I/O protocol of `websockets`, fed by blocking reads.

It uses the least CPU of the four clients measured under locust's gevent
(`python -m loadtest.experiments.websocket_clients`): masking and UTF-8 run in C, there is no thread and queue per
connection as in `websockets.sync`, and texts stay bytes. `cut` drops the connection without a close frame, like a
failing Wi-Fi.
"""

import socket
import ssl
import struct
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

CONNECT_WITHIN_S = 10.0
MESSAGE_BYTES_MAX = 1024 * 1024
_READ_BYTES = 64 * 1024
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class Closed(Exception):
    """The connection has ended. `code` is the peer's close code, None without one."""

    def __init__(self, code: int | None) -> None:
        super().__init__("lost without a close frame" if code is None else f"closed with {code}")
        self.code = code


class WebSocket:
    """A connection with the subprotocol `pos.v1`. One greenlet receives; any may send."""

    def __init__(self, url: str) -> None:
        """Connect to a `ws://` or `wss://` URL. Raises Closed; OSError if the server is unreachable."""
        parts = urlsplit(url)
        is_secure = parts.scheme == "wss"
        address = (parts.hostname or "", parts.port or (443 if is_secure else 80))
        self._socket = socket.create_connection(address, CONNECT_WITHIN_S)
        self._protocol = ClientProtocol(
            parse_uri(url), subprotocols=[Subprotocol("pos.v1")], max_size=MESSAGE_BYTES_MAX
        )
        self._texts: list[bytes] = []
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if is_secure:
                self._socket = ssl.create_default_context().wrap_socket(self._socket, server_hostname=parts.hostname)
            self._protocol.send_request(self._protocol.connect())
            self._flush()
            while self._protocol.state is State.CONNECTING:
                self._read()
        except BaseException:
            self._socket.close()
            raise

    def lose_after(self, silence_s: float) -> None:
        """Treat the connection as lost after this long without any bytes, not even a ping."""
        self._socket.settimeout(silence_s)

    def send(self, text: bytes) -> None:
        """Send one text message. Raises Closed."""
        if self._protocol.state is not State.OPEN:
            raise Closed(self._protocol.close_rcvd.code if self._protocol.close_rcvd else None)
        self._protocol.send_text(text)
        self._flush()

    def receive(self) -> bytes:
        """Return the next text message, answering pings meanwhile. Raises Closed."""
        while not self._texts:
            self._read()
        return self._texts.pop(0)

    def close(self) -> None:
        """Send a close frame and close the socket without waiting for the answer."""
        try:
            if self._protocol.state is State.OPEN:
                self._protocol.send_close(1000)
                self._flush()
        except Closed:
            pass
        self._socket.close()

    def cut(self) -> None:
        """Close the socket without a close frame; what the server still sends is answered with a reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        self._socket.close()

    def _flush(self) -> None:
        data = b"".join(self._protocol.data_to_send())
        if data:
            try:
                self._socket.sendall(data)
            except OSError:
                raise Closed(None) from None

    def _read(self) -> None:
        try:
            data = self._socket.recv(_READ_BYTES)
        except OSError:
            data = b""
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                # The server never fragments a message.
                self._texts.append(bytes(event.data))
        if self._protocol.handshake_exc is not None:
            raise Closed(None) from self._protocol.handshake_exc
        if self._protocol.state is State.OPEN:
            self._flush()
        if not data or self._protocol.state in (State.CLOSING, State.CLOSED):
            received = self._protocol.close_rcvd
            self.close()
            if not self._texts:
                raise Closed(received.code if received else None)
