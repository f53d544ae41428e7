"""Outboxes: in order, bounded, and a peer that does not read harms only itself."""

import asyncio
from typing import Any

import pytest
from starlette.websockets import WebSocket

from pos_server.connections import Connections, OutboxLimits
from pos_server.core.device_keys import DeviceId, DeviceKind
from pos_server.core.errors import CloseCode
from pos_server.core.notices import Recipient

pytestmark = pytest.mark.asyncio

TILL = DeviceId(DeviceKind.TERMINAL, 1001)
PHONE = DeviceId(DeviceKind.WALLET, 1_000_000_001, 0)
OTHER_PHONE = DeviceId(DeviceKind.WALLET, 1_000_000_001, 1)


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
        await self.reads.wait()
        if self.gone:
            raise OSError("gone")
        if event["type"] == "websocket.send":
            self.got.append(event["text"])
        else:
            self.closed = (event["code"], event["reason"])


async def test_messages_arrive_in_order_and_the_close_comes_after_them() -> None:
    connections, peer = Connections(OutboxLimits(10, 10_000)), Peer()
    connection = connections.open(TILL, 1, peer.websocket)
    for text in ("one", "two", "three"):
        connections.deliver(Recipient(TILL.kind, TILL.number), text)
    connection.close(CloseCode.DRAINING, "bye")
    connection.deliver("after the end")
    await connection.run_writer()
    assert peer.got == ["one", "two", "three"]
    assert peer.closed == (CloseCode.DRAINING, "bye")


async def test_a_wallet_is_told_on_all_its_devices_and_nobody_else() -> None:
    connections = Connections(OutboxLimits(10, 10_000))
    peers = {device: Peer() for device in (PHONE, OTHER_PHONE, TILL)}
    opened = [connections.open(device, 1, peer.websocket) for device, peer in peers.items()]
    connections.deliver(Recipient(DeviceKind.WALLET, PHONE.number), "paid")
    connections.deliver(Recipient(DeviceKind.WALLET, 42), "nobody is there")
    for connection in opened:
        connection.close(CloseCode.DRAINING, "bye")
        await connection.run_writer()
    assert [peer.got for peer in peers.values()] == [["paid"], ["paid"], []]


async def test_who_does_not_read_is_cut_and_the_sender_never_waits() -> None:
    connections, slow, healthy = Connections(OutboxLimits(3, 10_000)), Peer(), Peer()
    slow.reads.clear()
    stuck = connections.open(PHONE, 1, slow.websocket)
    fine = connections.open(OTHER_PHONE, 1, healthy.websocket)
    writers = [asyncio.create_task(connection.run_writer()) for connection in (stuck, fine)]
    for number in range(20):
        connections.deliver(Recipient(DeviceKind.WALLET, PHONE.number), str(number))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await writers[0]
    assert slow.got == []
    assert healthy.got == [str(number) for number in range(20)]
    fine.close(CloseCode.DRAINING, "bye")
    await writers[1]


async def test_who_reads_again_after_being_cut_learns_why() -> None:
    connections, slow = Connections(OutboxLimits(1, 10_000)), Peer()
    slow.reads.clear()
    connection = connections.open(TILL, 1, slow.websocket)
    writer = asyncio.create_task(connection.run_writer())
    for number in range(5):
        connection.deliver(str(number))
        await asyncio.sleep(0)
    slow.reads.set()
    await writer
    assert slow.closed is not None
    assert slow.closed[0] == CloseCode.SLOW_CONSUMER


async def test_a_burst_larger_than_the_outbox_cuts_without_harm_to_the_sender() -> None:
    connections, peer = Connections(OutboxLimits(2, 10_000)), Peer()
    connection = connections.open(TILL, 1, peer.websocket)
    writer = asyncio.create_task(connection.run_writer())
    connection.deliver("sent before")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for number in range(5):
        connection.deliver(str(number))
    await writer
    assert peer.got == ["sent before"]
    assert peer.closed == (CloseCode.SLOW_CONSUMER, "too many messages unread")


async def test_a_newer_connection_supersedes_and_outlives_the_older() -> None:
    connections, old, new = Connections(OutboxLimits(10, 10_000)), Peer(), Peer()
    first = connections.open(TILL, 1, old.websocket)
    second = connections.open(TILL, 1, new.websocket)
    await first.run_writer()
    connections.forget(first)
    assert old.closed == (CloseCode.SUPERSEDED, "this device connected again")
    connections.deliver(Recipient(TILL.kind, TILL.number), "for the new one")
    second.close(CloseCode.DRAINING, "bye")
    await second.run_writer()
    assert (old.got, new.got) == ([], ["for the new one"])


async def test_a_peer_that_is_gone_ends_the_writer() -> None:
    connections, peer = Connections(OutboxLimits(10, 10_000)), Peer()
    peer.gone = True
    connection = connections.open(TILL, 1, peer.websocket)
    connection.deliver("into the void")
    await connection.run_writer()
    assert (peer.got, peer.closed) == ([], None)


async def test_all_gone_waits_for_the_last_one() -> None:
    connections = Connections(OutboxLimits(10, 10_000))
    await connections.all_gone()
    opened = [connections.open(device, 1, Peer().websocket) for device in (TILL, PHONE)]
    assert len(connections) == 2
    waiting = asyncio.create_task(connections.all_gone())
    for connection in connections:
        connection.close(CloseCode.DRAINING, "bye")
    for connection in opened:
        assert not waiting.done()
        await connection.run_writer()
        connections.forget(connection)
        await asyncio.sleep(0)
    await waiting
    assert len(connections) == 0
