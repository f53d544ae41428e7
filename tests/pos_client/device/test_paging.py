"""A device that missed more than one replay holds asks for pages, as fast as its application reads them."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from pos_client.device.connection import REPLAY_PAGE, UNREAD_MAX
from pos_client.device.disconnects import may_reconnect
from pos_client.terminal.client import TerminalClient
from pos_client.wallet.client import WalletClient
from tests.pos_client.fake_server import BOUGHT, PAID, Peer, fake_server
from tests.pos_client.fake_time import no_wait

TEST_TIMEOUT_S = 20
START_MS = 1_700_000_000_000
NOW_MS = START_MS + 3_600_000
# More than one connection's pages, so that only their cursors lead further.
OVERLAP_MS = 1_000


def result_of(number: int, template: dict[str, Any]) -> dict[str, Any]:
    """Return result `number`; ten of them change in the same millisecond."""
    return template | {"payment_id": str(UUID(int=number + 1)), "decided_at_ms": START_MS + number // 10}


class Replaying:
    """A server with these results, which drops each connection after some pages."""

    def __init__(self, results: list[dict[str, Any]], *, pages_per_connection: int = 1000) -> None:
        self.results = results
        self.pages_per_connection = pages_per_connection
        self.requests = asyncio.Semaphore(0)
        self.since: list[int | None] = []
        self.live: Callable[[int], dict[str, Any] | None] = lambda page: None

    async def serve(self, peer: Peer) -> None:
        authenticate = await peer.greet()
        self.since.append(authenticate["since_ms"])
        ready = {"type": "ready", "reply_to": authenticate["message_id"], "currency": "EUR", "resumed": False}
        ready |= {"server_time_ms": NOW_MS}
        if authenticate["since_ms"] is None:
            ready |= {"server_time_ms": START_MS, "resumed": True}
        wallet = {"wallet_number": 1, "slot": 0, "balance_minor": 0, "pin_set": True, "status": "active"}
        till = {"terminal_number": 7, "merchant_name": "Canteen", "store_name": "North", "shift_id": None}
        await peer.send(**ready, **wallet, **till)
        if authenticate["since_ms"] is None:
            peer.drop()
            return
        for page in range(self.pages_per_connection):
            await self.send_page(peer, await peer.receive())
            if (live := self.live(page)) is not None:
                await peer.send(**live)
        await peer.receive()
        peer.drop()

    async def send_page(self, peer: Peer, request: dict[str, Any]) -> None:
        assert request["type"] == "resume"
        self.requests.release()
        if request["cursor"] is None:
            start = sum(each["decided_at_ms"] < request["since_ms"] - OVERLAP_MS for each in self.results)
        else:
            start = int(request["cursor"].partition(".")[0])
        page = self.results[start : start + request["limit"]]
        for result in page:
            await peer.send(**result)
        end = start + len(page)
        if end == len(self.results):
            await peer.replayed(request["message_id"], NOW_MS)
        else:
            cursor = f"{end}.{UUID(int=0)}.1"
            await peer.replayed(request["message_id"], page[-1]["decided_at_ms"], cursor)


@pytest.mark.asyncio
async def test_a_wallet_receives_a_thousand_missed_notices_once() -> None:
    script = Replaying([result_of(number, BOUGHT) for number in range(1_000)])
    async with (
        asyncio.timeout(TEST_TIMEOUT_S),
        fake_server(script.serve) as server,
        WalletClient(server.wallet(), backoff=no_wait()) as wallet,
    ):
        received = [str((await wallet.notice()).payment_id) for _ in range(1_000)]
        assert received == [result["payment_id"] for result in script.results]
        assert not wallet.may_have_missed


@pytest.mark.asyncio
async def test_a_till_receives_a_thousand_missed_results_once() -> None:
    script = Replaying([result_of(number, PAID) for number in range(1_000)])
    async with (
        asyncio.timeout(TEST_TIMEOUT_S),
        fake_server(script.serve) as server,
        TerminalClient(server.terminal(), backoff=no_wait()) as till,
    ):
        received = [str((await till.result()).payment_id) for _ in range(1_000)]
    assert received == [result["payment_id"] for result in script.results]


@pytest.mark.asyncio
async def test_lost_connections_continue_from_the_last_page() -> None:
    script = Replaying([result_of(number, BOUGHT) for number in range(3_000)], pages_per_connection=2)
    async with (
        asyncio.timeout(TEST_TIMEOUT_S),
        fake_server(script.serve) as server,
        WalletClient(server.wallet(), backoff=no_wait()) as wallet,
    ):
        received = Counter([str((await wallet.notice()).payment_id) for _ in range(3_000)])
        assert received == Counter(result["payment_id"] for result in script.results)
    assert script.since == sorted(script.since, key=lambda at_ms: at_ms or 0)
    assert len(script.since) > 5


@pytest.mark.asyncio
async def test_an_application_that_does_not_read_bounds_the_pages_and_misses_nothing() -> None:
    script = Replaying([result_of(number, BOUGHT) for number in range(3 * UNREAD_MAX)])
    async with (
        asyncio.timeout(TEST_TIMEOUT_S),
        fake_server(script.serve) as server,
        WalletClient(server.wallet(), backoff=no_wait()) as wallet,
    ):
        for _ in range(UNREAD_MAX // REPLAY_PAGE):
            await script.requests.acquire()
        room = UNREAD_MAX % REPLAY_PAGE
        received = [str((await wallet.notice()).payment_id) for _ in range(REPLAY_PAGE - room - 1)]
        assert script.requests.locked()
        received += [str((await wallet.notice()).payment_id)]
        await script.requests.acquire()
        received += [str((await wallet.notice()).payment_id) for _ in range(3 * UNREAD_MAX - len(received))]
    assert received == [result["payment_id"] for result in script.results]


@pytest.mark.asyncio
async def test_new_results_between_pages_arrive_once_and_do_not_move_the_position() -> None:
    script = Replaying([result_of(number, BOUGHT) for number in range(1_000)], pages_per_connection=2)
    late = result_of(50_000, BOUGHT)
    script.live = lambda page: late
    async with (
        asyncio.timeout(TEST_TIMEOUT_S),
        fake_server(script.serve) as server,
        WalletClient(server.wallet(), backoff=no_wait()) as wallet,
    ):
        received = Counter([str((await wallet.notice()).payment_id) for _ in range(1_001)])
    assert set(received) == {result["payment_id"] for result in [*script.results, late]}
    assert all(since is None or since <= START_MS + 100 for since in script.since)
    assert len(script.since) > 2


def test_a_slow_consumer_reconnects() -> None:
    assert may_reconnect(4001)


@pytest.mark.asyncio
async def test_a_failure_of_the_catch_up_is_logged_and_costs_the_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [RuntimeError("a bug")]
    catch_up = TerminalClient._catch_up

    async def fail_once(till: TerminalClient) -> None:
        if failures:
            raise failures.pop()
        await catch_up(till)

    monkeypatch.setattr(TerminalClient, "_catch_up", fail_once)
    connections = 0

    async def script(peer: Peer) -> None:
        nonlocal connections
        connections += 1
        await peer.welcome()
        while connections == 2:
            await peer.answer(await peer.receive())

    async with (
        asyncio.timeout(TEST_TIMEOUT_S),
        fake_server(script, script) as server,
        TerminalClient(server.terminal(), backoff=no_wait()) as till,
    ):
        result = await till.scan(code="772000000001003123456789", amount_minor=1250, reference="order-1")
    assert (result.status, connections) == ("approved", 2)
    assert "catching up failed unexpectedly" in caplog.text
