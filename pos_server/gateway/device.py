"""The endpoint that both kinds of device share: handshake, resume, reader with its limits, orderly end."""

import asyncio
import hmac
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import asyncpg
import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..clock import now_ms
from ..core.credentials.device_keys import NONCE_BYTES, DeviceId, DeviceKind, Keyring, authentication_mac
from ..core.errors import CloseCode, ConnectionClosing
from ..core.payments.operations import Operation
from ..core.protocol.client_messages import (
    Authenticate,
    Request,
)
from ..core.protocol.codec import (
    encode,
)
from ..core.protocol.server_messages import (
    SUBPROTOCOL,
    Hello,
    ServerMessage,
    TerminalReady,
    WalletReady,
)
from ..core.protocol.session import Session, State
from ..core.texts import language_of
from ..delivery.connections import CLOSE_TIMEOUT_S, Connection
from ..delivery.publisher import Publisher
from ..engine.authorizer import Authorizer, NotAccepted
from ..ledger.database import DATABASE_AWAY
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
    async def missed(self, number: int, language: str, since_ms: int) -> Sequence[ServerMessage] | None:
        """Return the device's payments that changed after `since_ms`, oldest first; None if too many to replay."""

    def refuse_early(self, text: str) -> str | None:
        """Return the refusal of a message that there is no room for, before it is parsed; None to have it parsed."""
        return None

    @abstractmethod
    def handle(self, message: Request, admitted: Admitted[RecordT]) -> Work | None:
        """Act on a message of an authenticated device. Raises MessageError.

        Work that waits for the database or a thread is returned, to run in a task of its own. It returns the answer, or
        None if the answer comes with a notice; it may raise MessageError too.
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
        except DATABASE_AWAY as away:
            log.warning("database_away", during="authentication", cause=type(away).__name__)
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
        # Registered before the rows are read: later decisions are delivered, earlier ones are read.
        connection = self._publisher.open(
            admitted.device, admitted.generation, arrival, admitted.language, websocket, socket.send_now
        )
        try:
            try:
                ready, missed = await self.resume(message, admitted)
            except DATABASE_AWAY as away:
                log.warning("database_away", during="resume", cause=type(away).__name__)
                raise session.close(CloseCode.UNAVAILABLE, "cannot resume now, come back") from None
            connection.start(map(encode, (ready, *missed)))
            del message, ready, missed  # or this frame would keep them as long as the connection lasts
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
            lambda message: self.handle(message, admitted),
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
