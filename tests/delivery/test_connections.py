"""Outboxes: ordered and bounded; a slow peer affects only itself."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.websockets import WebSocket
from structlog.testing import capture_logs

from pos_server.core.credentials.device_keys import DeviceId, DeviceKind
from pos_server.core.errors import CloseCode, ConnectionClosing
from pos_server.core.protocol.notices import Recipient
from pos_server.delivery.connections import Connection, Connections
from pos_server.limits import OutboxLimits
from pos_server.telemetry.metrics import Metrics

pytestmark = pytest.mark.asyncio

TILL = DeviceId(DeviceKind.TERMINAL, 1001)
PHONE = DeviceId(DeviceKind.WALLET, 1_000_000_001, 0)
OTHER_PHONE = DeviceId(DeviceKind.WALLET, 1_000_000_001, 1)


def no_room(text: str) -> bool:
    """A socket that accepts nothing immediately, so that every message passes through the outbox."""
    return False


class Peer:
    """A fake peer of a WebSocket. It reads messages while `reads` is set."""

    def __init__(self) -> None:
        self.received: list[str] = []
        self.closed: tuple[int, str] | None = None
        self.reads = asyncio.Event()
        self.reads.set()
        self.gone = False
        self.bug: Exception | None = None
        self.websocket = WebSocket({"type": "websocket"}, self._receive, self._send)
        self.websocket.application_state = self.websocket.client_state = self.websocket.client_state.CONNECTED

    async def _receive(self) -> Any:
        raise AssertionError("the writer does not read")

    async def _send(self, event: Any) -> None:
        # A close is sent even if the peer does not read.
        if event["type"] == "websocket.send":
            await self.reads.wait()
        if self.bug is not None and event["type"] == "websocket.send":
            raise self.bug
        if self.gone:
            raise OSError("gone")
        if event["type"] == "websocket.send":
            self.received.append(event["text"])
        else:
            self.closed = (event["code"], event["reason"])


async def until(condition: Callable[[], bool]) -> None:
    """Run the event loop until `condition` holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the writer has no event for tests
            await asyncio.sleep(0)


def in_any_language(text: str) -> Callable[[str], str]:
    """Return a notice with the same text in every language."""
    return lambda language: text


def opened(connections: Connections, device: DeviceId, peer: Peer) -> Connection:
    connection = connections.open(device, 1, connections.arrival(), "en", peer.websocket, no_room)
    connection.start([])
    return connection


async def test_messages_arrive_in_order_before_the_close() -> None:
    connections, peer = Connections(OutboxLimits(10, 10_000)), Peer()
    connection = opened(connections, TILL, peer)
    for text in ("one", "two", "three"):
        connections.deliver(Recipient(TILL.kind, TILL.number), in_any_language(text))
    connection.close(CloseCode.DRAINING, "bye")
    connection.deliver("after the end")
    await connection.ended()
    assert peer.received == ["one", "two", "three"]
    assert peer.closed == (CloseCode.DRAINING, "bye")


async def test_messages_delivered_before_the_start_follow_the_first_messages() -> None:
    connections, peer = Connections(OutboxLimits(10, 10_000)), Peer()
    connection = connections.open(TILL, 1, connections.arrival(), "en", peer.websocket, no_room)
    connection.deliver("live")
    await asyncio.sleep(0)
    assert peer.received == []
    connection.start(["ready", "missed"])
    connection.deliver("later")
    await until(lambda: len(peer.received) == 4)
    assert peer.received == ["ready", "missed", "live", "later"]


async def test_messages_before_and_after_a_pause_are_all_sent() -> None:
    connections, peer = Connections(OutboxLimits(10, 10_000)), Peer()
    connection = opened(connections, TILL, peer)
    for number in range(50):
        connection.deliver(str(number))
        await until(lambda number=number: len(peer.received) == number + 1)  # type: ignore[misc]
    assert peer.received == [str(number) for number in range(50)]


async def test_a_notice_goes_to_all_devices_of_the_wallet_and_to_no_other() -> None:
    connections = Connections(OutboxLimits(10, 10_000))
    peers = {device: Peer() for device in (PHONE, OTHER_PHONE, TILL)}
    for device, peer in peers.items():
        opened(connections, device, peer)
    connections.deliver(Recipient(DeviceKind.WALLET, PHONE.number), in_any_language("paid"))
    connections.deliver(Recipient(DeviceKind.WALLET, 42), in_any_language("nobody is there"))
    for connection in connections:
        connection.close(CloseCode.DRAINING, "bye")
        await connection.ended()
    assert [peer.received for peer in peers.values()] == [["paid"], ["paid"], []]


@pytest.mark.parametrize("limits", [OutboxLimits(3, 10_000), OutboxLimits(100, 5)], ids=["messages", "bytes"])
async def test_a_slow_peer_is_closed_and_others_are_not_delayed(limits: OutboxLimits) -> None:
    connections, slow, healthy = Connections(limits), Peer(), Peer()
    slow.reads.clear()
    opened(connections, PHONE, slow)
    opened(connections, OTHER_PHONE, healthy)
    for number in range(20):
        connections.deliver(Recipient(DeviceKind.WALLET, PHONE.number), in_any_language(str(number)))
        await until(lambda number=number: len(healthy.received) == number + 1)  # type: ignore[misc]
    await until(lambda: slow.closed is not None)
    assert slow.received == []
    assert slow.closed is not None
    assert slow.closed[0] == CloseCode.SLOW_CONSUMER


async def test_slow_peers_and_waits_in_the_outbox_are_counted() -> None:
    metrics = Metrics()
    connections, slow, late = Connections(OutboxLimits(1, 10_000), metrics), Peer(), Peer()
    slow.reads.clear()
    late.reads.clear()
    opened(connections, PHONE, slow)
    opened(connections, TILL, late)
    for number in range(10):
        connections.deliver(Recipient(DeviceKind.WALLET, PHONE.number), in_any_language(str(number)))
    connections.deliver(Recipient(DeviceKind.TERMINAL, TILL.number), in_any_language("waits"))
    await until(lambda: slow.closed is not None)
    drops = {kind: metrics.registry.get_sample_value("pos_outbox_drops_total", {"kind": kind}) for kind in DeviceKind}
    assert drops == {DeviceKind.TERMINAL: 0, DeviceKind.WALLET: 1}
    assert pushes(metrics) == 0
    late.reads.set()
    await until(lambda: late.received == ["waits"])
    assert pushes(metrics) == 1


async def test_replayed_messages_are_not_counted_as_pushes() -> None:
    metrics, peer = Metrics(), Peer()
    connections = Connections(OutboxLimits(10, 10_000), metrics)
    connections.open(TILL, 1, connections.arrival(), "en", peer.websocket, no_room).start(["ready", "missed"])
    await until(lambda: peer.received == ["ready", "missed"])
    assert pushes(metrics) == 0


def pushes(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("pos_push_seconds_count")


async def test_a_burst_larger_than_the_outbox_closes_the_connection() -> None:
    connections, peer = Connections(OutboxLimits(2, 10_000)), Peer()
    connection = opened(connections, TILL, peer)
    connection.deliver("sent before")
    await until(lambda: peer.received == ["sent before"])
    for number in range(5):
        connection.deliver(str(number))
    await connection.ended()
    assert peer.received == ["sent before"]
    assert peer.closed == (CloseCode.SLOW_CONSUMER, "too many messages unread")


async def test_a_newer_connection_supersedes_the_older_one() -> None:
    connections, old, new = Connections(OutboxLimits(10, 10_000)), Peer(), Peer()
    first = opened(connections, TILL, old)
    second = opened(connections, TILL, new)
    await first.ended()
    connections.forget(first)
    assert old.closed == (CloseCode.SUPERSEDED, "this device connected again")
    connections.deliver(Recipient(TILL.kind, TILL.number), in_any_language("for the new one"))
    second.close(CloseCode.DRAINING, "bye")
    await second.ended()
    assert (old.received, new.received) == ([], ["for the new one"])


async def test_a_connection_that_authenticates_late_does_not_supersede_its_successor() -> None:
    """A till reconnects during its authentication, and the server finishes the old connection last."""
    connections, late, live = Connections(OutboxLimits(10, 10_000)), Peer(), Peer()
    earlier_arrival, arrival = connections.arrival(), connections.arrival()
    connection = connections.open(TILL, 1, arrival, "en", live.websocket, no_room)
    connection.start([])
    with pytest.raises(ConnectionClosing) as closing:
        connections.open(TILL, 1, earlier_arrival, "en", late.websocket, no_room)
    assert closing.value.code == CloseCode.SUPERSEDED
    connections.deliver(Recipient(TILL.kind, TILL.number), in_any_language("result"))
    await until(lambda: live.received == ["result"])
    await connection.ended()


async def test_only_an_older_key_is_revoked() -> None:
    connections, peer, other = Connections(OutboxLimits(10, 10_000)), Peer(), Peer()
    connection = opened(connections, TILL, peer)
    current = opened(connections, PHONE, other)
    for device, generation in ((TILL, 2), (PHONE, 1), (OTHER_PHONE, 9)):
        connections.revoke(device, generation)
    await until(lambda: peer.closed is not None)
    assert peer.closed is not None
    assert peer.closed[0] == CloseCode.REVOKED
    await connection.ended()
    await current.ended()
    assert other.closed is None


async def test_the_writer_ends_when_the_peer_is_gone() -> None:
    connections, peer = Connections(OutboxLimits(10, 10_000)), Peer()
    peer.gone = True
    connection = opened(connections, TILL, peer)
    connection.deliver("into the void")
    await connection.ended()
    assert (peer.received, peer.closed) == ([], None)


async def test_all_gone_waits_for_the_last_connection() -> None:
    connections = Connections(OutboxLimits(10, 10_000))
    await connections.all_gone()
    for device in (TILL, PHONE):
        opened(connections, device, Peer())
    assert len(connections) == 2
    waiting = asyncio.create_task(connections.all_gone())
    for connection in connections:
        assert not waiting.done()
        connection.close(CloseCode.DRAINING, "bye")
        await connection.ended()
        connections.forget(connection)
        await asyncio.sleep(0)
    await waiting
    assert len(connections) == 0


async def test_messages_to_a_peer_that_is_gone_are_no_fault() -> None:
    """The reader notices the loss later than the writer; until then messages are still delivered."""
    connections, peer = Connections(OutboxLimits(10, 10_000)), Peer()
    connection = opened(connections, TILL, peer)
    peer.gone = True
    for text in ("one", "two"):
        connection.deliver(text)
        await until(lambda: connection._writer is None)
    connection.close(CloseCode.UNAVAILABLE, "")
    await until(lambda: connection._writer is None)
    assert peer.received == []


async def test_a_writer_that_fails_unexpectedly_is_logged_and_closes_the_connection() -> None:
    """The message is lost, so the device must connect again and catch up."""
    connections, peer = Connections(OutboxLimits(10, 10_000)), Peer()
    peer.bug = ValueError("a bug")
    connection = opened(connections, TILL, peer)
    with capture_logs() as logs:
        connection.deliver("lost")
        connection.deliver("never sent")
        await until(lambda: peer.closed is not None)
        await connection.ended()
    assert peer.closed == (CloseCode.UNAVAILABLE, "server fault, come back")
    assert peer.received == []
    assert [(log["event"], log["number"]) for log in logs] == [("send_failed", TILL.number)]
