import asyncio
from uuid import UUID

import pytest

from pos_client.device.backoff import Backoff
from pos_client.device.requests import REQUESTS_IN_FLIGHT_MAX
from pos_client.errors import ConnectionStopped, CredentialsError, OutcomeUnknown, ScanNotDone, ScanRefused
from pos_client.terminal.client import CODE_CHARS_MAX, TerminalClient
from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.protocol.server_messages import StatusChanged
from tests.pos_client.fake_server import DECLINED, PAID, Peer, credentials, fake_server
from tests.pos_client.fake_time import RecordedSleeps, no_wait

CODE = "772000000001003123456789"


@pytest.mark.asyncio
async def test_an_approved_scan_returns_its_result_and_ready_names_the_till() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        scan = await peer.receive()
        assert UUID(scan["payment_id"]).version == 7
        assert {name: scan[name] for name in ("type", "reference", "amount_minor", "currency", "code")} == {
            "type": "payment.scan",
            "reference": "order-1",
            "amount_minor": 1250,
            "currency": "EUR",
            "code": CODE,
        }
        await peer.answer(scan)

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        assert (await till.ready()).merchant_name == "Canteen"
        assert till.problem is None
        result = await till.scan(code=CODE, amount_minor=1250, reference="order-1")
    assert (result.status, result.amount_minor, result.text) == ("approved", 1250, "Paid 12.50 EUR.")


@pytest.mark.asyncio
async def test_cash_is_a_scan_with_another_purpose() -> None:
    scans = []

    async def script(peer: Peer) -> None:
        await peer.welcome()
        for purpose in ("top_up", "withdrawal"):
            scans.append(await peer.receive())
            await peer.answer(scans[-1], {**PAID, "purpose": purpose})

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        first = await till.scan(code=CODE, amount_minor=1250, reference="order-1", purpose="top_up")
        second = await till.scan(code=CODE, amount_minor=1250, reference="order-2", purpose="withdrawal")
        with pytest.raises(ValueError, match="purpose"):
            await till.scan(code=CODE, amount_minor=1250, reference="order-3", purpose="gift")  # type: ignore[arg-type]
    assert [message["purpose"] for message in scans] == [first.purpose, second.purpose] == ["top_up", "withdrawal"]


@pytest.mark.asyncio
async def test_a_decline_is_a_result_not_an_exception() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.answer(await peer.receive(), DECLINED)

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        result = await till.scan(code=CODE, amount_minor=1250, reference="order-1")
    assert (result.status, result.decline_code) == ("declined", "insufficient_funds")


@pytest.mark.asyncio
async def test_after_a_lost_connection_the_payment_is_resent_with_a_new_message_id() -> None:
    scans = []

    async def dropping(peer: Peer) -> None:
        await peer.welcome()
        scans.append(await peer.receive())
        peer.drop()

    async def answering(peer: Peer) -> None:
        await peer.welcome()
        scans.append(await peer.receive())
        await peer.answer(scans[-1])

    async with (
        fake_server(dropping, dropping, answering) as server,
        TerminalClient(server.terminal(), backoff=no_wait()) as till,
    ):
        result = await till.scan(code=CODE, amount_minor=1250, reference="order-1")
    assert result.status == "approved"
    bodies = [{name: value for name, value in scan.items() if name != "message_id"} for scan in scans]
    assert bodies == [bodies[0]] * 3
    assert len({scan["message_id"] for scan in scans}) == 3


@pytest.mark.asyncio
async def test_a_result_pushed_after_a_reconnect_is_matched_by_payment_id() -> None:
    payment_ids = []

    async def dropping(peer: Peer) -> None:
        await peer.welcome()
        payment_ids.append((await peer.receive())["payment_id"])
        peer.drop()

    async def pushing(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(**{**PAID, "payment_id": payment_ids[0], "reply_to": None})

    async with (
        fake_server(dropping, pushing) as server,
        TerminalClient(server.terminal(), backoff=no_wait()) as till,
    ):
        result = await till.scan(code=CODE, amount_minor=1250, reference="order-1")
    assert str(result.payment_id) == payment_ids[0]


@pytest.mark.asyncio
async def test_duplicates_and_results_of_other_payments_are_dropped() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        first = await peer.receive()
        await peer.send(**{**DECLINED, "payment_id": "01890000-0000-7000-8000-000000000009", "reply_to": None})
        await peer.answer(first)
        await peer.answer(first)
        await peer.answer(await peer.receive(), DECLINED)

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        first = await till.scan(code=CODE, amount_minor=1250, reference="order-1")
        second = await till.scan(code=CODE, amount_minor=1250, reference="order-1")
    assert (first.status, second.status) == ("approved", "declined")


@pytest.mark.asyncio
async def test_retryable_errors_resend_after_the_requested_wait_or_backoff() -> None:
    sleeps = RecordedSleeps()

    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.refuse(await peer.receive(), "busy", retryable=True)
        await peer.refuse(await peer.receive(), "unknown_outcome", retryable=True)
        await peer.refuse(await peer.receive(), "too_many_bad_codes", retryable=True, retry_after_s=7)
        await peer.answer(await peer.receive())

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait(sleeps)) as till:
        result = await till.scan(code=CODE, amount_minor=1250, reference="order-1")
    assert result.status == "approved"
    assert sleeps.seconds == [0.25, 0.5, 7]


@pytest.mark.asyncio
async def test_a_wait_beyond_the_deadline_is_reported_at_once() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.refuse(await peer.receive(), "too_many_bad_codes", retryable=True, retry_after_s=60)

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        with pytest.raises(ScanNotDone, match="nothing was charged: because of too_many_bad_codes; retry in 60 s"):
            await till.scan(code=CODE, amount_minor=1250, reference="order-1")


@pytest.mark.asyncio
async def test_a_final_error_refuses_the_scan() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.refuse(await peer.receive(), "wrong_currency", retryable=False, field="currency")

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        with pytest.raises(ScanRefused) as refused:
            await till.scan(code=CODE, amount_minor=1250, reference="order-1")
    assert (refused.value.code, refused.value.field) == ("wrong_currency", "currency")


@pytest.mark.asyncio
async def test_a_sent_scan_without_an_answer_is_unknown() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.receive()

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        await till.ready()
        payment_id = UUID("01890000-0000-7000-8000-000000000001")
        with pytest.raises(OutcomeUnknown) as unknown:
            await till.scan(code=CODE, amount_minor=1, reference="a", payment_id=payment_id, timeout_s=0.05)
    assert unknown.value.payment_id == payment_id


@pytest.mark.asyncio
async def test_an_unsent_scan_is_not_done() -> None:
    never = Backoff(sleep=lambda _: asyncio.Event().wait())
    async with TerminalClient(credentials(DeviceKind.TERMINAL), backoff=never) as till:
        with pytest.raises(ScanNotDone, match="nothing was charged"):
            await till.scan(code=CODE, amount_minor=1, reference="a", timeout_s=0.05)


@pytest.mark.asyncio
async def test_an_unsent_repeat_of_a_payment_is_unknown() -> None:
    never = Backoff(sleep=lambda _: asyncio.Event().wait())
    payment_id = UUID("01890000-0000-7000-8000-000000000001")
    async with TerminalClient(credentials(DeviceKind.TERMINAL), backoff=never) as till:
        with pytest.raises(OutcomeUnknown):
            await till.scan(code=CODE, amount_minor=1, reference="a", payment_id=payment_id, timeout_s=0.05)


@pytest.mark.asyncio
async def test_answered_errors_mean_not_done() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.refuse(await peer.receive(), "busy", retryable=True)

    too_long = Backoff(base_s=100, cap_s=100, chance=lambda: 1.0)
    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=too_long) as till:
        with pytest.raises(ScanNotDone, match="because of busy"):
            await till.scan(code=CODE, amount_minor=1, reference="a")


@pytest.mark.asyncio
async def test_a_stop_makes_an_open_scan_unknown_and_a_later_one_fail() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.receive()
        await peer.socket.close(4101, "superseded")

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        with pytest.raises(OutcomeUnknown, match="took over"):
            await till.scan(code=CODE, amount_minor=1, reference="a")
        with pytest.raises(ConnectionStopped) as stopped:
            await till.scan(code=CODE, amount_minor=1, reference="b")
    assert stopped.value.close_code == 4101


@pytest.mark.asyncio
async def test_closing_the_client_ends_its_scans() -> None:
    received = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.receive()
        received.set()

    async with fake_server(script) as server:
        async with TerminalClient(server.terminal(), backoff=no_wait()) as till:
            scan = asyncio.create_task(till.scan(code=CODE, amount_minor=1, reference="a"))
            await received.wait()
        with pytest.raises(OutcomeUnknown, match="closed"):
            await scan


@pytest.mark.asyncio
async def test_the_number_of_scans_in_flight_is_bounded() -> None:
    sent_count = 0
    full = asyncio.Event()

    async def script(peer: Peer) -> None:
        nonlocal sent_count
        await peer.welcome()
        scans = [await peer.receive() for _ in range(REQUESTS_IN_FLIGHT_MAX)]
        sent_count = len(scans)
        full.set()
        await peer.answer(scans[0])
        scans.append(await peer.receive())
        for scan in scans[1:]:
            await peer.answer(scan)

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        scans = [till.scan(code=CODE, amount_minor=1, reference=f"r{i}") for i in range(REQUESTS_IN_FLIGHT_MAX + 1)]
        results = await asyncio.gather(*scans)
    assert [result.status for result in results] == ["approved"] * (REQUESTS_IN_FLIGHT_MAX + 1)
    assert sent_count == REQUESTS_IN_FLIGHT_MAX


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount_minor", 0),
        ("amount_minor", 12.5),
        ("reference", ""),
        ("reference", "x" * 65),
        ("code", "7" * (CODE_CHARS_MAX + 1)),
        ("code", "\udc80"),
    ],
)
async def test_invalid_input_is_a_value_error_without_the_code(field: str, value: object) -> None:
    scan = {"code": CODE, "amount_minor": 1, "reference": "a", field: value}
    async with TerminalClient(credentials(DeviceKind.TERMINAL), backoff=no_wait()) as till:
        with pytest.raises(ValueError, match=r".") as error:
            await till.scan(**scan)  # type: ignore[arg-type]
    assert CODE not in str(error.value)


def test_a_till_rejects_the_credentials_of_a_wallet() -> None:
    with pytest.raises(CredentialsError, match="belong to a wallet, not to a terminal"):
        TerminalClient(credentials(DeviceKind.WALLET))


@pytest.mark.asyncio
async def test_a_status_change_is_reported_at_once_and_is_not_a_result() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(type="status.changed", status="disabled", text="This till is disabled. Call your manager.")
        await peer.answer(await peer.receive())

    changes: list[StatusChanged] = []
    async with (
        fake_server(script) as server,
        TerminalClient(server.terminal(), on_status=changes.append, backoff=no_wait()) as till,
    ):
        await till.scan(code=CODE, amount_minor=1250, reference="order-1")
        assert till.unread == 0
    assert changes == [StatusChanged(status="disabled", text="This till is disabled. Call your manager.")]


@pytest.mark.asyncio
async def test_a_status_change_without_a_callback_is_ignored() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(type="status.changed", status="disabled", text="This till is disabled. Call your manager.")
        await peer.answer(await peer.receive())

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        assert (await till.scan(code=CODE, amount_minor=1250, reference="order-1")).status == "approved"
