"""After a gap, connected devices receive what they may have missed, in pages and at their own speed."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import UUID

import pytest

from pos_server.core.credentials.device_keys import DeviceId, DeviceKind
from pos_server.core.errors import CloseCode
from pos_server.core.protocol.notices import Recipient
from pos_server.core.protocol.server_messages import PinChanged
from pos_server.delivery.connections import Connection, Connections
from pos_server.gateway.catch_up import CatchUp
from pos_server.gateway.device import DeviceEndpoint, ReplayPage
from pos_server.ledger.history import Cursor
from pos_server.limits import OutboxLimits
from tests.delivery.test_connections import OTHER_PHONE, PHONE, TILL, Peer, opened, until

pytestmark = pytest.mark.asyncio
PAGE = 3
LAG_MS = 100


class Ledger:
    """A fake pool and endpoint: wallets with numbered changes, one in each millisecond."""

    kind = DeviceKind.WALLET

    def __init__(self, changes: int) -> None:
        self.changes = changes
        self.changed = {PHONE.number}
        self.failures = 0
        self.error: Exception = OSError("away")
        self.asked: list[tuple[Sequence[int], int]] = []
        self.reads = 0

    async def fetch(self, statement: str, numbers: Sequence[int], since_ms: int) -> list[dict[str, int]]:
        self._fail()
        self.asked.append((numbers, since_ms))
        return [{"number": number} for number in numbers if number in self.changed]

    async def missed(self, number: int, language: str, after: Cursor, payments_max: int) -> ReplayPage:
        self._fail()
        self.reads += 1
        times_ms = range(after.changed_at_ms + 1, min(after.changed_at_ms + payments_max, self.changes) + 1)
        messages = [PinChanged(reply_to=None, text=f"<{at_ms}>") for at_ms in times_ms]
        is_last = not times_ms or times_ms[-1] >= self.changes
        return ReplayPage(messages, 0, None if is_last else Cursor(times_ms[-1], UUID(int=0), 0))

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise self.error


def catch_up_of(ledger: Ledger, connections: Connections) -> CatchUp:
    endpoint = cast("DeviceEndpoint[Any]", ledger)
    return CatchUp(cast("Any", ledger), connections, [endpoint], page_payments=PAGE, lag_ms=LAG_MS)


@asynccontextmanager
async def catching_up(ledger: Ledger, connections: Connections) -> AsyncIterator[CatchUp]:
    catch_up = catch_up_of(ledger, connections)
    task = asyncio.create_task(catch_up.run())
    try:
        yield catch_up
    finally:
        task.cancel()
        await asyncio.wait([task])


def texts(peer: Peer) -> list[int]:
    return [int(text.partition("<")[2].partition(">")[0]) for text in peer.received]


def connected(device: DeviceId = PHONE, messages_max: int = 10) -> tuple[Connections, Peer, Connection]:
    connections, peer = Connections(OutboxLimits(messages_max, 10_000)), Peer()
    return connections, peer, opened(connections, device, peer)


async def test_all_pages_arrive_in_order() -> None:
    connections, peer, _ = connected()
    ledger = Ledger(changes=20)
    async with catching_up(ledger, connections) as catch_up:
        catch_up.request(LAG_MS)
        await until(lambda: len(peer.received) == 20)
    assert texts(peer) == list(range(1, 21))
    assert ledger.asked == [([PHONE.number], 0)]


async def test_devices_without_changes_are_not_read() -> None:
    connections, peer, _ = connected()
    ledger = Ledger(changes=20)
    ledger.changed = set()
    async with catching_up(ledger, connections) as catch_up:
        catch_up.request(LAG_MS)
        await until(lambda: len(ledger.asked) == 1)
    assert (ledger.reads, peer.received) == (0, [])


async def test_only_the_devices_of_the_recipient_are_read() -> None:
    connections, peer, _ = connected()
    other, tablet = Peer(), Peer()
    opened(connections, DeviceId(DeviceKind.WALLET, 7), other)
    opened(connections, OTHER_PHONE, tablet)
    ledger = Ledger(changes=2)
    ledger.changed = {7, PHONE.number}
    async with catching_up(ledger, connections) as catch_up:
        catch_up.request(LAG_MS, Recipient(DeviceKind.WALLET, PHONE.number))
        await until(lambda: len(peer.received) == len(tablet.received) == 2)
    assert other.received == []


async def test_a_page_is_read_when_the_device_has_taken_the_one_before() -> None:
    connections, peer, connection = connected(messages_max=PAGE + 1)
    peer.reads.clear()
    ledger = Ledger(changes=20)
    async with catching_up(ledger, connections) as catch_up:
        catch_up.request(LAG_MS)
        await until(lambda: ledger.reads == 1)
        for _ in range(100):
            await asyncio.sleep(0)
        assert ledger.reads == 1
        connection.deliver('{"live": "<99>"}')
        peer.reads.set()
        await until(lambda: len(peer.received) == 21)
    assert sorted(texts(peer)) == [*range(1, 21), 99]


async def test_a_device_that_takes_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pos_server.gateway.catch_up._PAGE_WITHIN_S", 0.01)
    connections, peer, connection = connected(messages_max=PAGE + 1)
    peer.reads.clear()
    async with catching_up(Ledger(changes=20), connections) as catch_up:
        catch_up.request(LAG_MS)
        await until(lambda: connection.is_closing)
        peer.reads.set()
        await until(lambda: peer.closed is not None)
    assert peer.closed == (CloseCode.SLOW_CONSUMER, "too many messages unread")


async def test_a_device_that_signs_in_gets_its_pages_after_ready() -> None:
    connections, peer = Connections(OutboxLimits(10, 10_000)), Peer()
    connection = connections.open(PHONE, 1, connections.arrival(), "en", peer.websocket, lambda text: False)
    ledger = Ledger(changes=20)
    async with catching_up(ledger, connections) as catch_up:
        catch_up.request(LAG_MS)
        await until(lambda: len(ledger.asked) == 1)
        assert ledger.reads == 0
        connection.start(["ready <0>"])
        await until(lambda: len(peer.received) == 21)
    assert texts(peer) == list(range(21))


async def test_while_the_database_is_away_the_gap_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pos_server.gateway.catch_up._RETRY_PAUSE_S", 0)
    connections, peer, _ = connected()
    ledger = Ledger(changes=20)
    ledger.failures = 3
    async with catching_up(ledger, connections) as catch_up:
        catch_up.request(LAG_MS)
        await until(lambda: ledger.failures == 0 and len(peer.received) == 20)
        ledger.failures = 1  # in the middle of the pages
        catch_up.request(LAG_MS + 10)
        await until(lambda: len(peer.received) == 30)
    assert texts(peer) == [*range(1, 21), *range(11, 21)]


async def test_devices_of_another_kind_and_closed_ones_are_left_out() -> None:
    connections, _, connection = connected()
    till = Peer()
    opened(connections, TILL, till)
    connection.close(CloseCode.DRAINING, "bye")
    ledger = Ledger(changes=20)
    async with catching_up(ledger, connections) as catch_up:
        catch_up.request(LAG_MS)
        await until(lambda: len(ledger.asked) == 1)
    assert (ledger.reads, till.received) == (0, [])


async def test_requests_and_half_served_devices_survive_a_failure() -> None:
    """A second run goes on where the first one failed: with the request, and with the page that was not delivered."""
    connections, peer, _ = connected(messages_max=PAGE + 1)
    peer.reads.clear()
    ledger = Ledger(changes=20)
    catch_up = catch_up_of(ledger, connections)
    first = asyncio.create_task(catch_up.run())
    catch_up.request(LAG_MS)
    await until(lambda: ledger.reads == 1)
    first.cancel()
    await asyncio.wait([first])
    peer.reads.set()
    second = asyncio.create_task(catch_up.run())
    await until(lambda: len(set(texts(peer))) == 20)
    second.cancel()
    await asyncio.wait([second])
    assert list(dict.fromkeys(texts(peer))) == list(range(1, 21))


async def test_a_query_that_fails_unexpectedly_forgets_no_request() -> None:
    connections, peer, _ = connected()
    ledger = Ledger(changes=2)
    ledger.failures, ledger.error = 1, RuntimeError("a bug")
    catch_up = catch_up_of(ledger, connections)
    catch_up.request(LAG_MS)
    with pytest.raises(RuntimeError, match="a bug"):
        await catch_up.run()
    second = asyncio.create_task(catch_up.run())
    await until(lambda: len(peer.received) == 2)
    second.cancel()
    await asyncio.wait([second])
