"""The process around the application: the listening socket, uvicorn, and an orderly shutdown."""

import asyncio
import gc
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus

import h11
import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from .app import PosApp, open_app
from .core.credentials.device_keys import Keyring
from .core.errors import PosError
from .gateway.websocket_protocol import WebSocketProtocol
from .settings import Settings

log = structlog.get_logger(__name__)

_BACKLOG = 2048
_LATECOMERS_CHECK_S = 0.1
# Length of a request's line and headers, to within a piece.
_HEAD_BYTES_MAX = 16 * 1024
_PIECE_BYTES = 4 * 1024
# Python's defaults are 700, 10, 10: net allocations, then collections of generation 0 and of generation 1.
_GARBAGE_THRESHOLDS = (50_000, 20, 10)


class ListenError(PosError):
    """The server cannot listen on its address; the text has the address and the reason."""


class ServerFailed(PosError):
    """The HTTP server stopped by itself, because of a fault. What was accepted has been answered."""

    def __str__(self) -> str:
        return "the HTTP server failed. Accepted requests were finished. Its log has the reason. Start it again"


class RunningServer:
    """A server that accepts connections at `url`."""

    def __init__(self, url: str, stop_wanted: asyncio.Event) -> None:
        self.url = url
        self._stop_wanted = stop_wanted

    async def stop_wanted(self) -> None:
        """Wait for SIGTERM, SIGINT, or a failure of the HTTP server."""
        await self._stop_wanted.wait()


class _Uvicorn(uvicorn.Server):
    """uvicorn without signal handlers; it drains the application before it closes sockets."""

    def __init__(self, config: uvicorn.Config, app: PosApp) -> None:
        super().__init__(config)
        self._app = app
        self.failure: Exception | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        try:
            await super().main_loop()
        except Exception as failure:
            # Not started again: uvicorn's state is unknown. It drains and shuts down, as after a signal.
            log.exception("task_failed", task="uvicorn")
            self.failure = failure

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._app.drain()
        latecomers = asyncio.create_task(self._shut_latecomers(), name="latecomers")
        try:
            await super().shutdown(sockets)
        finally:
            latecomers.cancel()
            (ended,) = await asyncio.gather(latecomers, return_exceptions=True)
            if isinstance(ended, Exception):
                log.error("task_failed", task="latecomers", exc_info=ended)

    async def _shut_latecomers(self) -> None:
        """Shut connections that uvicorn has accepted but not seen, because it lists them once."""
        while True:
            await asyncio.sleep(_LATECOMERS_CHECK_S)
            for connection in list(self.server_state.connections):
                if not connection.transport.is_closing():
                    connection.shutdown()


class _HttpProtocol(H11Protocol):
    """uvicorn's HTTP protocol with a deadline for each request, so that idle and slow peers are disconnected."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._set_deadline()

    def data_received(self, data: bytes) -> None:
        # In pieces, because h11 checks the length of a request's head only while the head is incomplete.
        for start in range(0, len(data), _PIECE_BYTES):
            if self.transport.is_closing() or self.transport.get_protocol() is not self:
                break
            super().data_received(data[start : start + _PIECE_BYTES])
        upgraded = self.transport.get_protocol() is not self
        if upgraded or self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._clear_deadline()
        elif self._deadline is None:
            self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._clear_deadline()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close the connection; called when the application has drained. A request that has half arrived gets 503."""
        has_half_arrived = bool(self.conn.trailing_data[0]) if self.cycle is None else self.cycle.more_body
        if not has_half_arrived or (self.cycle is not None and self.cycle.response_started):
            super().shutdown()
            return
        if self.cycle is not None:  # to the application, the peer is gone
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        text = b"the server is restarting\n"
        headers = [("Content-Length", str(len(text))), ("Retry-After", "1"), ("Connection", "close")]
        response = h11.Response(status_code=HTTPStatus.SERVICE_UNAVAILABLE, headers=headers)
        for event in (response, h11.Data(data=text), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self.transport.close()

    def _set_deadline(self) -> None:
        self._deadline = self.loop.call_later(self.config.timeout_keep_alive, self.transport.close)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def listen(settings: Settings) -> socket.socket:
    """Return a listening TCP socket; port 0 selects a free port. Raises ListenError.

    Accepted connections inherit its options: a bounded send buffer, and a timeout for peers that stop acknowledging
    (TCP_USER_TIMEOUT, RFC 5482). WebSocket pings cannot detect such peers while the send buffer is full.
    """
    host, port = settings.host, settings.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.socket_send_buffer_bytes)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux only
            timeout_ms = int(settings.tcp_user_timeout_s * 1000)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        raise ListenError(
            f"cannot listen on {host} port {port}: {error.strerror or error}. Choose another one with --port or --host."
        ) from None
    return listener


def uvicorn_config(asgi: ASGIApp, settings: Settings) -> uvicorn.Config:
    """Return the configuration of uvicorn for `asgi`. The conformance tests use it too."""
    return uvicorn.Config(
        asgi,
        http=_HttpProtocol,
        # Also the deadline of a request, see _HttpProtocol.
        timeout_keep_alive=settings.authentication_timeout_s,
        ws=WebSocketProtocol,
        ws_per_message_deflate=False,
        ws_max_size=settings.frame_bytes_max,
        ws_ping_interval=settings.heartbeat_s,
        ws_ping_timeout=settings.heartbeat_timeout_s,
        h11_max_incomplete_event_size=_HEAD_BYTES_MAX,
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        # X-Forwarded-For is trusted from these proxies only.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=int(settings.drain_timeout_s),
    )


@contextmanager
def rare_garbage_collection() -> Iterator[None]:
    """Collect garbage rarely, because a full collection with 12,000 connections pauses the process for 0.7 s.

    Payments and connections create no reference cycles, so reference counting frees their objects at once. Objects
    that exist at the start are never scanned.
    """
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GARBAGE_THRESHOLDS)
    try:
        yield
    finally:
        # The interpreter must be able to free these objects at exit; otherwise C libraries print warnings.
        gc.unfreeze()
        gc.set_threshold(*thresholds)


@asynccontextmanager
async def serving(settings: Settings, keyring: Keyring, dsn: str) -> AsyncIterator[RunningServer]:
    """Serve until the block ends, then drain. SIGTERM and SIGINT only set `stop_wanted`, and so does a failure.

    Raises ListenError, and ServerFailed at the end of the block.
    """
    listener = listen(settings)
    async with open_app(settings, keyring, dsn) as app:
        server = _Uvicorn(uvicorn_config(app.asgi, settings), app)
        stop_wanted = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop_wanted.set)
        task = asyncio.create_task(server.serve(sockets=[listener]), name="uvicorn")
        task.add_done_callback(lambda _: stop_wanted.set())
        try:
            while not server.started:
                await asyncio.sleep(0.001)
                if task.done():
                    await task
                    raise ListenError("the server stopped during its start. See its log for the reason")
            host, port = listener.getsockname()[:2]
            yield RunningServer(f"http://{f'[{host}]' if ':' in host else host}:{port}", stop_wanted)
        finally:
            server.should_exit = True
            await task
            if server.failure is not None:
                raise ServerFailed from server.failure
