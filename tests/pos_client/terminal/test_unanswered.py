"""Scans that get no answer, or a late one."""

import asyncio

import pytest

from pos_client.device.backoff import Backoff
from pos_client.errors import ConnectionStopped, OutcomeUnknown, ScanNotDone
from pos_client.terminal.client import TerminalClient
from tests.pos_client.fake_server import DECLINED, PAID, Peer, fake_server
from tests.pos_client.fake_time import RecordedSleeps, no_wait

CODE = "772000000001003123456789"
OTHER_ID = "01890000-0000-7000-8000-000000000009"


@pytest.mark.asyncio
async def test_after_a_silence_the_server_is_queried_on_the_same_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pos_client.device.requests.RESEND_AFTER_S", 0.01)
    messages = []

    async def script(peer: Peer) -> None:
        await peer.welcome()
        messages.extend([await peer.receive() for _ in range(3)])
        await peer.answer(messages[2])

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        result = await till.scan(code=CODE, amount_minor=1250, reference="order-1")
    assert result.status == "approved"
    assert server.connection_count == 1
    assert [each["type"] for each in messages] == ["payment.scan", "payment.query", "payment.query"]
    assert {each["payment_id"] for each in messages} == {str(result.payment_id)}
    assert len({each["message_id"] for each in messages}) == 3


@pytest.mark.asyncio
async def test_a_payment_unknown_to_the_server_is_scanned_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pos_client.device.requests.RESEND_AFTER_S", 0.01)
    scans = []

    async def script(peer: Peer) -> None:
        await peer.welcome()
        scans.append(await peer.receive())
        await peer.refuse(await peer.receive(), "payment_unknown", retryable=False)
        scans.append(await peer.receive())
        await peer.answer(scans[1])

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        assert (await till.scan(code=CODE, amount_minor=1250, reference="order-1")).status == "approved"
    bodies = [{name: value for name, value in scan.items() if name != "message_id"} for scan in scans]
    assert bodies == [bodies[0]] * 2


@pytest.mark.asyncio
async def test_a_query_over_the_limit_is_retried_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pos_client.device.requests.RESEND_AFTER_S", 0.01)
    sleeps = RecordedSleeps()

    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.receive()
        await peer.refuse(await peer.receive(), "too_many_queries", retryable=True, retry_after_s=1)
        query = await peer.receive()
        assert query["type"] == "payment.query"
        await peer.answer(query)

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait(sleeps)) as till:
        assert (await till.scan(code=CODE, amount_minor=1250, reference="order-1")).status == "approved"
    assert sleeps.seconds == [1]


@pytest.mark.asyncio
async def test_after_a_reconnect_the_scan_is_resent_instead_of_a_query(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pos_client.device.requests.RESEND_AFTER_S", 0.01)

    async def dropping(peer: Peer) -> None:
        await peer.welcome()
        assert [(await peer.receive())["type"] for _ in range(2)] == ["payment.scan", "payment.query"]
        peer.drop()

    async def answering(peer: Peer) -> None:
        await peer.welcome()
        scan = await peer.receive()
        assert scan["type"] == "payment.scan"
        await peer.answer(scan)

    async with (
        fake_server(dropping, answering) as server,
        TerminalClient(server.terminal(), backoff=no_wait()) as till,
    ):
        assert (await till.scan(code=CODE, amount_minor=1250, reference="order-1")).status == "approved"


@pytest.mark.asyncio
async def test_resends_to_a_silent_server_are_bounded_per_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pos_client.device.requests.RESEND_AFTER_S", 0.001)
    monkeypatch.setattr("pos_client.device.requests.RESENDS_MAX", 3)
    messages = []

    async def script(peer: Peer) -> None:
        await peer.welcome()
        messages.extend([await peer.receive() for _ in range(4)])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peer.receive(), 0.1)
        peer.drop()

    async def answering(peer: Peer) -> None:
        await peer.welcome()
        await peer.answer(await peer.receive())

    async with fake_server(script, answering) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        await till.scan(code=CODE, amount_minor=1250, reference="order-1")
    assert len(messages) == 4


@pytest.mark.asyncio
async def test_a_draining_server_gets_no_resend_before_the_reconnect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pos_client.device.requests.RESEND_AFTER_S", 0.01)
    sleeps = RecordedSleeps()

    async def draining(peer: Peer) -> None:
        await peer.welcome()
        await peer.refuse(await peer.receive(), "draining", retryable=True)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peer.receive(), 0.1)
        await peer.send(type="draining", reconnect_within_s=4)
        await peer.socket.close(4000)

    async def answering(peer: Peer) -> None:
        await peer.welcome()
        await peer.answer(await peer.receive())

    async with (
        fake_server(draining, answering) as server,
        TerminalClient(server.terminal(), backoff=no_wait(sleeps)) as till,
    ):
        result = await till.scan(code=CODE, amount_minor=1250, reference="order-1")
    assert result.status == "approved"
    assert [seconds for seconds in sleeps.seconds if seconds] == [4]


@pytest.mark.asyncio
async def test_a_scan_refused_by_a_draining_server_is_not_done() -> None:
    async def draining(peer: Peer) -> None:
        await peer.welcome()
        await peer.refuse(await peer.receive(), "draining", retryable=True)

    async with fake_server(draining) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        await till.ready()
        with pytest.raises(ScanNotDone, match="because of draining"):
            await till.scan(code=CODE, amount_minor=1250, reference="order-1", timeout_s=0.2)


@pytest.mark.asyncio
async def test_unsolicited_results_arrive_once_each_and_then_the_end() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        scan = await peer.receive()
        for _ in range(2):
            await peer.send(**{**DECLINED, "payment_id": OTHER_ID})
        await peer.answer(scan)
        await peer.send(**{**PAID, "payment_id": scan["payment_id"]})
        await peer.send(**{**PAID, "payment_id": OTHER_ID, "version": 2})
        await peer.socket.close(4100)

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        assert (await till.scan(code=CODE, amount_minor=1250, reference="order-1")).status == "approved"
        late = [await till.result(), await till.result()]
        assert till.unread == 0
        with pytest.raises(ConnectionStopped):
            await till.result()
    assert [(str(result.payment_id), result.version, result.status) for result in late] == [
        (OTHER_ID, 1, "declined"),
        (OTHER_ID, 2, "approved"),
    ]


@pytest.mark.asyncio
async def test_an_answer_after_the_scan_timed_out_is_not_lost() -> None:
    scan_timed_out = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.welcome()
        scan = await peer.receive()
        await scan_timed_out.wait()
        await peer.answer(scan)

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        await till.ready()
        with pytest.raises(OutcomeUnknown) as unknown:
            await till.scan(code=CODE, amount_minor=1250, reference="order-1", timeout_s=0.1)
        scan_timed_out.set()
        assert (await till.result()).payment_id == unknown.value.payment_id


@pytest.mark.asyncio
async def test_a_stop_ends_a_scan_that_waits_for_its_resend() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.refuse(await peer.receive(), "unknown_outcome", retryable=True, retry_after_s=40)
        await peer.socket.close(4106, "revoked")

    async def long_sleep(seconds: float) -> None:
        await asyncio.Event().wait()

    async with (
        fake_server(script) as server,
        TerminalClient(server.terminal(), backoff=Backoff(sleep=long_sleep)) as till,
    ):
        with pytest.raises(OutcomeUnknown, match="revoked or replaced: activate it again"):
            await till.scan(code=CODE, amount_minor=1250, reference="order-1")
