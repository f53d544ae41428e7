"""Outboxes: in order, bounded, and a peer that does not read harms only itself."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.websockets import WebSocket

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
    """A socket that takes nothing at once, so that everything passes the outbox."""
    return False


class Peer:
    """The far end of a WebSocket. It takes messages while `reads` is set."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.closed: tuple[int, str] | None = None
        self.reads = asyncio.Event()
        self.reads.set()
        self.gone = False
        self.websocket = WebSocket({"type": "websocket"}, self._receive, self._send)
        self.websocket.application_state = self.websocket.client_state = self.websocket.client_state.CONNECTED

    async def _receive(self) -> Any:
        raise AssertionError("the writer does not read")

    async def _send(self, event: Any) -> None:
        # A close goes out whether or not the peer reads: see server.py.
        if event["type"] == "websocket.send":
            await self.reads.wait()
        if self.gone:
            raise OSError("gone")
        if event["type"] == "websocket.send":
            self.got.append(event["text"])
        else:
            self.closed = (event["code"], event["reason"])


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until `condition` holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the writer has no event for tests
            await asyncio.sleep(0)


def said(text: str) -> Callable[[str], str]:
    """The same text in every language."""
    return lambda language: text


def opened(connections: Connections, device: DeviceId, peer: Peer) -> Connection:
    connection = connections.open(device, 1, connections.arrival(), "en", peer.websocket, no_room)
    connection.start([])
    return connection


async def test_messages_arrive_in_order_and_the_close_comes_after_them() -> None:
    connections, peer = Connections(OutboxLimits(10, 10_000)), Peer()
    connection = opened(connections, TILL, peer)
    for text in ("one", "two", "three"):
        connections.deliver(Recipient(TILL.kind, TILL.number), said(text))
    connection.close(CloseCode.DRAINING, "bye")
    connection.deliver("after the end")
    await connection.ended()
    assert peer.got == ["one", "two", "three"]
    assert peer.closed == (CloseCode.DRAINING, "bye")


async def test_what_comes_before_the_start_is_sent_after_what_it_starts_with() -> None:
    connections, peer = Connections(OutboxLimits(10, 10_000)), Peer()
    connection = connections.open(TILL, 1, connections.arrival(), "en", peer.websocket, no_room)
    connection.deliver("live")
    await asyncio.sleep(0)
    assert peer.got == []
    connection.start(["ready", "missed"])
    connection.deliver("later")
    await until(lambda: len(peer.got) == 4)
    assert peer.got == ["ready", "missed", "live", "later"]


async def test_messages_before_and_after_a_pause_are_all_sent() -> None:
    connections, peer = Connections(OutboxLimits(10, 10_000)), Peer()
    connection = opened(connections, TILL, peer)
    for number in range(50):
        connection.deliver(str(number))
        await until(lambda number=number: len(peer.got) == number + 1)  # type: ignore[misc]
    assert peer.got == [str(number) for number in range(50)]


async def test_a_wallet_is_told_on_all_its_devices_and_nobody_else() -> None:
    connections = Connections(OutboxLimits(10, 10_000))
    peers = {device: Peer() for device in (PHONE, OTHER_PHONE, TILL)}
    for device, peer in peers.items():
        opened(connections, device, peer)
    connections.deliver(Recipient(DeviceKind.WALLET, PHONE.number), said("paid"))
    connections.deliver(Recipient(DeviceKind.WALLET, 42), said("nobody is there"))
    for connection in connections:
        connection.close(CloseCode.DRAINING, "bye")
        await connection.ended()
    assert [peer.got for peer in peers.values()] == [["paid"], ["paid"], []]


@pytest.mark.parametrize("limits", [OutboxLimits(3, 10_000), OutboxLimits(100, 5)], ids=["messages", "bytes"])
async def test_who_does_not_read_is_cut_and_others_are_not_delayed(limits: OutboxLimits) -> None:
    connections, slow, healthy = Connections(limits), Peer(), Peer()
    slow.reads.clear()
    opened(connections, PHONE, slow)
    opened(connections, OTHER_PHONE, healthy)
    for number in range(20):
        connections.deliver(Recipient(DeviceKind.WALLET, PHONE.number), said(str(number)))
        await until(lambda number=number: len(healthy.got) == number + 1)  # type: ignore[misc]
    await until(lambda: slow.closed is not None)
    assert slow.got == []
    assert slow.closed is not None
    assert slow.closed[0] == CloseCode.SLOW_CONSUMER


async def test_a_cut_and_a_wait_in_an_outbox_are_counted() -> None:
    metrics = Metrics()
    connections, slow, late = Connections(OutboxLimits(1, 10_000), metrics), Peer(), Peer()
    slow.reads.clear()
    late.reads.clear()
    opened(connections, PHONE, slow)
    opened(connections, TILL, late)
    for number in range(10):
        connections.deliver(Recipient(DeviceKind.WALLET, PHONE.number), said(str(number)))
    connections.deliver(Recipient(DeviceKind.TERMINAL, TILL.number), said("waits"))
    await until(lambda: slow.closed is not None)
    drops = {kind: metrics.registry.get_sample_value("pos_outbox_drops_total", {"kind": kind}) for kind in DeviceKind}
    assert drops == {DeviceKind.TERMINAL: 0, DeviceKind.WALLET: 1}
    assert pushes(metrics) == 0
    late.reads.set()
    await until(lambda: late.got == ["waits"])
    assert pushes(metrics) == 1


async def test_what_a_device_has_missed_is_no_push() -> None:
    metrics, peer = Metrics(), Peer()
    connections = Connections(OutboxLimits(10, 10_000), metrics)
    connections.open(TILL, 1, connections.arrival(), "en", peer.websocket, no_room).start(["ready", "missed"])
    await until(lambda: peer.got == ["ready", "missed"])
    assert pushes(metrics) == 0


def pushes(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("pos_push_seconds_count")


async def test_a_burst_larger_than_the_outbox_cuts_without_harm_to_the_sender() -> None:
    connections, peer = Connections(OutboxLimits(2, 10_000)), Peer()
    connection = opened(connections, TILL, peer)
    connection.deliver("sent before")
    await until(lambda: peer.got == ["sent before"])
    for number in range(5):
        connection.deliver(str(number))
    await connection.ended()
    assert peer.got == ["sent before"]
    assert peer.closed == (CloseCode.SLOW_CONSUMER, "too many messages unread")


async def test_a_newer_connection_supersedes_and_outlives_the_older() -> None:
    connections, old, new = Connections(OutboxLimits(10, 10_000)), Peer(), Peer()
    first = opened(connections, TILL, old)
    second = opened(connections, TILL, new)
    await first.ended()
    connections.forget(first)
    assert old.closed == (CloseCode.SUPERSEDED, "this device connected again")
    connections.deliver(Recipient(TILL.kind, TILL.number), said("for the new one"))
    second.close(CloseCode.DRAINING, "bye")
    await second.ended()
    assert (old.got, new.got) == ([], ["for the new one"])


async def test_a_ghost_that_authenticates_late_does_not_throw_out_its_successor() -> None:
    """A till lost its connection while it authenticated, and came again; the server finishes with the old one last."""
    connections, ghost, live = Connections(OutboxLimits(10, 10_000)), Peer(), Peer()
    ghosts_arrival, arrival = connections.arrival(), connections.arrival()
    connection = connections.open(TILL, 1, arrival, "en", live.websocket, no_room)
    connection.start([])
    with pytest.raises(ConnectionClosing) as closing:
        connections.open(TILL, 1, ghosts_arrival, "en", ghost.websocket, no_room)
    assert closing.value.code == CloseCode.SUPERSEDED
    connections.deliver(Recipient(TILL.kind, TILL.number), said("result"))
    await until(lambda: live.got == ["result"])
    await connection.ended()


async def test_only_an_older_key_is_revoked() -> None:
    connections, peer, other = Connections(OutboxLimits(10, 10_000)), Peer(), Peer()
    connection = opened(connections, TILL, peer)
    fine = opened(connections, PHONE, other)
    for device, generation in ((TILL, 2), (PHONE, 1), (OTHER_PHONE, 9)):
        connections.revoke(device, generation)
    await until(lambda: peer.closed is not None)
    assert peer.closed is not None
    assert peer.closed[0] == CloseCode.REVOKED
    await connection.ended()
    await fine.ended()
    assert other.closed is None


async def test_a_peer_that_is_gone_ends_the_writer() -> None:
    connections, peer = Connections(OutboxLimits(10, 10_000)), Peer()
    peer.gone = True
    connection = opened(connections, TILL, peer)
    connection.deliver("into the void")
    await connection.ended()
    assert (peer.got, peer.closed) == ([], None)


async def test_all_gone_waits_for_the_last_one() -> None:
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


async def test_what_comes_after_a_peer_has_gone_is_no_fault() -> None:
    """The reader hears of the loss later than the writer; until then messages are still delivered."""
    connections, peer = Connections(OutboxLimits(10, 10_000)), Peer()
    connection = opened(connections, TILL, peer)
    peer.gone = True
    for text in ("one", "two"):
        connection.deliver(text)
        await until(lambda: connection._writer is None)
    connection.close(CloseCode.UNAVAILABLE, "")
    await until(lambda: connection._writer is None)
    assert peer.got == []
