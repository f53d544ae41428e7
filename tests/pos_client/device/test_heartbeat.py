import asyncio
from collections.abc import Callable

import pytest

from pos_client.device.heartbeat import HEARTBEAT_GRACE_S, HEARTBEAT_S_MAX, silence_timeout
from pos_client.errors import ConnectionStopped
from pos_client.wallet.client import WalletClient
from tests.pos_client.fake_server import Peer, fake_server
from tests.pos_client.fake_time import no_wait


class Connection:
    on_bytes: Callable[[], None] | None = None


@pytest.mark.asyncio
@pytest.mark.parametrize(("heartbeat_s", "limit_s"), [(20, 20), (10_000, HEARTBEAT_S_MAX)])
async def test_received_bytes_restart_the_timeout(heartbeat_s: int, limit_s: float) -> None:
    connection, clock = Connection(), asyncio.get_running_loop().time
    async with silence_timeout(connection, heartbeat_s) as timeout:
        first = timeout.when()
        assert first == pytest.approx(clock() + limit_s + HEARTBEAT_GRACE_S, abs=1)
        timeout.reschedule(clock() + 0.1)
        assert connection.on_bytes is not None
        connection.on_bytes()
        assert first is not None
        assert (timeout.when() or 0) >= first
    assert connection.on_bytes is None


@pytest.mark.asyncio
async def test_a_silent_server_leads_to_a_reconnect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pos_client.device.heartbeat.HEARTBEAT_GRACE_S", 0.05)

    async def silent(peer: Peer) -> None:
        await peer.welcome(heartbeat_s=0)

    async def stopping(peer: Peer) -> None:
        await peer.socket.close(4100)

    async with fake_server(silent, stopping) as server, WalletClient(server.wallet(), backoff=no_wait()) as wallet:
        with pytest.raises(ConnectionStopped):
            await wallet.notice()
    assert server.connection_count == 2


@pytest.mark.asyncio
async def test_a_ping_restarts_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pos_client.device.heartbeat.HEARTBEAT_GRACE_S", 0.25)
    clock = asyncio.get_running_loop().time

    async def pinging(peer: Peer) -> None:
        await peer.welcome(heartbeat_s=0)
        until = clock() + 0.6
        while clock() < until:
            await (await peer.socket.ping())
        await peer.socket.close(4100)

    async with fake_server(pinging) as server, WalletClient(server.wallet(), backoff=no_wait()) as wallet:
        with pytest.raises(ConnectionStopped):
            await wallet.notice()
    assert server.connection_count == 1
