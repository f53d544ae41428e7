"""A device's WebSocket session: connect, authenticate, listen, and reconnect after a loss.

    connecting ── hello, authenticate, ready ──► online ── lost ──► waiting ──► connecting …
        └──────────── a close code that says stop, or not a pos-server ─────────────────► stopped

The wait is the server's `Retry-After` plus a full-jitter backoff, or a random part of the time that a draining server
sets. `terminal/client.py` and `wallet/client.py` subclass `DeviceClient`.
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
from pos_server.core.protocol.client_messages import Resume as ResumeRequest
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
    Replayed,
    ShiftReport,
    StatusChanged,
    TerminalPaymentResult,
    TerminalReady,
    TerminalRefundResult,
    WalletPaymentResult,
    WalletReady,
    WalletRefundResult,
)

from ..errors import ConnectionStopped, CredentialsError, RequestRefused, RequestUnanswered
from .backoff import Backoff
from .credentials import Credentials
from .disconnects import describe_loss, retry_after_s
from .heartbeat import ObservedConnection, silence_timeout
from .inbox import Inbox
from .requests import REQUEST_TIMEOUT_S, OpenRequest, Requests, build_request
from .resume import Resume

FRAME_BYTES_MAX = 64 * 1024
CONNECT_TIMEOUT_S = 10.0
AUTHENTICATE_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 1.0
STABLE_AFTER_S = 10.0
"""Losing a session that was online for at least this long resets the backoff."""
RETRY_AFTER_S_MAX = 120
"""Upper bound of the `Retry-After` of an HTTP response; a longer one is cut to this."""
DRAIN_SPREAD_S_MIN = 1
DRAIN_SPREAD_S_MAX = 120
"""Bounds of `reconnect_within_s`: devices neither all reconnect at once nor stay away."""
UNREAD_MAX = 500
"""Upper bound of the queue of unread results. Further ones stay at the server until there is room again."""
REPLAY_PAGE = 200
"""Results of a page of a replay. A page is requested when the queue has room for it."""

_UNREADABLE = "the server sent a message that this client cannot read: update the client"

log = logging.getLogger("pos_client")
# At DEBUG, websockets logs whole frames, which contain payment codes.
_websockets_log = logging.getLogger("pos_client.websockets")
_websockets_log.setLevel(logging.WARNING)

ReadyT = TypeVar("ReadyT", bound=TerminalReady | WalletReady)
UnreadT = TypeVar("UnreadT")
# All messages to an online device, except `draining`.
ServerMessage = (
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
MessageT = TypeVar("MessageT", bound=ServerMessage)


def local_time_ms() -> int:
    """Return this machine's time in Unix milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Link(Generic[ReadyT]):
    """One authenticated WebSocket, from `ready` until it is lost."""

    ready: ReadyT
    _socket: ClientConnection
    lost: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, message: BaseModel) -> bool:
        """Send one message. Return False when the link is lost; True does not mean that the server has read it."""
        try:
            await self._socket.send(encode(message))
        except ConnectionClosed:
            await self.lost.wait()
            return False
        return True


class DeviceClient(Generic[ReadyT, MessageT, UnreadT]):
    """The reconnecting session of one device. An async context manager that runs the session in its own task.

    Results that nobody waits for go to `_unread`. A subclass handles messages (`_on_message`), the start of a session
    (`_on_online`), and its loss or final stop (`_on_offline`). These methods run in the event loop and must not block.
    """

    def __init__(
        self,
        credentials: Credentials,
        kind: DeviceKind,
        messages: TypeAdapter[Hello | ReadyT | MessageT | Replayed | Draining],
        *,
        backoff: Backoff | None,
        resume: Resume | None = None,
        language: str = "en",
        now_ms: Callable[[], int] = local_time_ms,
    ) -> None:
        if credentials.kind is not kind:
            raise CredentialsError(f"these credentials belong to a {credentials.kind.value}, not to a {kind.value}")
        self.credentials = credentials
        self.clock_offset_ms = 0
        """Server time minus local time at the last `hello`. Before the first one: 0, or the offset a wallet stored."""
        self.problem: str | None = "not connected yet"
        """Reason for being offline, for people; None while online."""
        self.stopped: ConnectionStopped | None = None
        """Reason for the final stop; None while the client still reconnects."""
        self._messages = messages
        self._backoff = backoff or Backoff()
        self._resume = resume or Resume()
        self._language = language
        self._now_ms = now_ms
        self._requests = Requests(self._online, self._backoff, lambda: self.problem)
        self._unread: Inbox[UnreadT] = Inbox(UNREAD_MAX)
        self._falls_behind = asyncio.Event()
        self._link: asyncio.Future[Link[ReadyT]]
        self._task: asyncio.Task[None]
        self._online_at_s = math.inf
        self._drain_spread_s: int | None = None

    @property
    def may_have_missed(self) -> bool:
        """True once results may be missing, because an older server could not replay all of them.

        Open scans are not affected: they are resent and answered.
        """
        return self._resume.may_have_missed

    def _on_message(self, message: MessageT) -> None:
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
        if self.stopped is None:  # the task was canceled before it started
            self._stop(_closed())

    async def ready(self) -> ReadyT:
        """Wait until the device is online, however long the server is away, and return the server's `ready` message.

        Raises ConnectionStopped.
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
        except Exception:  # a bug in this client must end the waits of its callers too
            log.exception("the connection failed unexpectedly")
            self._stop(ConnectionStopped(None, "the client failed unexpectedly: see the log"))

    def _stop(self, error: ConnectionStopped) -> None:
        self.stopped = error
        self.problem = str(error)
        if self._link.done():
            self._link = asyncio.get_running_loop().create_future()
        self._link.set_exception(error)
        self._link.exception()  # mark it as retrieved: there may be no waiter
        self._on_offline()

    async def _keep_connected(self) -> None:
        attempt = 0
        clock = asyncio.get_running_loop().time
        while True:
            self._online_at_s = math.inf
            retry_s = 0
            try:
                await self._connect_once()
            except (OSError, WebSocketException) as error:  # TimeoutError is an OSError
                self.problem = describe_loss(error)  # raises ConnectionStopped when the loss is final
                retry_s = min(retry_after_s(error), RETRY_AFTER_S_MAX)
            log.info("not connected: %s", self.problem)
            if clock() - self._online_at_s >= STABLE_AFTER_S:
                attempt = 0
            # The backoff comes on top of `Retry-After`, so devices rejected together do not reconnect in step.
            await self._backoff.sleep(retry_s + self._reconnect_delay_s(attempt))
            attempt += 1

    def _reconnect_delay_s(self, attempt: int) -> float:
        spread_s, self._drain_spread_s = self._drain_spread_s, None
        if spread_s is None:
            return self._backoff.delay_s(attempt)
        return self._backoff.chance() * min(max(spread_s, DRAIN_SPREAD_S_MIN), DRAIN_SPREAD_S_MAX)

    async def _connect_once(self) -> None:
        """Run one WebSocket from its handshake to its loss. Raises the loss."""
        async with connect(
            self.credentials.websocket_url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            max_size=FRAME_BYTES_MAX,
            open_timeout=CONNECT_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            ping_interval=None,  # see heartbeat.py
            create_connection=ObservedConnection,
            logger=_websockets_log,
        ) as socket:
            if socket.subprotocol != SUBPROTOCOL:
                raise ConnectionStopped(None, f"the server does not support the protocol {SUBPROTOCOL}")
            async with asyncio.timeout(AUTHENTICATE_TIMEOUT_S):
                heartbeat_s, ready = await self._authenticate(socket)
            if not isinstance(socket, ObservedConnection):
                raise AssertionError("connect() ignored create_connection")
            async with silence_timeout(socket, heartbeat_s):
                await self._listen(Link(ready, socket), socket)

    async def _listen(self, link: Link[ReadyT], socket: ClientConnection) -> None:
        """Stay online until the connection is lost. Raises the loss."""
        clock = asyncio.get_running_loop().time
        self._resume.on_ready(link.ready.server_time_ms, resumed=link.ready.resumed)
        self._link.set_result(link)
        self._online_at_s = clock()
        self.problem = None
        self._on_online(link.ready)
        catching_up = asyncio.create_task(self._catch_up_or_reconnect(socket), name="pos-catch-up")
        try:
            while True:
                message = await self._receive(socket)
                if isinstance(message, Draining):
                    self._drain_spread_s = message.reconnect_within_s
                elif isinstance(message, Replayed):
                    self._on_replayed(message)
                elif isinstance(message, ServerMessage):
                    self._on_message(message)
        finally:
            catching_up.cancel()
            self.problem = "the connection was lost"
            self._link = asyncio.get_running_loop().create_future()
            link.lost.set()
            self._on_offline()

    def _on_replayed(self, message: Replayed) -> None:
        """Handle the end of a replay or of a page. A subclass may save the position."""
        self._resume.on_replayed(message.since_ms, message.next_cursor)
        request = self._requests.find(message.reply_to)
        if request is not None:
            request.on_answer(message)

    def _has_room(self) -> bool:
        """Return whether an unsolicited result can be taken. If not, it is requested again when there is room."""
        if self._unread.is_full:
            self._resume.fall_behind()
            self._falls_behind.set()
            return False
        return True

    async def _catch_up_or_reconnect(self, socket: ClientConnection) -> None:
        """Catch up. A bug costs the connection, because the next one starts to catch up again."""
        try:
            await self._catch_up()
        except ConnectionStopped:
            pass  # the session ends
        except Exception:
            log.exception("catching up failed unexpectedly")
            socket.transport.abort()

    async def _catch_up(self) -> None:
        """Request missing results, page by page, as the unread ones leave room. Runs until the link is lost."""
        while True:
            while self._resume.is_behind and self._resume.since_ms is not None:
                await self._unread.room(REPLAY_PAGE)
                self._resume.on_request()
                request = build_request(
                    ResumeRequest, since_ms=self._resume.since_ms, cursor=self._resume.cursor, limit=REPLAY_PAGE
                )
                try:
                    await self._requests.send_and_wait(OpenRequest[Replayed](request), REQUEST_TIMEOUT_S)
                except RequestRefused as error:  # an older server
                    log.warning("results may be missing: %s", error)
                    self._resume.give_up()
                except RequestUnanswered as error:
                    log.info("results are still missing: %s", error)
            self._falls_behind.clear()
            await self._falls_behind.wait()

    async def _authenticate(self, socket: ClientConnection) -> tuple[int, ReadyT]:
        hello = await self._receive(socket)
        if not isinstance(hello, Hello):
            raise ConnectionStopped(None, "the server did not start with hello: is it a pos-server?")
        self.clock_offset_ms = hello.server_time_ms - self._now_ms()
        credentials = self.credentials
        try:
            nonce = bytes.fromhex(hello.nonce)
        except ValueError:
            raise ConnectionStopped(None, _UNREADABLE) from None
        authenticate = Authenticate(
            message_id="authenticate",
            id=credentials.number,
            slot=credentials.slot,
            kid=credentials.kid,
            mac=authentication_mac(credentials.device_key, nonce, credentials.number).hex(),
            since_ms=self._resume.since_ms,
            language=self._language,
        )
        await socket.send(encode(authenticate))
        ready = await self._receive(socket)
        if not isinstance(ready, TerminalReady | WalletReady):
            raise ConnectionStopped(None, "the server did not answer authenticate with ready")
        return hello.heartbeat_s, ready

    async def _receive(self, socket: ClientConnection) -> Hello | ReadyT | MessageT | Replayed | Draining:
        """Return the next message of a known type. Types that a newer server may add are skipped."""
        while True:
            frame = await socket.recv()
            try:
                return self._messages.validate_json(frame)
            except ValidationError as error:
                error_type = error.errors(include_url=False, include_context=False, include_input=False)[0]["type"]
            if error_type != "union_tag_invalid":
                raise ConnectionStopped(None, _UNREADABLE)


def _closed() -> ConnectionStopped:
    return ConnectionStopped(None, "this client was closed")
