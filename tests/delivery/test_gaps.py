"""Which gaps between servers are read from the rows, and from when on."""

import json

import pytest

from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.protocol.notices import Recipient
from pos_server.delivery.connections import Connections
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
