"""Several servers on one database notify each other's devices, through LISTEN and NOTIFY.

A notice is lost when its server ends, stalls or loses its connection between the commit and the message. The
server that finds out reads the rows for its devices (`catch_up`), from the last sign of life on:

- a peer is silent: it may have committed payments without notices;
- this server was silent: its peers may have forgotten it, and sent it nothing;
- a peer says that it had a gap.

`opened` is lost in a gap as well, so both servers name the devices that connected meanwhile, and older connections of
these devices elsewhere are closed.
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
from .peer_messages import (
    CHANNEL,
    OPENED_PER_MESSAGE,
    PAYLOAD_BYTES_MAX,
    PRESENT_PER_MESSAGE,
    device_fields,
    device_of,
    recipient_fields,
    recipient_of,
)
from .recent_notices import RECENT_S, RecentNotices

log = structlog.get_logger(__name__)

# An advisory lock that every listening server shares: the ASCII of "pos-peer", as its two halves.
_LOCK = (int.from_bytes(b"pos-"), int.from_bytes(b"peer"))
_SEND_MAX = 500
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
        self._recent = RecentNotices()
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
        self._recent.add(notice, self._clock())
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
            self._send_later("opened", **device_fields(connection.device), age_s=age_s)

    def closed(self, device: DeviceId) -> None:
        """Announce that a device's connection here has ended."""
        self._in_flight.discard(device)
        if self._peers:
            self._send_later("closed", **device_fields(device))

    def revoked(self, device: DeviceId, generation: int) -> None:
        """Announce that a device has a new key."""
        if self._peers:
            self._send_later("revoked", **device_fields(device), generation=generation)

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
        """Send queued messages, and a sign of life, until canceled.

        A failure counts as a lost connection: the next run connects again and repairs the gap.
        """
        if self._lost_connection:
            self._send_later("alive")
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
        except Exception:
            self._disconnected()
            raise

    async def leave(self) -> None:
        """Send what is queued and a goodbye, after `run` was canceled. Peers then do not take silence for a gap."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                await connection.execute(QUERIES["notify_peers"], [*self._queue, self._message("bye")])
                await connection.close()
        except DATABASE_ERRORS:
            connection.terminate()
        except Exception:
            log.exception("goodbye_failed")
            connection.terminate()

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
            except asyncio.CancelledError:
                self._queue.extendleft(reversed(batch))  # for `leave`; a repeat does no harm
                raise

    async def _listening(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            if self._connection is not None:
                self._disconnected()
            connection = await connect(self._dsn, timeout_s=self._timeout_s)
            try:
                # Notices are not money, so nothing waits for the disk. Another server sees the lock when it starts.
                await connection.execute("set synchronous_commit = off")
                await connection.execute(QUERIES["join_peers"], *_LOCK)
                await connection.add_listener(CHANNEL, self._on_notification)
            except BaseException:
                connection.terminate()
                raise
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
            self._repair_gap(gap_s)
        self._in_touch_s = self._clock()

    def _disconnected(self) -> None:
        """Drop the connection. Messages of peers are lost meanwhile, and our own too."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
        self._in_flight.clear()
        self._lost_connection = True

    def _forget_silent(self) -> None:
        now_s = self._clock()
        for name, peer in list(self._peers.items()):
            silent_s = now_s - peer.last_message_s
            if silent_s > PEER_SILENT_INTERVALS * self._alive_s:
                log.info("peer_silent", peer=name)
                self._read_gap(silent_s)
                del self._peers[name]

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
                self._in_flight.discard(device_of(message))
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
                device = device_of(message)
                peer.online[Recipient(device.kind, device.number)] += 1
                self._on_opened(device, message["age_s"])
            case "closed":
                device = device_of(message)
                recipient = Recipient(device.kind, device.number)
                peer.online[recipient] -= 1
                if peer.online[recipient] <= 0:
                    del peer.online[recipient]
            case "told":
                recipient = recipient_of(message)
                texts = message["texts"]
                self._connections.deliver(recipient, lambda language: str(texts[language]))
            case "missed":
                recipient = recipient_of(message)
                self._read_gap(RECENT_S, recipient)
            case "revoked":
                self._connections.revoke(device_of(message), message["generation"])
            case "gap":
                # A server of an earlier version does not send its age.
                self._repair_gap(message.get("age_s", 5 * self._alive_s))
            case "opened_in_gap":
                for kind, number, slot, age_s in message["devices"]:
                    self._close_older(DeviceId(DeviceKind(kind), number, slot), age_s)

    def _meet(self, name: str) -> _Peer:
        log.info("peer_met", peer=name)
        peer = self._peers[name] = _Peer(self._clock())
        self._met.set()
        self._send_present()
        return peer

    def _send_present(self) -> None:
        devices = [(device.kind, device.number) for device in (c.device for c in self._connections)]
        for start in range(0, max(1, len(devices)), PRESENT_PER_MESSAGE):
            self._send_later("present", first=start == 0, devices=devices[start : start + PRESENT_PER_MESSAGE])

    def _on_opened(self, device: DeviceId, age_s: float) -> None:
        """Handle a device's connection to another server: the later one stays, and gets notices it may have missed."""
        self._connections_give_way(device, age_s)
        recent = self._recent.of(Recipient(device.kind, device.number), self._clock())
        for notice in recent:
            self._relay(notice)
        if recent and device.kind is DeviceKind.WALLET:
            # These show earlier balances. The last message must show the current one, from the rows.
            self._relay_missed(recent[-1].recipient)

    def _connections_give_way(self, device: DeviceId, age_s: float) -> None:
        mine = self._connections.of(device)
        if mine is None or device in self._in_flight:
            return  # ours was opened later: every server receives its message after the other's
        if self._clock() - age_s < mine.arrival - _GHOST_S:
            self.opened(mine)  # the other one is a ghost: announce ours again, so that it is closed
            return
        mine.close(CloseCode.SUPERSEDED, "this device connected again")

    def _repair_gap(self, age_s: float) -> None:
        """Read the rows of the last seconds, and name the devices that connected here meanwhile."""
        self._read_gap(age_s)
        now_s = self._clock()
        ages_s = [(connection.device, now_s - connection.arrival) for connection in self._connections]
        opened = [
            (device.kind, device.number, device.slot, round(opened_s, 3))
            for device, opened_s in ages_s
            if opened_s <= age_s + RECENT_S
        ]
        for start in range(0, len(opened), OPENED_PER_MESSAGE):
            self._send_later("opened_in_gap", devices=opened[start : start + OPENED_PER_MESSAGE])

    def _close_older(self, device: DeviceId, age_s: float) -> None:
        """Close a device's connection here if it is certainly older than its connection to a peer.

        The two ages are compared without the order of the channel, so both connections stay if they are nearly equal.
        """
        mine = self._connections.of(device)
        if mine is not None and self._clock() - age_s > mine.arrival + RECENT_S:
            mine.close(CloseCode.SUPERSEDED, "this device connected again")

    # --- helpers

    def _relay(self, notice: Notice) -> None:
        recipient = notice.recipient
        texts = {language: encode(notice.render(language)) for language in LANGUAGES}
        message = self._message("told", **recipient_fields(recipient), texts=texts)
        if len(message.encode()) > PAYLOAD_BYTES_MAX:
            self._relay_missed(recipient)
        else:
            self._enqueue(message)

    def _relay_missed(self, recipient: Recipient) -> None:
        self._send_later("missed", **recipient_fields(recipient))

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
