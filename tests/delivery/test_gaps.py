"""Which gaps between servers are read from the rows, and from when on."""

import asyncio
import json

import pytest

from pos_server.core.credentials.device_keys import DeviceId, DeviceKind
from pos_server.core.protocol.notices import Recipient
from pos_server.delivery.connections import Connection, Connections
from pos_server.delivery.peer_messages import CHANNEL
from pos_server.delivery.peers import Peers
from pos_server.limits import PEER_SILENT_INTERVALS, OutboxLimits

pytestmark = pytest.mark.asyncio
NOW_MS = 1_000_000
ALIVE_S = 2.0
SILENT_S = PEER_SILENT_INTERVALS * ALIVE_S


class Clocked(Peers):
    """A server whose time a test sets, and which records the gaps that it reads, as (seconds ago, recipient)."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.gaps: list[tuple[float, Recipient | None]] = []
        super().__init__(
            "",
            Connections(OutboxLimits(1, 1)),
            now_ms=lambda: NOW_MS,
            alive_s=ALIVE_S,
            queue_max=10,
            timeout_s=1,
        )
        self._in_touch_s = self.now_s
        self._catch_up = lambda since_ms, only: self.gaps.append(((NOW_MS - since_ms) / 1000, only))

    def _clock(self) -> float:
        return self.now_s

    def receive(self, type_: str, /, **fields: object) -> None:
        self._on_notification(None, 0, CHANNEL, json.dumps({"type": type_, "from": "other", **fields}))

    def sent(self) -> list[str]:
        sent = [str(json.loads(message)["type"]) for message in self._queue]
        self._queue.clear()
        return sent


async def test_a_silent_peer_is_a_gap_since_its_last_message() -> None:
    peers = Clocked()
    peers.receive("hello")
    peers.now_s += SILENT_S
    peers._forget_silent()
    assert peers.gaps == []
    peers.now_s += 1
    peers._forget_silent()
    peers._forget_silent()
    assert peers.gaps == [(SILENT_S + 1, None)]


async def test_a_peer_that_says_goodbye_leaves_no_gap() -> None:
    peers = Clocked()
    peers.receive("hello")
    peers.receive("bye")
    peers.now_s += 2 * SILENT_S
    peers._forget_silent()
    assert peers.gaps == []


async def test_an_own_silence_is_a_gap_for_this_server_and_its_peers() -> None:
    peers = Clocked()
    peers.now_s += SILENT_S
    peers._stayed_in_touch()
    assert (peers.gaps, peers.sent()) == ([], [])
    peers.now_s += SILENT_S + 1
    peers._stayed_in_touch()
    assert peers.gaps == [(SILENT_S + 1, None)]
    assert peers.sent() == ["hello", "present", "gap"]


async def test_a_lost_connection_is_a_gap_since_the_last_message() -> None:
    peers = Clocked()
    peers._disconnected()
    peers.now_s += 1
    peers._disconnected()
    peers.now_s += 1
    peers._stayed_in_touch()
    peers._stayed_in_touch()
    assert peers.gaps == [(2, None)]


@pytest.mark.parametrize(("fields", "age_s"), [({"age_s": 40.5}, 40.5), ({}, 5 * ALIVE_S)])
async def test_a_gap_of_a_peer_is_read_from_its_start(fields: dict[str, float], age_s: float) -> None:
    peers = Clocked()
    peers.receive("gap", **fields)
    assert peers.gaps == [(age_s, None)]


async def test_a_notice_that_is_too_long_is_read_for_its_recipient() -> None:
    peers = Clocked()
    peers.receive("missed", kind="wallet", to=[7, None, 2])
    assert peers.gaps == [(2, Recipient(DeviceKind.WALLET, 7, None, 2))]


def device_opened(peers: Clocked, arrival_s: float, number: int = 7) -> Connection:
    """Register a wallet's connection that arrived at a time of the test's clock."""
    device = DeviceId(DeviceKind.WALLET, number)
    return peers._connections.open(device, 1, arrival_s, "en", None, lambda text: True)  # type: ignore[arg-type]


async def test_devices_that_opened_in_a_gap_are_named_to_the_peers() -> None:
    """`opened` may be lost with the gap, here and at the peer that reports one."""
    peers = Clocked()
    device_opened(peers, peers.now_s - 60, 1)
    device_opened(peers, peers.now_s - 1, 2)
    peers._disconnected()
    peers.now_s += 5
    peers._stayed_in_touch()
    messages = [json.loads(message) for message in peers._queue]
    assert messages[-1]["type"] == "opened_in_gap"
    assert messages[-1]["devices"] == [["wallet", 2, 0, 6.0]]
    peers.sent()
    peers.receive("gap", age_s=4.5)
    assert json.loads(peers._queue[-1])["devices"] == [["wallet", 2, 0, 6.0]]


@pytest.mark.parametrize(("age_s", "is_closed"), [(1.0, True), (7.9, True), (8.0, False), (60.0, False)])
async def test_a_connection_that_opened_elsewhere_in_a_gap_supersedes_an_older_one(
    age_s: float, is_closed: bool
) -> None:
    """Ours is 10 s old. Two seconds more or less are no order: then both stay."""
    peers = Clocked()
    mine = device_opened(peers, peers.now_s - 10)
    peers.receive("opened_in_gap", devices=[["wallet", 7, 0, age_s], ["wallet", 8, 0, 1.0]])
    assert mine.is_closing is is_closed


async def test_a_message_names_at_most_a_hundred_devices() -> None:
    """Postgres takes less than 8000 bytes."""
    peers = Clocked()
    for number in range(250):
        device_opened(peers, peers.now_s - 1, 2_000_000_000 + number)
    peers.receive("gap", age_s=5)
    sizes = [len(json.loads(message)["devices"]) for message in peers._queue if "opened_in_gap" in message]
    assert sizes == [100, 100, 50]
    assert max(len(message) for message in peers._queue) < 8000


async def test_a_run_after_a_failure_sends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first message brings the connection back, and with it the repair."""
    peers, sent = Clocked(), asyncio.Event()

    async def send() -> None:
        sent.set()

    monkeypatch.setattr(peers, "_send", send)
    peers._alive_s = 1_000
    peers._disconnected()
    task = asyncio.create_task(peers.run())
    async with asyncio.timeout(5):
        await sent.wait()
    task.cancel()
    await asyncio.wait([task])
    assert peers.sent() == ["alive"]


async def test_a_batch_that_a_stop_interrupts_is_sent_with_the_goodbye(monkeypatch: pytest.MonkeyPatch) -> None:
    peers, sends = Clocked(), asyncio.Event()

    async def hangs() -> None:
        sends.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(peers, "_listening", hangs)
    peers.receive("hello")
    task = asyncio.create_task(peers.run())
    await sends.wait()
    assert list(peers._queue) == []
    task.cancel()
    await asyncio.wait([task])
    assert peers.sent() == ["present"]


async def test_a_failure_counts_as_a_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The messages of the batch are lost, so the peers must read the rows."""
    peers = Clocked()
    peers.receive("hello")

    async def fails() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(peers, "_listening", fails)
    with pytest.raises(RuntimeError, match="a bug"):
        await peers.run()
    assert peers.sent() == []
    peers.now_s += 1
    peers._stayed_in_touch()
    assert peers.gaps == [(1, None)]
    assert peers.sent() == ["hello", "present", "gap"]
