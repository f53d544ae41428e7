"""A WebSocket client over a blocking socket that can violate the protocol in every way."""

import json
import socket
import struct
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9
CONTINUATION = 0
TIMEOUT_S = 5
_NO_LINGER = struct.pack("ii", 1, 0)


def upgrade_request(path: str = "/v1/terminal", **headers: str | None) -> bytes:
    """Return a correct upgrade request with other `headers` (underscores become hyphens; None omits a header)."""
    lines: dict[str, str | None] = {
        "host": "127.0.0.1",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-version": "13",
        "sec-websocket-protocol": "pos.v1",
    }
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
    return f"GET {path} HTTP/1.1\r\n{text}\r\n".encode("latin-1")


def frame(
    opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0, masked: bool = True, declared: int | None = None
) -> bytes:
    """Return a frame (RFC 6455 section 5.2). `declared` overrides its length field."""
    length = len(payload) if declared is None else declared
    mask_bit = 0x80 if masked else 0
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if length < 126:
        head += bytes([mask_bit | length])
    elif length < 65536:
        head += bytes([mask_bit | 126]) + struct.pack("!H", length)
    else:
        head += bytes([mask_bit | 127]) + struct.pack("!Q", length)
    if not masked:
        return head + payload
    mask = b"\x11\x22\x33\x44"
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


class Wire:
    """A TCP connection to the server. A reset by the peer reads as the end of the stream."""

    def __init__(self, url: str, *, receive_buffer_bytes: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.settimeout(TIMEOUT_S)
        address = urlsplit(url)
        self.socket.connect((address.hostname, address.port))
        self._buffer = b""

    def send(self, data: bytes) -> None:
        with suppress(ConnectionError):
            self.socket.sendall(data)

    def read_head(self) -> bytes:
        """Return the response up to the empty line, or less if the connection ends earlier."""
        while b"\r\n\r\n" not in self._buffer and self._fill():
            pass
        head, separator, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head + separator

    def read_body(self, length: int) -> bytes:
        return self._take(length) or b""

    def read_frame(self) -> tuple[int, bytes] | None:
        """Return the opcode and payload of the next frame, or None at the end."""
        head = self._take(2)
        if head is None:
            return None
        length = head[1]
        if length >= 126:
            extended = self._take(2 if length == 126 else 8)
            if extended is None:
                return None
            length = int.from_bytes(extended, "big")
        payload = self._take(length)
        return None if payload is None else (head[0] & 0x0F, payload)

    def read_message(self) -> dict[str, Any] | None:
        """Return the next text message, or None at the end or at a close frame."""
        while (received := self.read_frame()) is not None and received[0] != CLOSE:
            if received[0] == TEXT:
                message: dict[str, Any] = json.loads(received[1])
                return message
        return None

    def close_code(self) -> int | None:
        """Read to the end and return the code of the close frame, or None without one."""
        while (received := self.read_frame()) is not None:
            if received[0] == CLOSE:
                return int.from_bytes(received[1][:2], "big")
        return None

    def read_to_end(self) -> None:
        """Read until the server closes the connection. Raises TimeoutError."""
        while self._fill():
            self._buffer = b""

    def finish_sending(self) -> None:
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close the connection with RST instead of FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.socket.close()

    def close(self) -> None:
        self.socket.close()

    def _take(self, count: int) -> bytes | None:
        while len(self._buffer) < count:
            if not self._fill():
                return None
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def _fill(self) -> bool:
        try:
            chunk = self.socket.recv(65536)
        except ConnectionError:
            return False
        self._buffer += chunk
        return bool(chunk)
