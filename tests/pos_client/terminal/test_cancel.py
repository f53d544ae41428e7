"""Cancels, which also resolve an unknown outcome."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from pos_client.device.backoff import Backoff
from pos_client.errors import ConnectionStopped, OutcomeUnknown, RequestRefused, RequestUnanswered
from pos_client.terminal.client import TerminalClient
from pos_client.terminal.journal import Journal
from pos_client.terminal.recovery import RecoveredCancel, RecoveredScan
from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.protocol.server_messages import TerminalPaymentResult
from tests.pos_client.fake_server import CANCELED, PAID, Peer, credentials, fake_server
from tests.pos_client.fake_time import no_wait
from tests.pos_client.terminal.test_recovery import CODE, OTHER_ID, PAYMENT_ID, journal_of, leave_open, silent


@pytest.mark.asyncio
@pytest.mark.parametrize("target", [{"payment_id": PAYMENT_ID}, {"reference": "order-1"}])
async def test_a_cancel_names_the_payment_or_the_order_and_returns_its_state(target: dict[str, Any]) -> None:
    cancels = []

    async def script(peer: Peer) -> None:
        await peer.welcome()
        cancels.append(await peer.receive())
        await peer.answer(cancels[0], {**CANCELED, "payment_id": str(PAYMENT_ID), "amount_minor": None})

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        result = await till.cancel(**target)
        assert till.unread == 0
    assert (result.status, result.payment_id, result.amount_minor) == ("canceled", PAYMENT_ID, None)
    sent_target = {name: value for name, value in cancels[0].items() if name in ("payment_id", "reference") and value}
    assert sent_target == {name: str(value) for name, value in target.items()}


@pytest.mark.asyncio
@pytest.mark.parametrize("target", [{}, {"payment_id": PAYMENT_ID, "reference": "order-1"}, {"reference": ""}])
async def test_a_cancel_requires_exactly_one_of_id_and_reference(target: dict[str, Any]) -> None:
    async with TerminalClient(credentials(DeviceKind.TERMINAL), backoff=no_wait()) as till:
        with pytest.raises(ValueError, match=r"either payment_id or reference|reference: "):
            await till.cancel(**target)
        with pytest.raises(ValueError, match=r"either payment_id or reference|reference: "):
            await till.query(**target)


@pytest.mark.asyncio
async def test_a_cancel_is_resent_until_it_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pos_client.device.requests.RESEND_AFTER_S", 0.01)
    ids = set()

    async def deaf(peer: Peer) -> None:
        await peer.welcome()
        ids.update([(await peer.receive())["message_id"] for _ in range(2)])
        peer.drop()

    async def busy(peer: Peer) -> None:
        await peer.welcome()
        for code in ("busy", "unknown_outcome"):
            cancel = await peer.receive()
            ids.add(cancel["message_id"])
            await peer.refuse(cancel, code, retryable=True)
        await peer.answer(await peer.receive(), CANCELED)

    async with fake_server(deaf, busy) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        assert (await till.cancel(payment_id=PAYMENT_ID)).status == "canceled"
    assert len(ids) == 4


@pytest.mark.asyncio
async def test_a_result_of_the_scan_does_not_answer_the_cancel() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        cancel = await peer.receive()
        await peer.send(**{**PAID, "payment_id": str(PAYMENT_ID)})
        await peer.answer(cancel, CANCELED)

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        assert (await till.cancel(payment_id=PAYMENT_ID)).status == "canceled"
        assert till.unread == 0  # the approval is outdated


@pytest.mark.asyncio
async def test_a_refused_cancel_carries_its_code_and_leaves_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"

    async def refusing(peer: Peer) -> None:
        await peer.welcome()
        await peer.refuse(await peer.receive(), "cancel_too_late", retryable=False)
        await peer.answer(await peer.receive())

    async with fake_server(refusing) as server:
        async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
            with pytest.raises(RequestRefused, match="because of cancel_too_late") as refused:
                await till.cancel(payment_id=PAYMENT_ID)
            # The refusal unblocks scans of the order.
            await till.scan(code=CODE, amount_minor=1250, reference="order-1", payment_id=PAYMENT_ID)
        assert journal_of(server, path).entries == {}
    assert refused.value.code == "cancel_too_late"


@pytest.mark.asyncio
async def test_a_cancel_is_journaled_before_its_send_and_removed_with_its_answer(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"
    journaled_keys: list[list[str]] = []

    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.receive()
        cancel = await peer.receive()
        journaled_keys.append(list(journal_of(server, path).entries))
        await peer.answer(cancel, CANCELED)

    async with fake_server(script) as server:
        async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
            await till.ready()
            with pytest.raises(OutcomeUnknown) as unknown:
                await till.scan(code=CODE, amount_minor=1250, reference="order-1", timeout_s=0.1)
            await till.cancel(payment_id=unknown.value.payment_id)
        journal = journal_of(server, path)
    assert journaled_keys == [[f"scan {unknown.value.payment_id}", f"cancel {unknown.value.payment_id}"]]
    assert journal.entries == {}
    assert journal.versions == {unknown.value.payment_id: 2}
    assert CODE not in path.read_text()


@pytest.mark.asyncio
@pytest.mark.parametrize("target", [{"payment_id": PAYMENT_ID}, {"reference": "order-1"}])
async def test_the_next_process_resumes_a_cancel_and_does_not_scan_again(
    target: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "till.journal"

    async def replaying(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(**{**PAID, "payment_id": str(PAYMENT_ID)})
        cancel = await peer.receive()
        assert cancel["type"] == "payment.cancel"
        await peer.answer(cancel, {**CANCELED, "payment_id": str(PAYMENT_ID)})

    async with fake_server(silent, silent, replaying, silent) as server:
        await leave_open(server, path)
        async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
            recovering = asyncio.create_task(till.recovered())
            await till.ready()
            with pytest.raises(RequestUnanswered):
                await till.cancel(**target, timeout_s=0.1)
        await recovering
        async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
            assert till.left_open == 1
            (recovered,) = await till.recovered()
            assert till.unread == 0
        assert journal_of(server, path).entries == {}
    assert CODE not in path.read_text()
    assert isinstance(recovered, RecoveredCancel)
    assert (recovered.payment_id, recovered.reference) == (target.get("payment_id"), target.get("reference"))
    assert isinstance(recovered.outcome, TerminalPaymentResult)
    assert recovered.outcome.status == "canceled"


@pytest.mark.asyncio
@pytest.mark.parametrize("is_answered", [True, False])
async def test_a_cancel_at_start_gives_the_recovered_scan_its_outcome(is_answered: bool, tmp_path: Path) -> None:
    path = tmp_path / "till.journal"

    async def answering(peer: Peer) -> None:
        await peer.welcome()
        cancel = await peer.receive()
        while cancel["type"] != "payment.cancel":
            cancel = await peer.receive()
        if is_answered:
            await peer.answer(cancel, CANCELED)

    async with fake_server(silent, answering) as server:
        await leave_open(server, path)
        async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
            canceling = asyncio.create_task(till.cancel(payment_id=PAYMENT_ID, timeout_s=0.3))
            (recovered,) = await till.recovered()
            await asyncio.wait([canceling])
            assert (canceling.exception() is None) is is_answered
    assert isinstance(recovered, RecoveredScan)
    if is_answered:
        assert isinstance(recovered.outcome, TerminalPaymentResult)
        assert recovered.outcome.status == "canceled"
    else:
        assert isinstance(recovered.outcome, OutcomeUnknown)


@pytest.mark.asyncio
async def test_a_cancel_without_a_connection_is_journaled(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"
    never = Backoff(sleep=lambda _: asyncio.Event().wait())
    async with TerminalClient(credentials(DeviceKind.TERMINAL), journal=path, backoff=never) as till:
        with pytest.raises(RequestUnanswered, match="cannot reach the server"):
            await till.cancel(payment_id=PAYMENT_ID, timeout_s=0.1)
    journal = Journal(path, "7 at http://127.0.0.1:9")
    journal.load()
    assert list(journal.entries) == [f"cancel {PAYMENT_ID}"]


@pytest.mark.asyncio
async def test_a_payment_is_not_scanned_while_its_cancel_is_unanswered() -> None:
    async with fake_server(silent) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        await till.ready()
        with pytest.raises(RequestUnanswered):
            await till.cancel(reference="order-1", timeout_s=0.05)
        with pytest.raises(ValueError, match="order order-1 is being canceled"):
            await till.scan(code=CODE, amount_minor=1250, reference="order-1")


@pytest.mark.asyncio
async def test_a_late_answer_settles_the_cancel(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"
    cancel_timed_out = asyncio.Event()

    async def late(peer: Peer) -> None:
        await peer.welcome()
        cancel = await peer.receive()
        await cancel_timed_out.wait()
        await peer.answer(cancel, CANCELED)

    async with fake_server(late) as server:
        async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
            await till.ready()
            with pytest.raises(RequestUnanswered):
                await till.cancel(payment_id=PAYMENT_ID, timeout_s=0.05)
            assert list(journal_of(server, path).entries) == [f"cancel {PAYMENT_ID}"]
            cancel_timed_out.set()
            result = await till.result()
        assert journal_of(server, path).entries == {}
    assert (result.payment_id, getattr(result, "status", None)) == (PAYMENT_ID, "canceled")


@pytest.mark.asyncio
async def test_a_closed_till_keeps_its_unanswered_cancel(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"
    async with fake_server(silent) as server:
        async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
            canceling = asyncio.create_task(till.cancel(payment_id=UUID(OTHER_ID)))
            await till.ready()
        with pytest.raises((RequestUnanswered, ConnectionStopped)):
            await canceling
        assert list(journal_of(server, path).entries) == [f"cancel {OTHER_ID}"]
