"""What both kinds of device share: the handshake, resume, the reader with its limits, and an orderly end."""

import asyncio
import hmac
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..clock import now_ms
from ..core.credentials.device_keys import NONCE_BYTES, DeviceId, DeviceKind, Keyring, authentication_mac
from ..core.errors import CloseCode, ConnectionClosing
from ..core.protocol.client_messages import Authenticate, Request
from ..core.protocol.codec import encode
from ..core.protocol.server_messages import (
    SUBPROTOCOL,
    Hello,
    ServerMessage,
    TerminalReady,
    WalletReady,
)
from ..core.protocol.session import Session, State
from ..core.texts import language_of
from ..delivery.connections import CLOSE_TIMEOUT_S, Connection, Connections
from ..delivery.peers import Peers
from ..ledger.database import DATABASE_AWAY
from ..settings import Settings
from .admission import Admission
from .conversation import Conversation, Work

log = structlog.get_logger(__name__)

# In the connection's `state`, when the WebSocket protocol itself has ended it: the close code (1002, 1007 or 1009).
REFUSED_FRAME_CODE = "refused_frame_code"

# In the connection's `state`: a function that takes the one that hears texts as they come, without the application's
# task being woken. It returns None, or what the task is to raise; from then on texts go to the task again.
LISTEN = "listen"
# In what the application receives: what its hearer returned.
FAILURE = "failure"

RecordT = TypeVar("RecordT")
Ready = TerminalReady | WalletReady


@dataclass(frozen=True, slots=True)
class Admitted(Generic[RecordT]):
    """A device that has proved itself: its key's generation, its row, and the language of its texts."""

    device: DeviceId
    generation: int
    record: RecordT
    language: str


class DeviceEndpoint(ABC, Generic[RecordT]):
    """Serves the WebSockets of one kind of device. Subclasses say who may come in and what a message does."""

    kind: DeviceKind

    def __init__(
        self, settings: Settings, keyring: Keyring, admission: Admission, connections: Connections, peers: Peers
    ) -> None:
        self._settings = settings
        self._keyring = keyring
        self._admission = admission
        self._connections = connections
        self._peers = peers

    @abstractmethod
    async def admit(self, message: Authenticate, nonce: bytes) -> Admitted[RecordT]:
        """The device that sent `message`, if it proves itself. Raises ConnectionClosing."""

    @abstractmethod
    async def resume(self, message: Authenticate, admitted: Admitted[RecordT]) -> tuple[Ready, Sequence[ServerMessage]]:
        """The `ready` for the device, and the results it may have missed."""

    @abstractmethod
    async def missed(self, number: int, language: str, since_ms: int) -> Sequence[ServerMessage] | None:
        """What changed for a device after `since_ms`, oldest first; None when that is more than may be replayed."""

    def refuse_early(self, text: str) -> str | None:
        """The answer's text to a message that there is no room for, without reading all of it; None to have it read."""
        return None

    @abstractmethod
    def handle(self, message: Request, admitted: Admitted[RecordT]) -> Work | None:
        """Act on a message of an authenticated device. Raises MessageError.

        What takes longer than a moment is returned, to be run besides the reader; it returns its answer, or None when
        that comes otherwise, and may raise MessageError too.
        """

    async def serve(self, websocket: WebSocket) -> None:
        """One connection, from the upgrade to its end."""
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
        session = Session(self.kind)
        try:
            await websocket.accept(SUBPROTOCOL)
            arrival = self._connections.arrival()
            # No name for what `authenticate` said: this frame lives as long as the connection.
            await self._talk(websocket, arrival, session, *await self._authenticate(websocket, session))
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
        code = websocket.scope["state"].get(REFUSED_FRAME_CODE)
        # One line a connection: what this session ended by itself is logged already.
        if code is not None and session.state is not State.CLOSED:
            log.info("connection_refused", kind=self.kind.value, code=code)

    async def _authenticate(self, websocket: WebSocket, session: Session) -> tuple[Authenticate, Admitted[RecordT]]:
        nonce = secrets.token_bytes(NONCE_BYTES)
        hello = Hello(
            nonce=nonce.hex(),
            server_time_ms=now_ms(),
            heartbeat_s=self._settings.heartbeat_s,
            authenticate_within_s=self._settings.authentication_timeout_s,
            frame_bytes_max=self._settings.frame_bytes_max,
        )
        await websocket.send({"type": "websocket.send", "text": encode(hello)})
        try:
            async with asyncio.timeout(self._settings.authentication_timeout_s):
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
        """Raises ConnectionClosing unless `message` proves the device's current key."""
        key = self._keyring.device_key(kid, device, generation) if kid is not None and kid == message.kid else None
        mac = bytes.fromhex(message.mac)
        if key is None or not hmac.compare_digest(authentication_mac(key, nonce, message.id), mac):
            raise ConnectionClosing(CloseCode.UNAUTHORIZED, "unknown device or wrong key")

    def admitted(self, message: Authenticate, device: DeviceId, generation: int, record: RecordT) -> Admitted[RecordT]:
        """What `admit` returns for a device that has proved itself with `message`."""
        return Admitted(device, generation, record, language_of(message.language))

    async def _talk(
        self,
        websocket: WebSocket,
        arrival: float,
        session: Session,
        message: Authenticate,
        admitted: Admitted[RecordT],
    ) -> None:
        # Registered before the rows are read: what is decided from here on is delivered, what was before is read.
        connection = self._connections.open(admitted.device, admitted.generation, arrival, admitted.language, websocket)
        self._peers.opened(connection)
        try:
            try:
                ready, missed = await self.resume(message, admitted)
            except DATABASE_AWAY as away:
                log.warning("database_away", during="resume", cause=type(away).__name__)
                raise session.close(CloseCode.UNAVAILABLE, "cannot resume now, come back") from None
            connection.start(map(encode, (ready, *missed)))
            del message, ready, missed  # or this frame would keep them as long as the connection lasts
            try:
                await self._converse(websocket, session, connection, admitted)
            except ConnectionClosing as closing:
                log.info("connection_closed", kind=self.kind.value, code=closing.code.value, reason=closing.reason)
                session.close(closing.code, closing.reason)
                connection.close(closing.code, closing.reason)
            except Exception:
                connection.close(CloseCode.UNAVAILABLE, "server fault, come back")
                raise
        finally:
            self._connections.forget(connection)
            self._peers.closed(connection.device)
            await connection.ended()

    async def _converse(
        self, websocket: WebSocket, session: Session, connection: Connection, admitted: Admitted[RecordT]
    ) -> None:
        conversation = Conversation(
            self._settings,
            session,
            connection,
            self.refuse_early,
            lambda message: self.handle(message, admitted),
            time.monotonic(),
        )
        listen = websocket.scope["state"].get(LISTEN)
        try:
            # From here on texts go straight to the conversation; what came before them, and the end, come by this way.
            if listen is not None:  # else the connection is lost already
                listen(conversation.hear)
            while True:
                conversation.take(await _receive_text(websocket))
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
