"""The process around the application: listening socket, uvicorn, and an end in the right order."""

import asyncio
import gc
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import Any, cast

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import CloseCode as StandardCloseCode
from websockets.frames import Frame, Opcode, apply_mask  # type: ignore[attr-defined] # the one in C, where there is one
from websockets.http11 import Request
from websockets.protocol import State

from .app import PosApp, open_app
from .core.credentials.device_keys import Keyring
from .core.errors import CloseCode, PosError
from .delivery.connections import SEND_NOW
from .gateway.device import FAILURE, LISTEN, REFUSED_FRAME_CODE
from .gateway.frames import CONTROL_BYTES_MAX, FINAL_PONG, FINAL_TEXT, UNKNOWN, split, text_frame
from .settings import Settings

_OPEN = State.OPEN  # as in core/payments/payment.py
_BACKLOG = 2048
_WRITE_BUFFER_BYTES_MAX = 16 * 1024
# Messages of one connection that may wait for the application before its socket is left alone.
_READ_AHEAD_MESSAGES_MAX = 16
# Python's are 700, 10, 10: objects made and not freed, runs over the young ones, runs over the middle ones.
_GARBAGE_THRESHOLDS = (50_000, 20, 10)
_HEADERS_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class ListenError(PosError):
    """The address cannot be listened on; the text says which and why."""


class RunningServer:
    """A server that accepts connections at `url`."""

    def __init__(self, url: str, stop_wanted: asyncio.Event) -> None:
        self.url = url
        self._stop_wanted = stop_wanted

    async def stop_wanted(self) -> None:
        """Wait for SIGTERM or SIGINT."""
        await self._stop_wanted.wait()


class _Uvicorn(uvicorn.Server):
    """Leaves signals to us, and drains the application before it closes sockets."""

    def __init__(self, config: uvicorn.Config, app: PosApp) -> None:
        super().__init__(config)
        self._app = app

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._app.drain()
        await super().shutdown(sockets)


class _HttpProtocol(H11Protocol):
    """uvicorn's HTTP with an end for peers that begin a request, or only a connection, and do not go on."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._set_deadline()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        upgraded = self.transport.get_protocol() is not self
        if upgraded or self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._clear_deadline()
        elif self._deadline is None:
            self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._clear_deadline()
        super().connection_lost(exc)

    def _set_deadline(self) -> None:
        self._deadline = self.loop.call_later(self.config.timeout_keep_alive, self.transport.close)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _Received:
    """What has come in and waits for the application: the part of asyncio.Queue that uvicorn uses.

    A queue of asyncio's own takes 3 KiB, most of it for waiting writers and joiners that there are none of here.
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


class _WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket with a smaller write buffer, and a last word to peers that do not read or do not answer.

    Once the connection is open it forgets the request that opened it: ten thousand idle ones would each keep 5 KiB.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.queue: _Received = _Received()  # type: ignore[assignment]
        self._state: dict[str, Any] = {}
        self._hear: Callable[[str], Exception | None] | None = None
        # After how many bytes a frame begins. Not known before the handshake, nor after what `split` does not know.
        self._until_frame = UNKNOWN

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES_MAX)

    def data_received(self, data: bytes) -> None:
        pieces, self._until_frame = split(data, self._until_frame)
        for start, piece in pieces:
            if not start or not self._took(piece, start):
                self._leave_to_websockets(piece)

    def _took(self, frame: bytes, start: int) -> bool:
        """Act on a frame with its payload at `start`, if it is one of the usual ones."""
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
            # A text that is no UTF-8 and a close came in one read: uvicorn wants to close what is closing already.
            self.scope["state"][REFUSED_FRAME_CODE] = StandardCloseCode.INVALID_DATA.value
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            # Headers that h11 reads and websockets does not: uvicorn would neither answer nor ever close.
            self.transport.write(_HEADERS_TOO_LARGE)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # What refers to itself: without it, a connection that has ended is freed at once.
        self.conn.parser.close()
        self._state.pop(SEND_NOW, None)
        self._state.pop(LISTEN, None)
        self._hear = None

    async def send(self, message: ASGISendEvent) -> None:
        if self.close_sent:
            # uvicorn has closed by itself meanwhile (a bad frame): to the application the peer is gone, not a fault.
            raise ClientDisconnected
        if message["type"] == "websocket.close":
            # Waiting until the peer reads would be for ever; the close frame is small and goes into the buffer.
            self.writable.set()
        await super().send(message)
        if message["type"] == "websocket.accept":
            del self.request, self.response
            # In place: the application's view of the headers is the same list.
            cast("list[object]", self.scope["headers"]).clear()

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            self._state = self.scope["state"]
            self._state[SEND_NOW] = self.send_now
            self._state[LISTEN] = self.listen
            self._until_frame = 0

    def send_now(self, text: str) -> bool:
        """Send a text without waiting; False when the peer does not take any now, or the connection is at its end."""
        if not self.writable.is_set() or self.disconnected or not self._is_open():
            return False
        self.transport.write(text_frame(text.encode()))
        return True

    def listen(self, hear: Callable[[str], Exception | None]) -> None:
        """Give texts to `hear` as they come in, once the application has received what came before."""
        self._hear = hear

    def _takes_texts(self) -> bool:
        return self._hear is not None and not self.queue and self._is_open()

    def _is_open(self) -> bool:
        # A close of the peer's has been answered, though not by uvicorn, when only `conn` knows of it.
        return not self.close_sent and self.conn.state is _OPEN

    def _give(self, text: str) -> None:
        failure = self._hear(text) if self._hear is not None else None
        if failure is not None:
            self._hear = None
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
        # uvicorn stops reading the socket after each message until the application has it: two system calls each.
        if self.read_paused or len(self.queue) >= _READ_AHEAD_MESSAGES_MAX:
            super().send_receive_event_to_app()
            return
        self.read_paused = True  # as uvicorn sees it
        super().send_receive_event_to_app()
        self.read_paused = False

    def handle_parser_exception(self) -> None:
        if not self.close_sent and self.conn.close_sent is not None:
            self.scope["state"][REFUSED_FRAME_CODE] = self.conn.close_sent.code
        super().handle_parser_exception()

    def keepalive_timeout(self) -> None:
        if not self.close_sent and not self.transport.is_closing():
            self.conn.send_close(CloseCode.HEARTBEAT_LOST, "no pong in time")
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
            self.transport.close()


def listen(settings: Settings) -> socket.socket:
    """A listening TCP socket; port 0 takes a free one. Raises ListenError.

    Its options pass to the connections it accepts: a bounded send buffer, and an end for peers that acknowledge nothing
    (TCP_USER_TIMEOUT, RFC 5482), which no WebSocket ping can notice while the buffer is full.
    """
    host, port = settings.host, settings.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.socket_send_buffer_bytes)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux has it
            timeout_ms = int(settings.tcp_user_timeout_s * 1000)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        raise ListenError(
            f"cannot listen on {host} port {port}: {error.strerror or error}. Choose another with --port or --host."
        ) from None
    return listener


def uvicorn_config(asgi: ASGIApp, settings: Settings) -> uvicorn.Config:
    """How uvicorn serves `asgi`: everything below the application, for the conformance tests too."""
    return uvicorn.Config(
        asgi,
        http=_HttpProtocol,
        # For the whole of a request, too.
        timeout_keep_alive=settings.authentication_timeout_s,
        ws=_WebSocketProtocol,
        ws_per_message_deflate=False,
        ws_max_size=settings.frame_bytes_max,
        ws_ping_interval=settings.heartbeat_s,
        ws_ping_timeout=settings.heartbeat_timeout_s,
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        # Behind a proxy a device's address is what the proxy says; of nobody else is it believed.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=int(settings.drain_timeout_s),
    )


@contextmanager
def _garbage_looked_for_less_often() -> Iterator[None]:
    """Python's search for reference cycles stops everything meanwhile: 0.7 s with 12,000 connections.

    What a payment leaves behind, and what a connection does, has no cycles and is freed at once. So it is looked for
    only after many more objects were made than freed; and never among what is there from the start.
    """
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GARBAGE_THRESHOLDS)
    try:
        yield
    finally:
        # Or the interpreter could not free at its end what is there: libraries in C complain of that on stderr.
        gc.unfreeze()
        gc.set_threshold(*thresholds)


@asynccontextmanager
async def serving(settings: Settings, keyring: Keyring, dsn: str) -> AsyncIterator[RunningServer]:
    """Serve until the block is left; leaving it drains. SIGTERM and SIGINT only set `stop_wanted`."""
    listener = listen(settings)
    async with open_app(settings, keyring, dsn) as app:
        with _garbage_looked_for_less_often():
            server = _Uvicorn(uvicorn_config(app.asgi, settings), app)
            stop_wanted = asyncio.Event()
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stop_wanted.set)
            task = asyncio.create_task(server.serve(sockets=[listener]), name="uvicorn")
            try:
                while not server.started:
                    await asyncio.sleep(0.001)
                    if task.done():
                        await task
                        raise ListenError("the server ended before it served; its log says why")
                host, port = listener.getsockname()[:2]
                yield RunningServer(f"http://{f'[{host}]' if ':' in host else host}:{port}", stop_wanted)
            finally:
                server.should_exit = True
                await task
