"""A device's WebSocket session: connect, authenticate, listen, and come back when it is lost.

    connecting ── hello, authenticate, ready ──► online ── lost ──► waiting (backoff) ──► connecting …
        └──────────── a close code that says stop, or a server that is none ────────────► stopped

Both clients are built on it; what differs between a till and a wallet is in terminal.py and wallet.py.
"""

import asyncio
import errno
import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Self, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from pos_server.core.device_keys import DeviceKind, authentication_mac
from pos_server.core.errors import CloseCode
from pos_server.core.messages import (
    SUBPROTOCOL,
    Authenticate,
    Error,
    Hello,
    TerminalPaymentResult,
    TerminalReady,
    WalletPaymentResult,
    WalletReady,
    encode,
)

from .backoff import Backoff
from .credentials import Credentials
from .errors import ConnectionStopped, CredentialsError

FRAME_BYTES_MAX = 64 * 1024
CONNECT_TIMEOUT_S = 10.0
AUTHENTICATE_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 1.0
PING_INTERVAL_S = 15.0
PING_TIMEOUT_S = 10.0
STABLE_AFTER_S = 10.0
"""A session that was online this long starts the backoff anew when it is lost."""

_UNREADABLE = "the server sent a message that this client cannot read"
# RFC 6455 section 7.4.1: protocol error, unacceptable data, bad data, policy violation, too big, missing extension.
# The server would close for the same reason again.
_STOP_CODES = {1002, 1003, 1007, 1008, 1009, 1010}
_STOP_RANGE = range(4100, 4200)
_RETRY_STATUSES = {408, 425, 429}
_STOP_TEXTS: dict[int, str] = {
    CloseCode.UNAUTHORIZED: "the server does not accept this device: it was revoked or replaced, activate it again",
    CloseCode.SUPERSEDED: "another program connected with the same credentials and took over",
}

log = logging.getLogger("pos_client")
# At DEBUG, websockets logs whole frames, and those hold payment codes.
_websockets_log = logging.getLogger("pos_client.websockets")
_websockets_log.setLevel(logging.WARNING)

ReadyT = TypeVar("ReadyT", bound=TerminalReady | WalletReady)
ResultT = TypeVar("ResultT", bound=TerminalPaymentResult | WalletPaymentResult)


def may_reconnect(close_code: int) -> bool:
    """Whether a client should come back after this close code; unknown codes say yes, except 4100 to 4199."""
    return close_code not in _STOP_CODES and close_code not in _STOP_RANGE


def local_time_ms() -> int:
    """This machine's clock, in Unix milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Link(Generic[ReadyT]):
    """One authenticated WebSocket, from `ready` until it is lost."""

    ready: ReadyT
    _socket: ClientConnection
    lost: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, message: BaseModel) -> bool:
        """Send one message. False when the link is lost; True does not mean that the server has read it."""
        try:
            await self._socket.send(encode(message))
        except ConnectionClosed:
            await self.lost.wait()
            return False
        return True


class DeviceClient(Generic[ReadyT, ResultT]):
    """The reconnecting session of one device. As an async context manager it lives in a task of its own.

    A subclass says what it does with messages (`_on_message`) and when the session comes online (`_on_online`), is
    lost or stops (`_on_offline`). These run in the event loop and must not block.
    """

    def __init__(
        self,
        credentials: Credentials,
        kind: DeviceKind,
        messages: TypeAdapter[Hello | ReadyT | ResultT | Error],
        *,
        backoff: Backoff | None,
        now_ms: Callable[[], int] = local_time_ms,
    ) -> None:
        if credentials.kind is not kind:
            raise CredentialsError(f"these credentials are of a {credentials.kind.value}, not of a {kind.value}")
        self.credentials = credentials
        self.clock_offset_ms = 0
        """Server time less local time, as of the last `hello`; 0 before the first, or what a wallet remembers."""
        self.problem: str | None = "not connected yet"
        """Why it is not online, for people; None while it is."""
        self.stopped: ConnectionStopped | None = None
        """Why it will not come back, once that is so."""
        self._messages = messages
        self._backoff = backoff or Backoff()
        self._now_ms = now_ms
        self._link: asyncio.Future[Link[ReadyT]]
        self._task: asyncio.Task[None]
        self._online_at_s = math.inf

    def _on_message(self, message: ResultT | Error) -> None:
        raise NotImplementedError

    def _on_online(self, ready: ReadyT) -> None: ...

    def _on_offline(self) -> None: ...

    async def __aenter__(self) -> Self:
        self._link = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(), name="pos-connection")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def ready(self) -> ReadyT:
        """Wait until the server knows this device; returns what the server then said about it.

        Waits as long as the server is away. Raises ConnectionStopped.
        """
        return (await self._online()).ready

    async def _online(self) -> Link[ReadyT]:
        return await asyncio.shield(self._link)

    async def _run(self) -> None:
        try:
            await self._keep_connected()
        except ConnectionStopped as error:
            self._stop(error)
        except asyncio.CancelledError:
            self._stop(ConnectionStopped(None, "this client was closed"))
            raise
        except Exception:  # a fault of ours: whoever waits for an answer must not wait for ever
            log.exception("the connection failed unexpectedly")
            self._stop(ConnectionStopped(None, "the client failed unexpectedly; the log says how"))

    def _stop(self, error: ConnectionStopped) -> None:
        self.stopped = error
        self.problem = str(error)
        if self._link.done():
            self._link = asyncio.get_running_loop().create_future()
        self._link.set_exception(error)
        self._link.exception()  # nobody may be waiting: that is no "exception was never retrieved"
        self._on_offline()

    async def _keep_connected(self) -> None:
        attempt = 0
        clock = asyncio.get_running_loop().time
        while True:
            self._online_at_s = math.inf
            try:
                await self._connect_once()
            except (OSError, WebSocketException) as error:  # TimeoutError is an OSError
                self.problem = _why_lost(error)  # raises ConnectionStopped when that is final
            log.info("not connected: %s", self.problem)
            if clock() - self._online_at_s >= STABLE_AFTER_S:
                attempt = 0
            await self._backoff.sleep(self._backoff.delay_s(attempt))
            attempt += 1

    async def _connect_once(self) -> None:
        """One WebSocket from its handshake to its loss, which it raises."""
        async with connect(
            self.credentials.websocket_url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            max_size=FRAME_BYTES_MAX,
            open_timeout=CONNECT_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            ping_interval=PING_INTERVAL_S,
            ping_timeout=PING_TIMEOUT_S,
            logger=_websockets_log,
        ) as socket:
            if socket.subprotocol != SUBPROTOCOL:
                raise ConnectionStopped(None, f"the server does not speak {SUBPROTOCOL}")
            async with asyncio.timeout(AUTHENTICATE_TIMEOUT_S):
                link = Link(await self._authenticate(socket), socket)
            self._link.set_result(link)
            self._online_at_s = asyncio.get_running_loop().time()
            self.problem = None
            self._on_online(link.ready)
            try:
                while True:
                    message = await self._receive(socket)
                    if isinstance(message, TerminalPaymentResult | WalletPaymentResult | Error):
                        self._on_message(message)
            finally:
                self.problem = "the connection was lost"
                self._link = asyncio.get_running_loop().create_future()
                link.lost.set()
                self._on_offline()

    async def _authenticate(self, socket: ClientConnection) -> ReadyT:
        hello = await self._receive(socket)
        if not isinstance(hello, Hello):
            raise ConnectionStopped(None, "the server did not say hello")
        self.clock_offset_ms = hello.server_time_ms - self._now_ms()
        me = self.credentials
        try:
            nonce = bytes.fromhex(hello.nonce)
        except ValueError:
            raise ConnectionStopped(None, _UNREADABLE) from None
        mac = authentication_mac(me.device_key, nonce, me.number).hex()
        authenticate = Authenticate(message_id="authenticate", id=me.number, slot=me.slot, kid=me.kid, mac=mac)
        await socket.send(encode(authenticate))
        ready = await self._receive(socket)
        if not isinstance(ready, TerminalReady | WalletReady):
            raise ConnectionStopped(None, "the server did not say ready")
        return ready

    async def _receive(self, socket: ClientConnection) -> Hello | ReadyT | ResultT | Error:
        """The next message of a type we know: a newer server may send others, which are skipped."""
        while True:
            frame = await socket.recv()
            try:
                return self._messages.validate_json(frame)
            except ValidationError as error:
                reason = error.errors(include_url=False, include_context=False, include_input=False)[0]["type"]
            if reason != "union_tag_invalid":
                raise ConnectionStopped(None, _UNREADABLE)


def _why_lost(error: OSError | WebSocketException) -> str:
    """A line for people about a loss that a new try may mend; raises ConnectionStopped when none will."""
    match error:
        case ConnectionClosed():
            close = error.rcvd or error.sent  # the latter is our own verdict: a frame too large, no answer to a ping
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


def _reason(error: Exception) -> str:
    """The system's words for an error number; asyncio's own texts repeat addresses."""
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number is not None and number in errno.errorcode else str(error)
