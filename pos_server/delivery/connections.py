"""Connected devices, each with a bounded outbox. `deliver` never waits: a peer that does not read is disconnected."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from ..core.credentials.device_keys import DeviceId, DeviceKind
from ..core.errors import CloseCode, ConnectionClosing
from ..core.protocol.notices import Recipient
from ..limits import OutboxLimits
from ..telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

# How long a peer that does not read is given to take the close frame.
CLOSE_TIMEOUT_S = 1.0
# Sends a text without waiting, or returns False when the peer takes none now.
SendNow = Callable[[str], bool]


class Connection:
    """An authenticated device's socket, and the messages that wait to be sent on it, in order.

    A message is sent at once where the peer takes it. Otherwise a task writes, but only while messages wait: ten
    thousand idle connections have ten thousand readers, and no writer.
    """

    __slots__ = (
        "_bytes",
        "_closing",
        "_limits",
        "_metrics",
        "_outbox",
        "_send_now",
        "_sending",
        "_started",
        "_starting",
        "_websocket",
        "_writer",
        "arrival",
        "device",
        "generation",
        "language",
    )

    def __init__(
        self,
        device: DeviceId,
        generation: int,
        arrival: float,
        language: str,
        websocket: WebSocket,
        send_now: SendNow,
        limits: OutboxLimits,
        metrics: Metrics | None,
    ) -> None:
        self._metrics = metrics
        self.device = device
        self.generation = generation
        self.arrival = arrival
        self.language = language
        self._websocket = websocket
        self._send_now = send_now
        self._limits = limits
        # Each text with the time since which it waits; 0 for the texts of `start`, which are late anyway. Not a deque,
        # because an empty one takes 0.6 KiB.
        self._outbox: list[tuple[str, float]] = []
        self._bytes = 0
        self._started = False
        # Created for a caller of `drained` that comes before `start`.
        self._starting: asyncio.Event | None = None
        self._closing: tuple[CloseCode, str] | None = None
        self._sending: asyncio.Timeout | None = None
        self._writer: asyncio.Task[None] | None = None

    def start(self, texts: Iterable[str]) -> None:
        """Send `texts`, then the messages delivered since the connection was opened, then every further message."""
        ahead = list(texts)
        self._outbox[:0] = [(text, 0.0) for text in ahead]
        self._bytes += sum(map(_size, ahead))
        self._started = True
        self._end_start()
        self._wake()

    def deliver(self, text: str) -> None:
        """Queue a message. Never waits: if the outbox is full, the connection is closed with SLOW_CONSUMER."""
        if self._closing is not None:
            return
        # Most messages find an empty outbox and a peer that reads: they need neither a task nor a queue.
        idle = self._started and self._writer is None and not self._outbox
        if idle and self._send_now(text):
            return
        if len(self._outbox) < self._limits.messages_max and self._bytes + _size(text) <= self._limits.bytes_max:
            self._outbox.append((text, time.monotonic()))
            self._bytes += _size(text)
            self._wake()
            return
        log.warning("slow_consumer", kind=self.device.kind.value, number=self.device.number)
        if self._metrics is not None:
            self._metrics.outbox_drops[self.device.kind].inc()
        self._outbox.clear()
        self.close(CloseCode.SLOW_CONSUMER, "too many messages unread")
        if self._sending is not None:
            self._sending.reschedule(0)

    def close(self, code: CloseCode, reason: str) -> None:
        """Close the connection with this code, after the queued messages. The first call counts."""
        if self._closing is None:
            self._closing = (code, reason)
            self._wake()

    @property
    def is_closing(self) -> bool:
        """True once the connection takes no further messages."""
        return self._closing is not None

    async def drained(self) -> None:
        """Wait until the peer has taken `ready` and all queued messages, or the connection has ended."""
        if not self._started:
            self._starting = self._starting or asyncio.Event()
            await self._starting.wait()
        while self._writer is not None:
            await asyncio.wait((self._writer,))

    async def ended(self) -> None:
        """Stop writing: the peer is gone or the reader ended. A queued close is still sent."""
        self._end_start()
        if self._writer is not None and self._closing is not None:
            await asyncio.wait((self._writer,), timeout=CLOSE_TIMEOUT_S)
        self._closing = self._closing or (CloseCode.UNAVAILABLE, "")
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait((self._writer,))

    def _end_start(self) -> None:
        if self._starting is not None:
            self._starting.set()
            self._starting = None

    def _wake(self) -> None:
        if self._started and self._writer is None:
            self._writer = asyncio.create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._outbox:
                text, since_s = self._outbox.pop(0)
                self._bytes -= _size(text)
                await self._send(text, since_s)
            if self._closing is not None:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self._websocket.close(*self._closing)
        except (WebSocketDisconnect, WebSocketDisconnected, TimeoutError):
            pass  # the reader notices it too, and ends the connection
        except Exception:
            # The message is lost. The device gets it after it has connected again, which a close makes it do.
            log.exception("send_failed", kind=self.device.kind.value, number=self.device.number)
            await self._close_after_failure()
        finally:
            # Nothing is awaited between the last check of the outbox and here, so no message is left behind.
            self._writer = None

    async def _close_after_failure(self) -> None:
        self._outbox.clear()
        self._bytes = 0
        self._closing = self._closing or (CloseCode.UNAVAILABLE, "server fault, come back")
        with suppress(Exception):  # the socket may be as broken for the close as for the message
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._websocket.close(*self._closing)

    async def _send(self, text: str, since_s: float) -> None:
        try:
            async with asyncio.timeout(None) as self._sending:
                await self._websocket.send({"type": "websocket.send", "text": text})
            if self._metrics is not None and since_s:
                self._metrics.push.observe(time.monotonic() - since_s)
        except TimeoutError:
            pass  # interrupted by `deliver`: only the close is left to send
        finally:
            self._sending = None


def _size(text: str) -> int:
    """Return the bytes on the wire. Nearly all texts are ASCII, whose length Python knows without encoding them."""
    return len(text) if text.isascii() else len(text.encode())


class Connections:
    """Every authenticated device, at most one connection each: a newer one supersedes the older."""

    def __init__(self, limits: OutboxLimits, metrics: Metrics | None = None) -> None:
        self._limits = limits
        self._metrics = metrics
        self._by_number: dict[tuple[DeviceKind, int], dict[int, Connection]] = {}
        self._live: set[Connection] = set()
        self._none_live = asyncio.Event()
        self._none_live.set()

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._live))

    def by_kind(self) -> Counter[DeviceKind]:
        """Return the number of connections of each kind."""
        return Counter([connection.device.kind for connection in self._live])

    def arrival(self) -> float:
        """Return the time of a socket that has just come in: of two connections of a device the later one stays."""
        return time.monotonic()

    def of(self, device: DeviceId) -> Connection | None:
        """Return the device's connection."""
        return self._by_number.get((device.kind, device.number), {}).get(device.slot)

    def open(
        self,
        device: DeviceId,
        generation: int,
        arrival: float,
        language: str,
        websocket: WebSocket,
        send_now: SendNow,
    ) -> Connection:
        """Register a device's socket, whose texts are in `language`. Messages for it queue up until `start` is called.

        A device has one connection: the later arrival stays, and the other is closed with SUPERSEDED. Raises
        ConnectionClosing if that is this one. The earlier arrival may authenticate last: the device has given it up and
        connected again, and its ghost must not close the new connection.
        """
        slots = self._by_number.setdefault((device.kind, device.number), {})
        other = slots.get(device.slot)
        if other is not None and other.arrival > arrival:
            raise ConnectionClosing(CloseCode.SUPERSEDED, "this device connected again")
        if other is not None:
            other.close(CloseCode.SUPERSEDED, "this device connected again")
        connection = slots[device.slot] = Connection(
            device, generation, arrival, language, websocket, send_now, self._limits, self._metrics
        )
        self._live.add(connection)
        self._none_live.clear()
        return connection

    def forget(self, connection: Connection) -> None:
        """Remove a connection that has ended. One that superseded it stays."""
        self._live.discard(connection)
        if not self._live:
            self._none_live.set()
        device = connection.device
        key = (device.kind, device.number)
        slots = self._by_number.get(key, {})
        if slots.get(device.slot) is connection:
            del slots[device.slot]
            if not slots:
                del self._by_number[key]

    def deliver(self, recipient: Recipient, in_language: Callable[[str], str]) -> None:
        """Queue a message for the recipient's connected devices, each in its language."""
        slots = self._by_number.get((recipient.kind, recipient.number))
        if slots is None:
            return
        texts: dict[str, str] = {}
        for slot, connection in list(slots.items()):
            if recipient.slot not in (None, slot) or recipient.not_slot == slot:
                continue
            language = connection.language
            if language not in texts:
                texts[language] = in_language(language)
            connection.deliver(texts[language])

    def is_online(self, recipient: Recipient) -> bool:
        """Return whether any device of the recipient is connected."""
        return (recipient.kind, recipient.number) in self._by_number

    def revoke(self, device: DeviceId, generation: int) -> None:
        """Close the device's connection unless its key is of this generation; a revoked device's never is."""
        connection = self.of(device)
        if connection is not None and connection.generation != generation:
            connection.close(CloseCode.REVOKED, "this device's key is no longer valid")

    async def all_gone(self) -> None:
        """Wait until no device is connected."""
        await self._none_live.wait()
