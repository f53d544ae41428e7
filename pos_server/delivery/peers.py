"""Several servers on one database notify each other's devices, through LISTEN and NOTIFY.

Messages on the channel, as JSON:

    hello, alive, bye      presence; a server is known as long as it sends
    present                all devices of a server, for servers that it has just met
    opened, closed         one device connected or disconnected
    told                   a notice for a device that is connected there
    missed                 the same, when the notice is too long for the channel
    revoked                a device has a new key
    gap                    the sender may have lost messages, its own and those for it, for some seconds

A server without peers sends `alive` every few seconds and nothing else.

A notice is lost when its server ends, stalls or loses its connection between the commit and the message. The
server that finds out reads the rows for its devices (`catch_up`), from the last sign of life on:

- a peer is silent: it may have committed payments without notices;
- this server was silent: its peers may have forgotten it, and sent it nothing;
- a peer says that it had a gap.
"""

import asyncio
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import orjson
import structlog

from ..core.credentials.device_keys import DeviceId, DeviceKind
from ..core.errors import CloseCode
from ..core.protocol.codec import encode
from ..core.protocol.notices import Notice, Recipient
from ..core.texts import LANGUAGES
from ..ledger.database import connect
from ..ledger.failures import DATABASE_ERRORS, Phase, report
from ..ledger.sql import QUERIES
from ..limits import PEER_SILENT_INTERVALS
from .connections import Connection, Connections

log = structlog.get_logger(__name__)

CHANNEL = "pos_peers"
# An advisory lock that every listening server shares: the ASCII of "pos-peer", as its two halves.
_LOCK = (int.from_bytes(b"pos-"), int.from_bytes(b"peer"))
# Postgres takes less than 8000 bytes.
_PAYLOAD_BYTES_MAX = 7_900
_PRESENT_PER_MESSAGE = 300
_SEND_MAX = 500
# Longer than a message takes from server to server. A device that opens elsewhere may have missed notices of this age.
_RECENT_S = 2.0
_RECENT_MAX = 20_000
# A ghost: a connection that arrived this much earlier than ours and opened after it. Its device has given it up.
_GHOST_S = 0.5
_MEET_WITHIN_S = 1.0


@dataclass(slots=True)
class _Peer:
    """Another server: the time of its last message, and its number of connections per recipient."""

    last_message_s: float
    online: Counter[Recipient] = field(default_factory=Counter)


# Delivers the payments that have changed since a time (Unix ms) to all connected devices, or to one recipient.
CatchUp = Callable[[int, Recipient | None], None]


class Peers:
    """The other servers on the same database, and the devices that are connected to them."""

    def __init__(
        self,
        dsn: str,
        connections: Connections,
        *,
        now_ms: Callable[[], int],
        alive_s: float,
        queue_max: int,
        timeout_s: float,
    ) -> None:
        self._dsn = dsn
        self._connections = connections
        self._catch_up: CatchUp | None = None
        self._now_ms = now_ms
        self._alive_s = alive_s
        self._queue_max = queue_max
        self._timeout_s = timeout_s
        self._me = secrets.token_hex(8)
        self._peers: dict[str, _Peer] = {}
        self._queue: deque[str] = deque()
        # By recipient as well, because every device that opens elsewhere looks its notices up.
        self._recent: deque[tuple[float, Notice]] = deque()
        self._recent_of: dict[Recipient, deque[Notice]] = {}
        self._in_flight: set[DeviceId] = set()
        self._wake = asyncio.Event()
        self._met = asyncio.Event()
        self._lost_connection = False
        # The last time at which this server was known to receive and to send.
        self._in_touch_s = time.monotonic()
        self._connection: asyncpg.Connection | None = None

    # --- outgoing

    def notify(self, notice: Notice) -> None:
        """Pass a notice on to every server where its recipient is connected."""
        if not self._peers:
            return
        self._remember(notice)
        if self.is_online(notice.recipient):
            self._relay(notice)

    def is_online(self, recipient: Recipient) -> bool:
        """Return whether any device of the recipient is connected to another server."""
        anyone = Recipient(recipient.kind, recipient.number)
        return any(peer.online[anyone] > 0 for peer in self._peers.values())

    def opened(self, connection: Connection) -> None:
        """Announce that a device has connected here."""
        if self._peers:
            self._in_flight.add(connection.device)
            age_s = max(0.0, self._clock() - connection.arrival)
            self._send_later("opened", **_device(connection.device), age_s=age_s)

    def closed(self, device: DeviceId) -> None:
        """Announce that a device's connection here has ended."""
        self._in_flight.discard(device)
        if self._peers:
            self._send_later("closed", **_device(device))

    def revoked(self, device: DeviceId, generation: int) -> None:
        """Announce that a device has a new key."""
        if self._peers:
            self._send_later("revoked", **_device(device), generation=generation)

    # --- lifecycle

    async def start(self, catch_up: CatchUp) -> None:
        """Listen, and meet the running servers. `catch_up` delivers what devices missed. Raises asyncpg's errors."""
        self._catch_up = catch_up
        self._in_touch_s = self._clock()
        connection = await self._listening()
        await connection.execute(QUERIES["notify_peers"], [self._message("hello")])
        if await connection.fetchval(QUERIES["has_peers"], *_LOCK):
            try:
                async with asyncio.timeout(_MEET_WITHIN_S):
                    await self._met.wait()
            except TimeoutError:
                pass  # that server may be ending

    async def run(self) -> None:
        """Send queued messages, and a sign of life, until cancelled."""
        try:
            while True:
                try:
                    async with asyncio.timeout(self._alive_s):
                        await self._wake.wait()
                except TimeoutError:
                    self._send_later("alive")
                self._wake.clear()
                self._forget_silent()
                await self._send()
        finally:
            await self._leave()

    async def _send(self) -> None:
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), _SEND_MAX))]
            try:
                async with asyncio.timeout(self._timeout_s):
                    connection = await self._listening()
                    await connection.execute(QUERIES["notify_peers"], batch)
                    self._stayed_in_touch()
            except DATABASE_ERRORS as error:
                report(error, Phase.READ, during="notifying peers")
                self._disconnected()
                return

    async def _listening(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            if self._connection is not None:
                self._disconnected()
            connection = await connect(self._dsn, timeout_s=self._timeout_s)
            # Notices are not money, so nothing waits for the disk. Another server sees the lock when it starts.
            await connection.execute("set synchronous_commit = off")
            await connection.execute(QUERIES["join_peers"], *_LOCK)
            await connection.add_listener(CHANNEL, self._on_notification)
            self._connection = connection
        return self._connection

    def _stayed_in_touch(self) -> None:
        """Record that messages were sent, and repair a gap before them."""
        gap_s = self._clock() - self._in_touch_s
        if self._lost_connection or gap_s > PEER_SILENT_INTERVALS * self._alive_s:
            self._lost_connection = False
            self._send_later("hello")
            self._send_present()
            self._send_later("gap", age_s=gap_s)
            self._read_gap(gap_s)
        self._in_touch_s = self._clock()

    def _disconnected(self) -> None:
        """Drop the connection. Messages of peers are lost meanwhile, and our own too."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
        self._in_flight.clear()
        self._lost_connection = True

    async def _leave(self) -> None:
        if self._connection is None:
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._connection.execute(QUERIES["notify_peers"], [*self._queue, self._message("bye")])
                await self._connection.close()
        except DATABASE_ERRORS:
            self._connection.terminate()

    def _forget_silent(self) -> None:
        now_s = self._clock()
        for name, peer in list(self._peers.items()):
            silent_s = now_s - peer.last_message_s
            if silent_s > PEER_SILENT_INTERVALS * self._alive_s:
                log.info("peer_silent", peer=name)
                del self._peers[name]
                self._read_gap(silent_s)

    # --- incoming

    def _on_notification(self, connection: Any, pid: int, channel: str, payload: object) -> None:
        try:
            message = orjson.loads(str(payload))
            self._on_message(message)
        except (ValueError, KeyError, TypeError, AttributeError):
            log.warning("peer_message_invalid", channel=channel)

    def _on_message(self, message: dict[str, Any]) -> None:
        kind, sender = message["type"], message["from"]
        if sender == self._me:
            if kind == "opened":
                self._in_flight.discard(_device_of(message))
            return
        if kind == "bye":
            self._peers.pop(sender, None)
            return
        peer = self._peers.get(sender)
        if peer is None or kind == "hello":
            if kind not in ("hello", "present"):
                self._send_later("hello")  # the two had lost each other
            peer = self._meet(sender)
        peer.last_message_s = self._clock()
        match kind:
            case "present":
                if message["first"]:
                    peer.online.clear()
                peer.online.update(Recipient(DeviceKind(kind), number) for kind, number in message["devices"])
            case "opened":
                device = _device_of(message)
                peer.online[Recipient(device.kind, device.number)] += 1
                self._on_opened(device, message["age_s"])
            case "closed":
                device = _device_of(message)
                recipient = Recipient(device.kind, device.number)
                peer.online[recipient] -= 1
                if peer.online[recipient] <= 0:
                    del peer.online[recipient]
            case "told":
                recipient = Recipient(DeviceKind(message["kind"]), *message["to"])
                texts = message["texts"]
                self._connections.deliver(recipient, lambda language: str(texts[language]))
            case "missed":
                recipient = Recipient(DeviceKind(message["kind"]), *message["to"])
                self._read_gap(_RECENT_S, recipient)
            case "revoked":
                self._connections.revoke(_device_of(message), message["generation"])
            case "gap":
                # A server of an earlier version does not send its age.
                self._read_gap(message.get("age_s", 5 * self._alive_s))

    def _meet(self, name: str) -> _Peer:
        log.info("peer_met", peer=name)
        peer = self._peers[name] = _Peer(self._clock())
        self._met.set()
        self._send_present()
        return peer

    def _send_present(self) -> None:
        devices = [(device.kind, device.number) for device in (c.device for c in self._connections)]
        for start in range(0, max(1, len(devices)), _PRESENT_PER_MESSAGE):
            self._send_later("present", first=start == 0, devices=devices[start : start + _PRESENT_PER_MESSAGE])

    def _on_opened(self, device: DeviceId, age_s: float) -> None:
        """Handle a device's connection to another server: the later one stays, and gets notices it may have missed."""
        self._connections_give_way(device, age_s)
        self._forget_recent()
        recent = list(self._recent_of.get(Recipient(device.kind, device.number), ()))
        for notice in recent:
            self._relay(notice)
        if recent and device.kind is DeviceKind.WALLET:
            # These show earlier balances. The last message must show the current one, from the rows.
            self._relay_missed(recent[-1].recipient)

    def _remember(self, notice: Notice) -> None:
        if len(self._recent) >= _RECENT_MAX:
            self._forget_recent(at_least=1)
        anyone = Recipient(notice.recipient.kind, notice.recipient.number)
        self._recent.append((self._clock(), notice))
        self._recent_of.setdefault(anyone, deque()).append(notice)

    def _forget_recent(self, at_least: int = 0) -> None:
        limit_s = self._clock() - _RECENT_S
        while self._recent and (at_least > 0 or self._recent[0][0] < limit_s):
            at_least -= 1
            _, oldest = self._recent.popleft()
            anyone = Recipient(oldest.recipient.kind, oldest.recipient.number)
            of_recipient = self._recent_of[anyone]
            of_recipient.popleft()
            if not of_recipient:
                del self._recent_of[anyone]

    def _connections_give_way(self, device: DeviceId, age_s: float) -> None:
        mine = self._connections.of(device)
        if mine is None or device in self._in_flight:
            return  # ours was opened later: every server receives its message after the other's
        if self._clock() - age_s < mine.arrival - _GHOST_S:
            self.opened(mine)  # the other one is a ghost: announce ours again, so that it is closed
            return
        mine.close(CloseCode.SUPERSEDED, "this device connected again")

    # --- helpers

    def _relay(self, notice: Notice) -> None:
        recipient = notice.recipient
        texts = {language: encode(notice.render(language)) for language in LANGUAGES}
        message = self._message("told", kind=recipient.kind, to=_to(recipient), texts=texts)
        if len(message.encode()) > _PAYLOAD_BYTES_MAX:
            self._relay_missed(recipient)
        else:
            self._enqueue(message)

    def _relay_missed(self, recipient: Recipient) -> None:
        self._send_later("missed", kind=recipient.kind, to=_to(recipient))

    def _send_later(self, kind: str, /, **fields: Any) -> None:
        self._enqueue(self._message(kind, **fields))

    def _message(self, kind: str, /, **fields: Any) -> str:
        return orjson.dumps({"type": kind, "from": self._me, **fields}).decode()

    def _enqueue(self, message: str) -> None:
        if len(self._queue) >= self._queue_max:
            log.warning("peers_queue_full", dropped=len(self._queue))
            self._queue.clear()
            self._send_present()
            self._queue.append(self._message("gap", age_s=self._clock() - self._in_touch_s))
        self._queue.append(message)
        self._wake.set()

    def _read_gap(self, age_s: float, only: Recipient | None = None) -> None:
        """Deliver what has changed in the rows in the last seconds to the devices that are connected here."""
        if self._catch_up is not None:
            self._catch_up(self._now_ms() - int(age_s * 1000), only)

    def _clock(self) -> float:
        return time.monotonic()


def _to(recipient: Recipient) -> tuple[int, int | None, int | None]:
    return recipient.number, recipient.slot, recipient.not_slot


def _device(device: DeviceId) -> dict[str, Any]:
    return {"kind": device.kind, "number": device.number, "slot": device.slot}


def _device_of(message: dict[str, Any]) -> DeviceId:
    return DeviceId(DeviceKind(message["kind"]), message["number"], message["slot"])
