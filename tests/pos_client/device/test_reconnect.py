"""Reconnects of a device: the delay before them, and the position in the results to resume from."""

import pytest

from pos_client.device.backoff import Backoff
from pos_client.device.connection import DRAIN_SPREAD_S_MAX, DRAIN_SPREAD_S_MIN
from pos_client.errors import ConnectionStopped
from pos_client.wallet.client import WalletClient
from tests.pos_client.fake_server import BOUGHT, Peer, fake_server
from tests.pos_client.fake_time import RecordedSleeps, no_wait

START_MS = 1_700_000_000_000


async def stopping(peer: Peer) -> None:
    await peer.socket.close(4100)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("spread_s", "delay_s"), [(8, 4.0), (0, DRAIN_SPREAD_S_MIN / 2), (10**9, DRAIN_SPREAD_S_MAX / 2)]
)
async def test_a_draining_server_spreads_the_reconnects(spread_s: int, delay_s: float) -> None:
    async def draining(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(type="draining", reconnect_within_s=spread_s)
        await peer.socket.close(4000, "draining")

    sleeps = RecordedSleeps()
    backoff = Backoff(sleep=sleeps, chance=lambda: 0.5)
    async with fake_server(draining, stopping) as server, WalletClient(server.wallet(), backoff=backoff) as wallet:
        with pytest.raises(ConnectionStopped):
            await wallet.notice()
    assert sleeps.seconds == [delay_s]


@pytest.mark.asyncio
async def test_the_spread_applies_to_one_loss_and_the_backoff_still_grows() -> None:
    async def draining(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(type="draining", reconnect_within_s=8)
        await peer.socket.close(4000)

    async def closing(peer: Peer) -> None:
        await peer.welcome()
        await peer.socket.close(4000)

    sleeps = RecordedSleeps()
    async with (
        fake_server(draining, closing, closing, stopping) as server,
        WalletClient(server.wallet(), backoff=no_wait(sleeps)) as wallet,
    ):
        with pytest.raises(ConnectionStopped):
            await wallet.notice()
    assert sleeps.seconds == [8, 0.5, 1.0]


@pytest.mark.asyncio
async def test_a_device_resumes_from_the_latest_time_it_has_seen() -> None:
    since = []

    async def first(peer: Peer) -> None:
        since.append((await peer.welcome())["since_ms"])
        peer.drop()

    async def selling(peer: Peer) -> None:
        since.append((await peer.welcome())["since_ms"])
        await peer.send(**{**BOUGHT, "decided_at_ms": START_MS + 500})
        await peer.socket.close(4000)

    async def last(peer: Peer) -> None:
        since.append((await peer.greet())["since_ms"])
        await peer.socket.close(4100)

    async with (
        fake_server(first, selling, last, server_time_ms=START_MS) as server,
        WalletClient(server.wallet(), backoff=no_wait()) as wallet,
    ):
        await wallet.notice()
        with pytest.raises(ConnectionStopped):
            await wallet.notice()
        assert not wallet.may_have_missed
    assert since == [None, START_MS, START_MS + 500]


@pytest.mark.asyncio
async def test_a_gap_that_an_older_server_cannot_replay_is_reported() -> None:
    async def first(peer: Peer) -> None:
        await peer.welcome()
        peer.drop()

    async def second(peer: Peer) -> None:
        await peer.welcome(resumed=False)
        await peer.refuse(await peer.receive(), "unknown_type", retryable=False)
        await peer.socket.close(4100)

    async with fake_server(first, second) as server, WalletClient(server.wallet(), backoff=no_wait()) as wallet:
        with pytest.raises(ConnectionStopped):
            await wallet.notice()
        assert wallet.may_have_missed
