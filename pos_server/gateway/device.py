"""The endpoint that both kinds of device share: handshake, resume, reader with its limits, orderly end."""

import asyncio
import hmac
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import asyncpg
import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..clock import now_ms
from ..core.credentials.device_keys import NONCE_BYTES, DeviceId, DeviceKind, Keyring, authentication_mac
from ..core.errors import CloseCode, ConnectionClosing
from ..core.payments.operations import Operation
from ..core.payments.payment import Payment
from ..core.protocol.client_messages import (
    Authenticate,
    Request,
    Resume,
)
from ..core.protocol.codec import (
    encode,
)
from ..core.protocol.server_messages import (
    SUBPROTOCOL,
    Hello,
    Replayed,
    ServerMessage,
    TerminalReady,
    WalletReady,
)
from ..core.protocol.session import Session, State
from ..core.texts import language_of
from ..delivery.connections import CLOSE_TIMEOUT_S, Connection
from ..delivery.publisher import Publisher
from ..engine.authorizer import Authorizer, NotAccepted
from ..ledger.failures import DATABASE_ERRORS, Phase, report
from ..ledger.history import Cursor
from ..limits import DeviceLimits
from .admission import Admission
from .conversation import Conversation, Work, refused
from .direct_socket import FAILURE, DirectSocket, direct_socket

log = structlog.get_logger(__name__)

RecordT = TypeVar("RecordT")
Ready = TerminalReady | WalletReady


@dataclass(frozen=True, slots=True)
class Admitted(Generic[RecordT]):
    """An authenticated device: its key's generation, its row, and the language of its texts."""

    device: DeviceId
    generation: int
    record: RecordT
    language: str


@dataclass(frozen=True, slots=True)
class ReplayPage:
    """A page of a device's payments, oldest change first.

    The device has received everything up to `until_ms` once it has received `messages`. `next_cursor` is None on the
    last page.
    """

    messages: Sequence[ServerMessage]
    until_ms: int
    next_cursor: Cursor | None


def replay_page(
    payments: Sequence[Payment], payments_max: int, time_ms: int, messages: Sequence[ServerMessage]
) -> ReplayPage:
    """Return the page with the `messages` of these payments, which were read after `time_ms`.

    There is one payment more than a page holds if the replay continues.
    """
    if len(payments) <= payments_max:
        return ReplayPage(messages, time_ms, None)
    cursor = Cursor.of(payments[payments_max - 1])
    return ReplayPage(messages[:payments_max], cursor.changed_at_ms, cursor)


@dataclass(frozen=True, slots=True)
class Backend:
    """The parts of the server that an endpoint uses: keys, admission, delivery, the ledger's pool, the engine."""

    keyring: Keyring
    admission: Admission
    publisher: Publisher
    pool: asyncpg.Pool
    authorizer: Authorizer


class DeviceEndpoint(ABC, Generic[RecordT]):
    """Serves the WebSockets of one kind of device. Subclasses admit devices and act on their messages."""

    kind: DeviceKind

    def __init__(self, limits: DeviceLimits, backend: Backend) -> None:
        self._limits = limits
        self._keyring = backend.keyring
        self._admission = backend.admission
        self._publisher = backend.publisher
        self._pool = backend.pool
        self._authorizer = backend.authorizer

    @abstractmethod
    async def admit(self, message: Authenticate, nonce: bytes) -> Admitted[RecordT]:
        """Return the device that sent `message`, if it proves its key. Raises ConnectionClosing."""

    @abstractmethod
    async def resume(self, message: Authenticate, admitted: Admitted[RecordT]) -> tuple[Ready, Sequence[ServerMessage]]:
        """Return `ready` for the device, and the results that it may have missed."""

    @abstractmethod
    async def missed(self, number: int, language: str, after: Cursor, payments_max: int) -> ReplayPage:
        """Return a page of at most `payments_max` of the device's payments after a position."""

    def refuse_early(self, text: str) -> str | None:
        """Return the refusal of a message that there is no room for, before it is parsed; None to have it parsed."""
        return None

    def replay_start(self, since_ms: int) -> Cursor:
        """Return the position where a replay starts. The device has received all results up to `since_ms`."""
        return Cursor.before(since_ms - self._limits.resume_overlap_ms)

    async def _replay(self, message: Resume, admitted: Admitted[RecordT]) -> list[ServerMessage]:
        after = self.replay_start(message.since_ms) if message.cursor is None else Cursor.parse(message.cursor)
        size = min(message.limit, self._limits.resume_payments_max)
        page = await self.missed(admitted.device.number, admitted.language, after, size)
        end = Replayed(
            reply_to=message.message_id,
            since_ms=page.until_ms,
            next_cursor=None if page.next_cursor is None else page.next_cursor.text,
        )
        return [*page.messages, end]

    @abstractmethod
    def handle(self, message: Request, admitted: Admitted[RecordT]) -> Work | None:
        """Act on a message of an authenticated device. Raises MessageError.

        Work that waits for the database or a thread is returned, to run in a task of its own. It returns the answer, or
        None if the answer comes with a notice; it may raise MessageError too. `resume` does not come here.
        """

    def submit(self, operation: Operation, message: Request) -> None:
        """Hand an operation to the engine; its outcome answers `message`. Raises MessageError: BUSY or DRAINING."""
        try:
            self._authorizer.submit(operation, message.message_id)
        except NotAccepted as refusal:
            raise refused(refusal.code, message) from None

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one connection, from the upgrade to its end."""
        refusal = self._admission.refusal(websocket)
        if refusal is not None:
            log.info("connection_denied", kind=self.kind.value, status=refusal.status_code)
            await websocket.send_denial_response(refusal)
            return
        self._admission.enter(websocket)
        try:
            await self._serve_admitted(websocket)
        except asyncio.CancelledError:
            log.info("connection_cut_off", kind=self.kind.value)  # at the end of a drain that took too long
        finally:
            self._admission.leave(websocket)

    async def _serve_admitted(self, websocket: WebSocket) -> None:
        session, socket = Session(self.kind), None
        try:
            await websocket.accept(SUBPROTOCOL)
            arrival, socket = self._publisher.arrival(), direct_socket(websocket)
            # `authenticate` gets no name here: this frame lives as long as the connection.
            await self._talk(websocket, socket, arrival, session, *await self._authenticate(websocket, session))
        except ConnectionClosing as closing:
            log.info("connection_refused", kind=self.kind.value, code=closing.code.value, reason=closing.reason)
            await _close(websocket, closing)
            return
        except WebSocketDisconnect:
            pass
        except Exception:
            log.exception("connection_failed", kind=self.kind.value)
            await _close(websocket, ConnectionClosing(CloseCode.UNAVAILABLE, "server fault, come back"))
            return
        # One line per connection: an end by this session is logged already.
        if socket is not None and socket.refused_frame_code is not None and session.state is not State.CLOSED:
            log.info("connection_refused", kind=self.kind.value, code=socket.refused_frame_code)

    async def _authenticate(self, websocket: WebSocket, session: Session) -> tuple[Authenticate, Admitted[RecordT]]:
        nonce = secrets.token_bytes(NONCE_BYTES)
        hello = Hello(
            nonce=nonce.hex(),
            server_time_ms=now_ms(),
            heartbeat_s=self._limits.heartbeat_s,
            authenticate_within_s=self._limits.authentication_timeout_s,
            frame_bytes_max=self._limits.frame_bytes_max,
        )
        await websocket.send({"type": "websocket.send", "text": encode(hello)})
        try:
            async with asyncio.timeout(self._limits.authentication_timeout_s):
                message = session.receive(await _receive_text(websocket))
        except TimeoutError:
            raise session.close(CloseCode.AUTHENTICATION_TIMEOUT, "authenticate sooner") from None
        if not isinstance(message, Authenticate):
            raise AssertionError(f"{type(message).__name__} before authentication")
        try:
            admitted = await self.admit(message, nonce)
        except DATABASE_ERRORS as error:
            report(error, Phase.READ, during="authentication")
            raise session.close(CloseCode.UNAVAILABLE, "cannot authenticate now, come back") from None
        session.authenticated()
        return message, admitted

    def check_mac(
        self, message: Authenticate, nonce: bytes, device: DeviceId, kid: str | None, generation: int
    ) -> None:
        """Raise ConnectionClosing unless `message` proves the device's current key."""
        key = self._keyring.device_key(kid, device, generation) if kid is not None and kid == message.kid else None
        mac = bytes.fromhex(message.mac)
        if key is None or not hmac.compare_digest(authentication_mac(key, nonce, message.id), mac):
            raise ConnectionClosing(CloseCode.UNAUTHORIZED, "unknown device or wrong key")

    def admitted(self, message: Authenticate, device: DeviceId, generation: int, record: RecordT) -> Admitted[RecordT]:
        """Return the result of `admit` for a device that has proved its key with `message`."""
        return Admitted(device, generation, record, language_of(message.language))

    async def _talk(
        self,
        websocket: WebSocket,
        socket: DirectSocket,
        arrival: float,
        session: Session,
        message: Authenticate,
        admitted: Admitted[RecordT],
    ) -> None:
        if self._admission.is_draining():
            # The drain has seen all devices already, and would wait for this one.
            raise session.close(CloseCode.DRAINING, "the server is restarting")
        # Registered before the rows are read: later decisions are delivered, earlier ones are read.
        connection = self._publisher.open(
            admitted.device, admitted.generation, arrival, admitted.language, websocket, socket.send_now
        )
        try:
            try:
                greeting = await self._greeting(message, admitted)
            except DATABASE_ERRORS as error:
                report(error, Phase.READ, during="resume")
                raise session.close(CloseCode.UNAVAILABLE, "cannot resume now, come back") from None
            connection.start(map(encode, greeting))
            del message, greeting  # or this frame would keep them as long as the connection lasts
            try:
                await self._converse(websocket, socket, session, connection, admitted)
            except ConnectionClosing as closing:
                log.info("connection_closed", kind=self.kind.value, code=closing.code.value, reason=closing.reason)
                session.close(closing.code, closing.reason)
                connection.close(closing.code, closing.reason)
            except Exception:
                connection.close(CloseCode.UNAVAILABLE, "server fault, come back")
                raise
        finally:
            self._publisher.forget(connection)
            await connection.ended()

    async def _greeting(self, message: Authenticate, admitted: Admitted[RecordT]) -> Sequence[ServerMessage]:
        """Return `ready` and the messages that follow it."""
        ready, missed = await self.resume(message, admitted)
        if message.since_ms is None or not ready.resumed:
            return [ready, *missed]
        return [
            ready,
            *missed,
            Replayed(reply_to=message.message_id, since_ms=ready.server_time_ms, next_cursor=None),
        ]

    async def _converse(
        self,
        websocket: WebSocket,
        socket: DirectSocket,
        session: Session,
        connection: Connection,
        admitted: Admitted[RecordT],
    ) -> None:
        conversation = Conversation(
            self._limits.conversation,
            session,
            connection,
            self.refuse_early,
            lambda message: (
                partial(self._replay, message, admitted) if type(message) is Resume else self.handle(message, admitted)
            ),
            time.monotonic(),
        )
        try:
            # From here on texts go directly to the conversation. Earlier texts, and the end, come by ASGI.
            socket.listen(conversation.receive_or_fail)
            while True:
                conversation.receive(await _receive_text(websocket))
        except WebSocketDisconnect:
            return
        finally:
            conversation.end()


async def _receive_text(websocket: WebSocket) -> str:
    event = await websocket.receive()
    if FAILURE in event:
        raise event[FAILURE]
    if event["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(event.get("code", 1006))
    text: str | None = event.get("text")
    if text is None:
        raise ConnectionClosing(CloseCode.NOT_TEXT, "send text frames")
    return text


async def _close(websocket: WebSocket, closing: ConnectionClosing) -> None:
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await websocket.close(closing.code, closing.reason)
    except (WebSocketDisconnect, RuntimeError, TimeoutError):
        pass
