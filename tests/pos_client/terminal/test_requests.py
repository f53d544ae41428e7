"""A till's other requests: queries, recent payments, refunds."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from pos_client.device.backoff import Backoff
from pos_client.errors import RefundNotDone, RefundRefused, RefundUnknown, RequestRefused, RequestUnanswered
from pos_client.terminal.client import TerminalClient
from pos_client.terminal.recovery import RecoveredRefund
from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.protocol.server_messages import PaymentPending, TerminalPaymentResult, TerminalRefundResult
from tests.pos_client.fake_server import DECLINED, PAID, PENDING, REFUNDED, Peer, credentials, fake_server
from tests.pos_client.fake_time import no_wait
from tests.pos_client.terminal.test_recovery import OTHER_ID, PAYMENT_ID, journal_of, leave_open, silent

REFUND_ID = UUID("01890000-0000-7000-8000-0000000000aa")


@pytest.mark.asyncio
async def test_a_query_returns_a_result_or_a_pending_payment() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.answer(await peer.receive(), DECLINED)
        by_order = await peer.receive()
        await peer.send(**{**PENDING, "payment_id": OTHER_ID, "reply_to": by_order["message_id"]})

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        declined = await till.query(payment_id=PAYMENT_ID)
        pending = await till.query(reference="order-1")
        assert till.unread == 0
    assert isinstance(declined, TerminalPaymentResult)
    assert (declined.payment_id, declined.status) == (PAYMENT_ID, "declined")
    assert isinstance(pending, PaymentPending)


@pytest.mark.asyncio
async def test_a_query_for_an_unknown_payment_is_refused() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.refuse(await peer.receive(), "payment_unknown", retryable=False)

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        with pytest.raises(RequestRefused) as refused:
            await till.query(payment_id=PAYMENT_ID)
    assert refused.value.code == "payment_unknown"


@pytest.mark.asyncio
async def test_a_query_is_retried_until_its_timeout() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.refuse(await peer.receive(), "too_many_queries", retryable=True, retry_after_s=1)

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        await till.ready()
        with pytest.raises(RequestUnanswered, match="no answer: because of too_many_queries"):
            await till.query(payment_id=PAYMENT_ID, timeout_s=0.9)


@pytest.mark.asyncio
async def test_an_answered_query_settles_an_unknown_outcome(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"

    async def answering(peer: Peer) -> None:
        await peer.welcome()
        while True:
            message = await peer.receive()
            if message["type"] == "payment.query":
                await peer.answer(message)

    async with fake_server(silent, answering) as server:
        await leave_open(server, path)
        async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
            await till.query(payment_id=PAYMENT_ID)
        assert journal_of(server, path).entries == {}


@pytest.mark.asyncio
async def test_recent_payments_are_listed_and_are_not_unsolicited_results() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        recent = await peer.receive()
        assert (recent["type"], recent["limit"]) == ("payments.recent", 2)
        payments = [{**PAID, "payment_id": str(PAYMENT_ID)}, {**PENDING, "payment_id": OTHER_ID}]
        await peer.send(type="payments.list", reply_to=recent["message_id"], payments=payments)

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        payments = await till.recent(2)
        assert till.unread == 0
        with pytest.raises(ValueError, match="limit: "):
            await till.recent(51)
    assert [type(payment) for payment in payments] == [TerminalPaymentResult, PaymentPending]


@pytest.mark.asyncio
async def test_a_refund_keeps_its_id_until_it_is_answered(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"
    refunds: list[dict[str, Any]] = []
    journaled_keys: list[list[str]] = []

    async def dropping(peer: Peer) -> None:
        await peer.welcome()
        refunds.append(await peer.receive())
        journaled_keys.append(list(journal_of(server, path).entries))
        peer.drop()

    async def answering(peer: Peer) -> None:
        await peer.welcome()
        refunds.append(await peer.receive())
        await peer.refuse(refunds[-1], "busy", retryable=True)
        refunds.append(await peer.receive())
        await peer.answer(refunds[-1], REFUNDED)

    async with fake_server(dropping, answering) as server:
        async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
            result = await till.refund(PAYMENT_ID, 300)
            assert till.unread == 0
        journal = journal_of(server, path)
    assert (result.amount_minor, result.refundable_minor) == (300, 950)
    assert {(each["refund_id"], each["payment_id"], each["amount_minor"]) for each in refunds} == {
        (str(result.refund_id), str(PAYMENT_ID), 300)
    }
    assert journaled_keys == [[f"refund {result.refund_id}"]]
    assert (journal.entries, journal.versions) == ({}, {PAYMENT_ID: 2})


@pytest.mark.asyncio
async def test_a_refused_refund_carries_its_code_and_leaves_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"

    async def refusing(peer: Peer) -> None:
        await peer.welcome()
        await peer.refuse(await peer.receive(), "refund_exceeds_remaining", retryable=False)

    async with fake_server(refusing) as server:
        async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
            with pytest.raises(RefundRefused) as refused:
                await till.refund(PAYMENT_ID, 300)
        assert journal_of(server, path).entries == {}
    assert refused.value.code == "refund_exceeds_remaining"


@pytest.mark.asyncio
async def test_an_unsent_refund_is_not_journaled(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"
    never = Backoff(sleep=lambda _: asyncio.Event().wait())
    async with TerminalClient(credentials(DeviceKind.TERMINAL), journal=path, backoff=never) as till:
        with pytest.raises(RefundNotDone, match="nothing was refunded: "):
            await till.refund(PAYMENT_ID, 300, timeout_s=0.05)
    assert not path.exists()


@pytest.mark.asyncio
async def test_the_next_process_recovers_the_outcome_of_a_refund(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"

    async def answering(peer: Peer) -> None:
        await peer.welcome()
        await peer.answer(await peer.receive(), REFUNDED)

    async with fake_server(silent, answering) as server:
        async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
            await till.ready()
            with pytest.raises(RefundUnknown) as unknown:
                await till.refund(PAYMENT_ID, 300, timeout_s=0.1)
        async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
            (recovered,) = await till.recovered()
        assert journal_of(server, path).entries == {}
    assert isinstance(recovered, RecoveredRefund)
    assert (recovered.refund_id, recovered.amount_minor) == (unknown.value.refund_id, 300)
    assert isinstance(recovered.outcome, TerminalRefundResult)


@pytest.mark.asyncio
async def test_a_refund_by_another_till_arrives_at_result() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        for _ in range(2):
            await peer.send(**{**REFUNDED, "refund_id": str(REFUND_ID), "payment_id": str(PAYMENT_ID)})
        await peer.send(**{**PAID, "payment_id": str(PAYMENT_ID), "version": 2, "refunded_minor": 300})
        await peer.send(**{**PAID, "payment_id": OTHER_ID})

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        refund, other = await till.result(), await till.result()
    assert isinstance(refund, TerminalRefundResult)
    assert str(other.payment_id) == OTHER_ID


@pytest.mark.asyncio
async def test_the_language_of_the_texts_is_sent() -> None:
    languages = []

    async def script(peer: Peer) -> None:
        languages.append((await peer.welcome())["language"])

    async with (
        fake_server(script) as server,
        TerminalClient(server.terminal(), language="zh-CN", backoff=no_wait()) as till,
    ):
        await till.ready()
    assert languages == ["zh-CN"]
