"""Scans that wait for the customer's PIN."""

import asyncio
from collections.abc import Callable

import pytest

from pos_client.device.requests import REQUESTS_IN_FLIGHT_MAX
from pos_client.errors import OutcomeUnknown
from pos_client.terminal.client import TerminalClient
from pos_server.core.protocol.server_messages import PaymentPending, TerminalPaymentResult
from tests.pos_client.fake_server import CANCELED, PAID, PENDING, Peer, fake_server
from tests.pos_client.fake_time import no_wait

CODE = "772000000001003123456789"
EXPIRED = {**PAID, "version": 2, "status": "expired", "retryable": True, "next_step": "new_code", "text": "Too late."}


async def scan(
    till: TerminalClient, on_pending: Callable[[PaymentPending], object] | None = None, *, timeout_s: float = 45
) -> TerminalPaymentResult:
    return await till.scan(
        code=CODE, amount_minor=1250, reference="order-1", typed=True, timeout_s=timeout_s, on_pending=on_pending
    )


@pytest.mark.asyncio
async def test_a_pending_payment_is_reported_and_extends_the_timeout() -> None:
    reported = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.welcome()
        scan_message = await peer.receive()
        assert scan_message["entry"] == "typed"
        await peer.answer(scan_message, PENDING)
        await reported.wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peer.receive(), 0.15)  # longer than the scan's timeout
        await peer.send(**{**PAID, "payment_id": scan_message["payment_id"], "version": 2})

    reports: list[PaymentPending] = []

    def on_pending(pending: PaymentPending) -> None:
        reports.append(pending)
        reported.set()

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        await till.ready()
        result = await scan(till, on_pending, timeout_s=0.1)
        assert till.unread == 0
    assert (result.status, result.version) == ("approved", 2)
    assert [(pending.text, pending.payment_id) for pending in reports] == [
        ("Waiting for the customer's PIN.", result.payment_id)
    ]


@pytest.mark.asyncio
async def test_a_pending_payment_is_queried_and_only_changes_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pos_client.device.requests.RESEND_AFTER_S", 0.01)
    monkeypatch.setattr("pos_client.device.requests.RESENDS_MAX", 2)

    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.answer(await peer.receive(), {**PENDING, "wallet_online": False})
        for wallet_online in (False, False, True, True):  # more than RESENDS_MAX, which counts unanswered sends only
            query = await peer.receive()
            assert query["type"] == "payment.query"
            await peer.answer(query, {**PENDING, "wallet_online": wallet_online})
        await peer.answer(await peer.receive(), EXPIRED)

    online: list[bool] = []
    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        result = await scan(till, lambda pending: online.append(pending.wallet_online))
    assert result.status == "expired"
    assert online == [False, True]


@pytest.mark.asyncio
async def test_after_a_reconnect_a_pending_scan_is_resent_and_still_waits() -> None:
    async def asking(peer: Peer) -> None:
        await peer.welcome()
        await peer.answer(await peer.receive(), PENDING)
        peer.drop()

    async def answering(peer: Peer) -> None:
        await peer.welcome()
        scan_message = await peer.receive()
        assert scan_message["type"] == "payment.scan"
        await peer.send(**{**PENDING, "payment_id": scan_message["payment_id"]})  # the replay
        await peer.answer(scan_message, PENDING)
        await peer.send(**{**PAID, "payment_id": scan_message["payment_id"], "version": 2})

    reports: list[PaymentPending] = []
    async with fake_server(asking, answering) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        assert (await scan(till, reports.append)).status == "approved"
    assert len(reports) == 1


@pytest.mark.asyncio
async def test_a_pending_payment_without_a_result_at_its_expiry_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pos_client.terminal.open_scan.PENDING_GRACE_S", 0.05)

    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.answer(await peer.receive(), {**PENDING, "expires_at_ms": 0})

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        await till.ready()
        with pytest.raises(OutcomeUnknown):
            await scan(till, timeout_s=0.01)


@pytest.mark.asyncio
async def test_a_cancel_ends_the_waiting_scan_and_returns_the_payment() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.answer(await peer.receive(), PENDING)
        cancel = await peer.receive()
        assert cancel["type"] == "payment.cancel"
        await peer.answer(cancel, CANCELED)

    pending: asyncio.Future[PaymentPending] = asyncio.get_running_loop().create_future()
    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        scanning = asyncio.create_task(scan(till, pending.set_result))
        canceled = await till.cancel(payment_id=(await pending).payment_id)
        with pytest.raises(OutcomeUnknown, match="it is being canceled"):
            await scanning
        assert canceled.status == "canceled"
        assert till.unread == 0


@pytest.mark.asyncio
async def test_pending_payments_do_not_block_further_scans() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        scans = []
        for _ in range(REQUESTS_IN_FLIGHT_MAX + 1):
            scans.append(await peer.receive())
            await peer.answer(scans[-1], PENDING)
        for scan_message in scans:
            await peer.send(**{**PAID, "payment_id": scan_message["payment_id"], "version": 2})

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        results = await asyncio.gather(*(scan(till) for _ in range(REQUESTS_IN_FLIGHT_MAX + 1)))
    assert {result.status for result in results} == {"approved"}


@pytest.mark.asyncio
async def test_a_failing_callback_does_not_end_the_session() -> None:
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context["exception"]))

    async def script(peer: Peer) -> None:
        await peer.welcome()
        scan_message = await peer.receive()
        await peer.answer(scan_message, PENDING)
        await peer.answer(scan_message)

    def broken(_: PaymentPending) -> None:
        raise LookupError("a bug of the caller")

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        assert (await scan(till, broken)).status == "approved"
    assert [type(error) for error in errors] == [LookupError]
