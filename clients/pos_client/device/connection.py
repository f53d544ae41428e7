"""A device's WebSocket session: connect, authenticate, listen, and come back when it is lost.

    connecting ── hello, authenticate, ready ──► online ── lost ──► waiting ──► connecting …
        └──────────── a close code that says stop, or a server that is none ────────────► stopped

It waits for a full-jitter backoff, and as long as the server asked for. Both clients are built on it; what
differs between a till and a wallet is in terminal.py and wallet.py.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Self, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

from pos_server.core.credentials.device_keys import DeviceKind, authentication_mac
from pos_server.core.protocol.client_messages import Authenticate
from pos_server.core.protocol.codec import encode
from pos_server.core.protocol.server_messages import (
    SUBPROTOCOL,
    ConfirmationRequired,
    Draining,
    Error,
    Hello,
    HistoryPage,
    PaymentList,
    PaymentPending,
    PinChanged,
    ShiftReport,
    StatusChanged,
    TerminalPaymentResult,
    TerminalReady,
    TerminalRefundResult,
    WalletPaymentResult,
    WalletReady,
    WalletRefundResult,
)

from ..errors import ConnectionStopped, CredentialsError
from .backoff import Backoff
from .credentials import Credentials
from .disconnects import may_reconnect as may_reconnect
from .disconnects import retry_after_s, why_lost
from .heartbeat import AudibleConnection, ended_by_silence
from .resume import Resume

FRAME_BYTES_MAX = 64 * 1024
CONNECT_TIMEOUT_S = 10.0
AUTHENTICATE_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 1.0
STABLE_AFTER_S = 10.0
"""A session that was online this long starts the backoff anew when it is lost."""
RETRY_AFTER_S_MAX = 120
"""A longer `Retry-After` of an HTTP answer is not honoured."""
DRAIN_SPREAD_S_MIN = 1
DRAIN_SPREAD_S_MAX = 120
"""Bounds of the `reconnect_within_s` that is honoured: no server makes its devices storm it, or stay away."""

_UNREADABLE = "the server sent a message that this client cannot read"

log = logging.getLogger("pos_client")
# At DEBUG, websockets logs whole frames, and those hold payment codes.
_websockets_log = logging.getLogger("pos_client.websockets")
_websockets_log.setLevel(logging.WARNING)

ReadyT = TypeVar("ReadyT", bound=TerminalReady | WalletReady)
# All that the server says to a device that is online, but for `draining`.
Said = (
    TerminalPaymentResult
    | PaymentPending
    | PaymentList
    | TerminalRefundResult
    | WalletPaymentResult
    | ConfirmationRequired
    | WalletRefundResult
    | ShiftReport
    | PinChanged
    | HistoryPage
    | StatusChanged
    | Error
)
SaidT = TypeVar("SaidT", bound=Said)


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


class DeviceClient(Generic[ReadyT, SaidT]):
    """The reconnecting session of one device. As an async context manager it lives in a task of its own.

    A subclass says what it does with messages (`_on_message`) and when the session comes online (`_on_online`), is
    lost or stops (`_on_offline`). These run in the event loop and must not block.
    """

    def __init__(
        self,
        credentials: Credentials,
        kind: DeviceKind,
        messages: TypeAdapter[Hello | ReadyT | SaidT | Draining],
        *,
        backoff: Backoff | None,
        resume: Resume | None = None,
        language: str = "en",
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
        self._resume = resume or Resume()
        self._language = language
        self._now_ms = now_ms
        self._link: asyncio.Future[Link[ReadyT]]
        self._task: asyncio.Task[None]
        self._online_at_s = math.inf
        self._drain_spread_s: int | None = None

    @property
    def may_have_missed(self) -> bool:
        """True once the server could not replay all that was missed (`ready.resumed`): do not rely on having heard it.

        Scans that are open are sent again and answered in any case.
        """
        return self._resume.may_have_missed

    def _on_message(self, message: SaidT) -> None:
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
        if self.stopped is None:  # the task was ended before it began
            self._stop(_closed())

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
            self._stop(_closed())
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
            least_s = 0
            try:
                await self._connect_once()
            except (OSError, WebSocketException) as error:  # TimeoutError is an OSError
                self.problem = why_lost(error)  # raises ConnectionStopped when that is final
                least_s = min(retry_after_s(error), RETRY_AFTER_S_MAX)
            log.info("not connected: %s", self.problem)
            if clock() - self._online_at_s >= STABLE_AFTER_S:
                attempt = 0
            # On top of what was asked for, the backoff: devices that were refused together do not come back in step.
            await self._backoff.sleep(least_s + self._reconnect_delay_s(attempt))
            attempt += 1

    def _reconnect_delay_s(self, attempt: int) -> float:
        spread_s, self._drain_spread_s = self._drain_spread_s, None
        if spread_s is None:
            return self._backoff.delay_s(attempt)
        return self._backoff.chance() * min(max(spread_s, DRAIN_SPREAD_S_MIN), DRAIN_SPREAD_S_MAX)

    async def _connect_once(self) -> None:
        """One WebSocket from its handshake to its loss, which it raises."""
        async with connect(
            self.credentials.websocket_url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            max_size=FRAME_BYTES_MAX,
            open_timeout=CONNECT_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            ping_interval=None,  # heartbeat.py says why
            create_connection=AudibleConnection,
            logger=_websockets_log,
        ) as socket:
            if socket.subprotocol != SUBPROTOCOL:
                raise ConnectionStopped(None, f"the server does not speak {SUBPROTOCOL}")
            async with asyncio.timeout(AUTHENTICATE_TIMEOUT_S):
                heartbeat_s, ready = await self._authenticate(socket)
            if not isinstance(socket, AudibleConnection):
                raise AssertionError("connect() made a connection of another class")
            async with ended_by_silence(socket, heartbeat_s):
                await self._listen(Link(ready, socket), socket)

    async def _listen(self, link: Link[ReadyT], socket: ClientConnection) -> None:
        """Be online until the connection is lost, which it raises."""
        clock = asyncio.get_running_loop().time
        self._resume.on_ready(link.ready.server_time_ms, resumed=link.ready.resumed)
        self._link.set_result(link)
        self._online_at_s = clock()
        self.problem = None
        self._on_online(link.ready)
        try:
            while True:
                message = await self._receive(socket)
                if isinstance(message, Draining):
                    self._drain_spread_s = message.reconnect_within_s
                elif isinstance(message, Said):
                    self._on_message(message)
        finally:
            self.problem = "the connection was lost"
            self._resume.on_lost(clock() - self._online_at_s)
            self._link = asyncio.get_running_loop().create_future()
            link.lost.set()
            self._on_offline()

    async def _authenticate(self, socket: ClientConnection) -> tuple[int, ReadyT]:
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
        authenticate = Authenticate(
            message_id="authenticate",
            id=me.number,
            slot=me.slot,
            kid=me.kid,
            mac=mac,
            since_ms=self._resume.since_ms,
            language=self._language,
        )
        await socket.send(encode(authenticate))
        ready = await self._receive(socket)
        if not isinstance(ready, TerminalReady | WalletReady):
            raise ConnectionStopped(None, "the server did not say ready")
        return hello.heartbeat_s, ready

    async def _receive(self, socket: ClientConnection) -> Hello | ReadyT | SaidT | Draining:
        """The next message of a type we know: a newer server may send others, which are skipped."""
        while True:
            frame = await socket.recv()
            try:
                return self._messages.validate_json(frame)
            except ValidationError as error:
                reason = error.errors(include_url=False, include_context=False, include_input=False)[0]["type"]
            if reason != "union_tag_invalid":
                raise ConnectionStopped(None, _UNREADABLE)


def _closed() -> ConnectionStopped:
    return ConnectionStopped(None, "this client was closed")
