"""What both kinds of device share: the handshake, the reader, and an orderly end."""

import asyncio
import hmac
import secrets
import time
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import structlog
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..connections import CLOSE_TIMEOUT_S, Connection, Connections
from ..core.device_keys import NONCE_BYTES, DeviceId, DeviceKind, Keyring, authentication_mac
from ..core.errors import CloseCode, ConnectionClosing, MessageError
from ..core.messages import (
    SUBPROTOCOL,
    Authenticate,
    Error,
    Hello,
    PaymentScan,
    TerminalReady,
    WalletReady,
    encode,
)
from ..core.session import Session
from ..ledger.database import DATABASE_AWAY
from ..settings import Settings

log = structlog.get_logger(__name__)


Admitted = TypeVar("Admitted")
Ready = TerminalReady | WalletReady


class DeviceEndpoint(ABC, Generic[Admitted]):
    """Serves the WebSockets of one kind of device. Subclasses say who may come in and what a message does."""

    kind: DeviceKind

    def __init__(self, settings: Settings, keyring: Keyring, connections: Connections) -> None:
        self._settings = settings
        self._keyring = keyring
        self._connections = connections

    @abstractmethod
    async def admit(self, message: Authenticate, nonce: bytes) -> tuple[Ready, Admitted]:
        """The `ready` for a device that proved itself, and what `handle` needs of it. Raises ConnectionClosing."""

    @abstractmethod
    def handle(self, message: PaymentScan, device: DeviceId, admitted: Admitted) -> None:
        """Act on a message of an authenticated device. Raises MessageError."""

    async def serve(self, websocket: WebSocket) -> None:
        """One connection, from the upgrade to its end."""
        if SUBPROTOCOL not in websocket.scope["subprotocols"]:
            text = f"Offer the WebSocket subprotocol {SUBPROTOCOL}.\n"
            await websocket.send_denial_response(PlainTextResponse(text, status_code=400))
            return
        await websocket.accept(SUBPROTOCOL)
        session = Session(self.kind)
        try:
            ready, admitted = await self._authenticate(websocket, session)
        except ConnectionClosing as closing:
            log.info("connection_refused", kind=self.kind.value, code=closing.code.value, reason=closing.reason)
            await _close(websocket, closing)
        except WebSocketDisconnect:
            pass
        else:
            await self._talk(websocket, session, ready, admitted)

    async def _authenticate(self, websocket: WebSocket, session: Session) -> tuple[Ready, Admitted]:
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
            raise ConnectionClosing(CloseCode.UNAVAILABLE, "cannot authenticate now, come back") from None
        session.authenticated()
        return admitted

    def check_mac(
        self, message: Authenticate, nonce: bytes, device: DeviceId, kid: str | None, generation: int
    ) -> None:
        """Raises ConnectionClosing unless `message` proves the device's current key."""
        key = self._keyring.device_key(kid, device, generation) if kid is not None and kid == message.kid else None
        mac = bytes.fromhex(message.mac)
        if key is None or not hmac.compare_digest(authentication_mac(key, nonce, message.id), mac):
            raise ConnectionClosing(CloseCode.UNAUTHORIZED, "unknown device or wrong key")

    async def _talk(self, websocket: WebSocket, session: Session, ready: Ready, admitted: Admitted) -> None:
        connection = self._connections.open(_device_of(ready), websocket)
        connection.deliver(encode(ready))
        writer = asyncio.create_task(connection.run_writer())
        reader = asyncio.create_task(self._read(websocket, session, connection, admitted))
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
            if reader.done() and (error := reader.exception()):
                closing = (
                    error
                    if isinstance(error, ConnectionClosing)
                    else ConnectionClosing(CloseCode.UNAVAILABLE, "server fault, come back")
                )
                connection.close(closing.code, closing.reason)
                await asyncio.wait((writer,), timeout=CLOSE_TIMEOUT_S)
                if error is not closing:
                    raise error
        finally:
            self._connections.forget(connection)
            reader.cancel()
            writer.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)

    async def _read(self, websocket: WebSocket, session: Session, connection: Connection, admitted: Admitted) -> None:
        try:
            while True:
                text = await _receive_text(websocket)
                try:
                    message = session.receive(text)
                    if not isinstance(message, PaymentScan):
                        raise AssertionError(f"{type(message).__name__} after authentication")
                    self.handle(message, connection.device, admitted)
                except MessageError as error:
                    connection.deliver(encode(_error_message(error)))
        except WebSocketDisconnect:
            return


def now_ms() -> int:
    """The server's time in Unix milliseconds."""
    return int(time.time() * 1000)


def _device_of(ready: Ready) -> DeviceId:
    if isinstance(ready, TerminalReady):
        return DeviceId(DeviceKind.TERMINAL, ready.terminal_number)
    return DeviceId(DeviceKind.WALLET, ready.wallet_number, ready.slot)


def _error_message(error: MessageError) -> Error:
    return Error(
        reply_to=error.reply_to,
        code=error.code.value,
        message=error.detail,
        field=error.field,
        retryable=error.code.retryable,
        retry_after_s=error.retry_after_s,
    )


async def _receive_text(websocket: WebSocket) -> str:
    event = await websocket.receive()
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
    except (WebSocketDisconnect, TimeoutError):
        pass
