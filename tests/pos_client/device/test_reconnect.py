"""How a device comes back: after what wait, and from where in the stream of its results."""

import pytest

from pos_client.device.backoff import Backoff
from pos_client.device.connection import DRAIN_SPREAD_S_MAX, DRAIN_SPREAD_S_MIN
from pos_client.errors import ConnectionStopped
from pos_client.wallet.client import WalletClient
from tests.pos_client.fake_server import BOUGHT, Peer, fake_server
from tests.pos_client.fake_time import Naps, no_wait

START_MS = 1_700_000_000_000


async def stopping(peer: Peer) -> None:
    await peer.socket.close(4100)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("asked_s", "waited_s"), [(8, 4.0), (0, DRAIN_SPREAD_S_MIN / 2), (10**9, DRAIN_SPREAD_S_MAX / 2)]
)
async def test_a_draining_server_spreads_the_return(asked_s: int, waited_s: float) -> None:
    async def draining(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(type="draining", reconnect_within_s=asked_s)
        await peer.socket.close(4000, "draining")

    naps = Naps()
    backoff = Backoff(sleep=naps, chance=lambda: 0.5)
    async with fake_server(draining, stopping) as server, WalletClient(server.wallet(), backoff=backoff) as wallet:
        with pytest.raises(ConnectionStopped):
            await wallet.notice()
    assert naps.seconds == [waited_s]


@pytest.mark.asyncio
async def test_the_spread_is_for_one_loss_and_the_backoff_grows_meanwhile() -> None:
    async def draining(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(type="draining", reconnect_within_s=8)
        await peer.socket.close(4000)

    async def closing(peer: Peer) -> None:
        await peer.welcome()
        await peer.socket.close(4000)

    naps = Naps()
    async with (
        fake_server(draining, closing, closing, stopping) as server,
        WalletClient(server.wallet(), backoff=no_wait(naps)) as wallet,
    ):
        with pytest.raises(ConnectionStopped):
            await wallet.notice()
    assert naps.seconds == [8, 0.5, 1.0]


@pytest.mark.asyncio
async def test_it_resumes_from_the_latest_that_it_heard() -> None:
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
async def test_a_gap_that_was_not_replayed_is_told() -> None:
    async def first(peer: Peer) -> None:
        await peer.welcome()
        peer.drop()

    async def second(peer: Peer) -> None:
        await peer.welcome(resumed=False)
        await peer.socket.close(4100)

    async with fake_server(first, second) as server, WalletClient(server.wallet(), backoff=no_wait()) as wallet:
        with pytest.raises(ConnectionStopped):
            await wallet.notice()
        assert wallet.may_have_missed
