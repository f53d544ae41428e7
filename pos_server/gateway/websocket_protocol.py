"""The WebSocket protocol under the endpoints: uvicorn's, with a short path for the frames that nearly all traffic is.

uvicorn drives `websockets` without I/O of its own. This subclass takes short, whole text frames past it (frames.py),
sends without a task, and closes connections whose peer does not read or does not answer. It relies on internals of
uvicorn and websockets: both are capped at the minor version that the tests ran with.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import CloseCode as StandardCloseCode
from websockets.frames import Frame, Opcode, apply_mask  # type: ignore[attr-defined] # the one in C, where there is one
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from ..core.errors import CloseCode
from .direct_socket import FAILURE, attach, detach
from .frames import CONTROL_BYTES_MAX, FINAL_PONG, FINAL_TEXT, UNKNOWN, split, text_frame

_OPEN = State.OPEN  # as in core/payments/payment.py
_WRITE_BUFFER_BYTES_MAX = 16 * 1024
# Messages of one connection that may wait for the application before its socket is left alone.
_READ_AHEAD_MESSAGES_MAX = 16
# A message may have this many fragments, or one for each of these bytes of its greatest length.
_FRAGMENTS_MAX = 64
_FRAGMENT_BYTES = 16
_HEADERS_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class _Received:
    """Events that wait for the application: the part of asyncio.Queue that uvicorn uses.

    A queue of asyncio takes 3 KiB, mostly for waiting writers and joiners, which do not exist here.
    """

    __slots__ = ("_events", "_waiting")

    def __init__(self) -> None:
        self._events: list[Any] = []
        self._waiting: asyncio.Future[None] | None = None

    def put_nowait(self, event: Any) -> None:
        self._events.append(event)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def empty(self) -> bool:
        return not self._events

    def __len__(self) -> int:
        return len(self._events)

    async def get(self) -> Any:
        while not self._events:
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        return self._events.pop(0)


def _unavailable(connection: ServerProtocol) -> Response:
    response = connection.reject(HTTPStatus.SERVICE_UNAVAILABLE, "the server is restarting\n")
    response.headers["Retry-After"] = "1"
    return response


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket with a smaller write buffer, and a close frame for peers that do not read or answer.

    Once the connection is open, the request that opened it is freed, which would take 5 KiB per idle connection.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.queue: _Received = _Received()  # type: ignore[assignment]
        self.refused_frame_code: int | None = None
        self._state: dict[str, Any] = {}
        self._receive: Callable[[str], Exception | None] | None = None
        # Bytes until the next frame begins. Unknown before the handshake, and after bytes that `split` does not know.
        self._until_frame = UNKNOWN

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES_MAX)

    def shutdown(self) -> None:
        """Close the connection; called when the application has drained. An open upgrade gets 503."""
        if self.handshake_complete or self.close_sent or not self.handshake_initiated:
            super().shutdown()
            return
        # From here on the peer is gone to the application: see `send`.
        self.close_sent = self.handshake_complete = True
        self.conn.send_response(_unavailable(self.conn))
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        pieces, self._until_frame = split(data, self._until_frame)
        for start, piece in pieces:
            if not start or not self._took(piece, start):
                self._leave_to_websockets(piece)

    def _took(self, frame: bytes, start: int) -> bool:
        """Handle a frame whose payload begins at `start`. Returns False if `websockets` has to handle it."""
        size = len(frame) - start
        if frame[0] == FINAL_TEXT and size <= self.config.ws_max_size and self._takes_texts():
            try:
                text = apply_mask(frame[start:], frame[start - 4 : start]).decode()
            except UnicodeDecodeError:
                return False  # websockets ends the connection
            self._give(text)
            return True
        if frame[0] == FINAL_PONG and size <= CONTROL_BYTES_MAX and self._is_open():
            self.handle_pong(Frame(Opcode.PONG, apply_mask(frame[start:], frame[start - 4 : start])))
            return True
        return False

    def _leave_to_websockets(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except InvalidState:
            # A text that is not UTF-8 and a close in one read: uvicorn closes a connection that is closing already.
            self.refused_frame_code = StandardCloseCode.INVALID_DATA.value
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            # h11 accepts these headers and websockets does not: uvicorn would neither answer nor close.
            self.transport.write(_HEADERS_TOO_LARGE)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # Without these reference cycles, a connection that has ended is freed at once.
        self.conn.parser.close()
        self._receive = None
        detach(self._state)

    async def send(self, message: ASGISendEvent) -> None:
        if self.close_sent:
            # uvicorn has closed the connection after a bad frame: to the application, the peer is gone.
            raise ClientDisconnected
        if message["type"] == "websocket.close":
            # Waiting until the peer reads could take forever; the close frame is small and goes into the buffer.
            self.writable.set()
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and self.close_sent:
            self.handshake_complete = True  # or uvicorn would log a denied upgrade as an error
        if message["type"] == "websocket.accept":
            del self.request, self.response
            # In place: the application's view of the headers is the same list.
            cast("list[object]", self.scope["headers"]).clear()

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            self._state = self.scope["state"]
            attach(self._state, self)
            self._until_frame = 0

    def send_now(self, text: str) -> bool:
        """Send a text without waiting. Returns False if the peer takes none now, or the connection is ending."""
        if not self.writable.is_set() or self.disconnected or not self._is_open():
            return False
        self.transport.write(text_frame(text.encode()))
        return True

    def listen(self, receive: Callable[[str], Exception | None]) -> None:
        """Give texts to `receive` as they arrive, once the application has received the earlier ones."""
        if not self.disconnected:  # else the cycle that `connection_lost` breaks would come back
            self._receive = receive

    def _takes_texts(self) -> bool:
        return self._receive is not None and not self.queue and self._is_open()

    def _is_open(self) -> bool:
        # If only `conn` is closed, websockets has answered a close of the peer without uvicorn.
        return not self.close_sent and self.conn.state is _OPEN

    def _give(self, text: str) -> None:
        failure = self._receive(text) if self._receive is not None else None
        if failure is not None:
            self._receive = None
            self.queue.put_nowait({"type": "websocket.receive", FAILURE: failure})

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and self._takes_texts():
            try:
                text = b"".join(self.frames).decode()
            except UnicodeDecodeError:
                pass  # uvicorn closes the connection with 1007
            else:
                self.frames = []
                self._give(text)
                return
        # uvicorn pauses reading after each message until the application has it, at two system calls each.
        if self.read_paused or len(self.queue) >= _READ_AHEAD_MESSAGES_MAX:
            super().send_receive_event_to_app()
            return
        self.read_paused = True  # only for uvicorn's bookkeeping
        super().send_receive_event_to_app()
        self.read_paused = False

    def handle_ping(self) -> None:
        pong = b"".join(self.conn.data_to_send())
        # A peer that does not read gets no pongs: they would pile up without a bound.
        if self.writable.is_set():
            self.transport.write(pong)

    def handle_cont(self, event: Frame) -> None:
        if self.close_sent:
            return
        # Empty fragments never reach the length of a message.
        if len(self.frames) >= max(_FRAGMENTS_MAX, self.config.ws_max_size // _FRAGMENT_BYTES):
            self.conn.fail(StandardCloseCode.MESSAGE_TOO_BIG, "too many fragments")
            self.handle_parser_exception()
            return
        super().handle_cont(event)

    def handle_parser_exception(self) -> None:
        if not self.close_sent and self.conn.close_sent is not None:
            self.refused_frame_code = self.conn.close_sent.code
        super().handle_parser_exception()

    def keepalive_timeout(self) -> None:
        if not self.close_sent and not self.transport.is_closing():
            self.conn.send_close(CloseCode.HEARTBEAT_LOST, "no pong in time")
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
            self.transport.close()
