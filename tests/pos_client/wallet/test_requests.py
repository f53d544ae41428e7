"""A wallet's notices and requests: confirmations, rejections, PIN changes and the history."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from pos_client.errors import RequestRefused, RequestUnanswered
from pos_client.wallet.client import WalletClient
from pos_server.core.protocol.server_messages import (
    ConfirmationRequired,
    PinChanged,
    StatusChanged,
    WalletPaymentResult,
    WalletRefundResult,
)
from tests.pos_client.fake_server import BOUGHT, CONFIRM, Peer, Script, fake_server
from tests.pos_client.fake_time import no_wait

PAYMENT_ID = UUID(CONFIRM["payment_id"])
PIN = "739104"
NEW_PIN = "582047"
PAGE_END = "01890000-0000-7000-8000-0000000000bb"
FROZEN = {"type": "status.changed", "status": "frozen", "text": "Your wallet is frozen. Call support."}
PIN_CHANGED = {"type": "pin.changed", "reply_to": None, "text": "The PIN of this wallet was changed."}
REFUNDED = {
    **{name: BOUGHT[name] for name in ("payment_id", "merchant_name", "store_name", "currency", "decided_at_ms")},
    "type": "refund.result",
    "refund_id": "01890000-0000-7000-8000-0000000000aa",
    "version": 3,
    "amount_minor": 100,
    "refunded_minor": 100,
    "text": "Canteen refunded 1.00 EUR.",
    "balance_minor": 1780,
}


@asynccontextmanager
async def wallet_at(*scripts: Script, **options: Any) -> AsyncIterator[WalletClient]:
    async with (
        fake_server(*scripts) as server,
        WalletClient(server.wallet(), backoff=no_wait(), **options) as wallet,
    ):
        await wallet.ready()
        yield wallet


@pytest.mark.asyncio
async def test_all_kinds_of_notices_arrive_in_order_and_once() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        for message in (CONFIRM, CONFIRM, {**BOUGHT, "version": 2}, REFUNDED, REFUNDED, PIN_CHANGED):
            await peer.send(**message)

    async with wallet_at(script) as wallet:
        kinds = []
        async for notice in wallet.notices():
            kinds.append(type(notice))
            if isinstance(notice, PinChanged):
                break
        assert wallet.balance_minor == 1780
    assert kinds == [ConfirmationRequired, WalletPaymentResult, WalletRefundResult, PinChanged]


@pytest.mark.asyncio
async def test_a_status_change_is_a_notice_and_updates_the_status() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(**FROZEN)

    async with wallet_at(script) as wallet:
        assert (await wallet.ready()).status == "active"
        notice = await wallet.next_notice()
        assert isinstance(notice, StatusChanged)
        assert (notice.text, wallet.status) == (FROZEN["text"], "frozen")


@pytest.mark.asyncio
async def test_a_confirmation_returns_the_result_instead_of_a_notice() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(**CONFIRM)
        confirm = await peer.receive()
        fields = {name: confirm[name] for name in ("type", "payment_id", "version", "pin")}
        assert fields == {"type": "payment.confirm", "payment_id": str(PAYMENT_ID), "version": 1, "pin": PIN}
        await peer.answer(confirm, {**BOUGHT, "version": 2})
        await peer.send(**PIN_CHANGED)

    async with wallet_at(script) as wallet:
        notice = await wallet.next_notice()
        assert isinstance(notice, ConfirmationRequired)
        result = await wallet.confirm(notice.payment_id, notice.version, PIN)
        assert isinstance(await wallet.next_notice(), PinChanged)
        assert wallet.balance_minor == 1680
    assert isinstance(result, WalletPaymentResult)
    assert result.status == "approved"


@pytest.mark.asyncio
async def test_a_wrong_pin_returns_a_confirmation_with_a_new_version() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.answer(await peer.receive(), {**CONFIRM, "version": 2, "pin_tries_left": 2})

    async with wallet_at(script) as wallet:
        answer = await wallet.confirm(PAYMENT_ID, 1, "0000")
    assert isinstance(answer, ConfirmationRequired)
    assert (answer.version, answer.pin_tries_left) == (2, 2)


@pytest.mark.asyncio
async def test_a_confirmation_is_resent_after_a_reconnect_and_a_replay_answers_it() -> None:
    confirms = []

    async def dropping(peer: Peer) -> None:
        await peer.welcome()
        confirms.append(await peer.receive())
        peer.drop()

    async def replaying(peer: Peer) -> None:
        await peer.welcome()
        confirms.append(await peer.receive())
        await peer.send(**{**BOUGHT, "version": 2})
        await peer.answer(confirms[-1], {**BOUGHT, "version": 2})
        await peer.send(**PIN_CHANGED)

    async with wallet_at(dropping, replaying) as wallet:
        result = await wallet.confirm(PAYMENT_ID, 1, PIN)
        assert isinstance(await wallet.next_notice(), PinChanged)  # the result is not a notice
    assert isinstance(result, WalletPaymentResult)
    bodies = [{name: value for name, value in confirm.items() if name != "message_id"} for confirm in confirms]
    assert bodies == [bodies[0]] * 2


@pytest.mark.asyncio
async def test_a_wrong_pin_on_another_device_does_not_answer() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        confirm = await peer.receive()
        await peer.send(**{**CONFIRM, "version": 2, "pin_tries_left": 2})
        await peer.answer(confirm, {**CONFIRM, "version": 2, "pin_tries_left": 2})

    async with wallet_at(script) as wallet:
        answer = await wallet.confirm(PAYMENT_ID, 1, PIN)
        notice = await wallet.next_notice()
    assert isinstance(answer, ConfirmationRequired)
    assert isinstance(notice, ConfirmationRequired)


@pytest.mark.asyncio
async def test_a_rejection_returns_the_result_of_the_payment() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        reject = await peer.receive()
        assert reject["type"] == "payment.reject"
        await peer.answer(reject, {**BOUGHT, "status": "declined", "decline_code": "customer_rejected"})

    async with wallet_at(script) as wallet:
        result = await wallet.reject(PAYMENT_ID)
    assert isinstance(result, WalletPaymentResult)
    assert result.decline_code == "customer_rejected"


@pytest.mark.asyncio
async def test_a_new_pin_keeps_its_request_id_until_it_is_answered() -> None:
    changes = []

    async def dropping(peer: Peer) -> None:
        await peer.welcome()
        changes.append(await peer.receive())
        peer.drop()

    async def answering(peer: Peer) -> None:
        await peer.welcome()
        changes.append(await peer.receive())
        await peer.refuse(changes[-1], "busy", retryable=True)
        changes.append(await peer.receive())
        await peer.send(**{**PIN_CHANGED, "reply_to": changes[-1]["message_id"]})

    async with wallet_at(dropping, answering) as wallet:
        assert (await wallet.set_pin(NEW_PIN, PIN)).text == PIN_CHANGED["text"]
        assert wallet.pin_set
    assert {(each["request_id"], each["new_pin"], each["old_pin"]) for each in changes} == {
        (changes[0]["request_id"], NEW_PIN, PIN)
    }


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "refusal",
    [
        {"code": "pin_too_weak", "retryable": False, "field": "new_pin"},
        {"code": "pin_locked", "retryable": True, "retry_after_s": 86_400},
    ],
)
async def test_a_refused_pin_raises_its_code_at_once(refusal: dict[str, Any]) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.refuse(await peer.receive(), **refusal)

    async with wallet_at(script) as wallet:
        with pytest.raises(RequestRefused) as refused:
            await wallet.set_pin(NEW_PIN)
    error = refused.value
    assert (error.code, error.field, error.retry_after_s) == (
        refusal["code"],
        refusal.get("field"),
        refusal.get("retry_after_s"),
    )


@pytest.mark.asyncio
async def test_history_is_paged() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        request = await peer.receive()
        assert (request["type"], request["limit"], request["cursor"]) == ("history", 2, f"17.{PAGE_END}")
        payments = [{**CONFIRM, "version": 3}, BOUGHT]
        await peer.send(
            type="history.page", reply_to=request["message_id"], payments=payments, next_cursor=f"16.{PAGE_END}"
        )

    async with wallet_at(script) as wallet:
        page = await wallet.history(2, f"17.{PAGE_END}")
    assert [type(payment) for payment in page.payments] == [ConfirmationRequired, WalletPaymentResult]
    assert page.next_cursor == f"16.{PAGE_END}"


@pytest.mark.asyncio
@pytest.mark.parametrize("pin", ["", "123", "12345678901234", "12a4", "\uff11\uff12\uff13\uff14"])
async def test_an_invalid_pin_is_neither_sent_nor_repeated(pin: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()

    async with wallet_at(script) as wallet:
        with pytest.raises(ValueError, match="pin: ") as error:
            await wallet.confirm(PAYMENT_ID, 1, pin)
        with pytest.raises(ValueError, match="new_pin: "):
            await wallet.set_pin(pin)
    assert not pin or pin not in str(error.value)


@pytest.mark.asyncio
async def test_no_log_file_or_error_contains_a_pin(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("websockets.server").setLevel(logging.WARNING)
    resent = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.refuse(await peer.receive(), "busy", retryable=True)
        await peer.receive()
        resent.set()

    state_file = tmp_path / "state"
    async with wallet_at(script, state_file=state_file) as wallet:
        confirming = asyncio.create_task(wallet.confirm(PAYMENT_ID, 1, PIN, timeout_s=0.3))
        await resent.wait()
        assert PIN not in repr(wallet._decisions) + repr(confirming)
        with pytest.raises(RequestUnanswered) as error:
            await confirming
    assert PIN not in caplog.text + state_file.read_text() + repr(error.value) + str(error.value)


@pytest.mark.asyncio
async def test_payments_of_two_merchants_with_one_id_are_told_apart() -> None:
    """Each is a notice of its own, and each decision gets the result of its own payment."""
    first, second = CONFIRM | {"merchant_id": 1}, CONFIRM | {"merchant_id": 2}
    requests: list[dict[str, Any]] = []

    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(**first)
        await peer.send(**second)
        requests.extend([await peer.receive(), await peer.receive()])
        # Results that answer no request, as after a reconnect.
        await peer.send(**BOUGHT | {"merchant_id": 2, "version": 2, "status": "declined"})
        await peer.send(**BOUGHT | {"merchant_id": 1, "version": 2})

    async with wallet_at(script) as wallet:
        asked = [await wallet.next_notice(), await wallet.next_notice()]
        assert [getattr(notice, "merchant_id", None) for notice in asked] == [1, 2]
        confirmed, rejected = await asyncio.gather(
            wallet.confirm(PAYMENT_ID, 1, PIN, merchant_id=1), wallet.reject(PAYMENT_ID, merchant_id=2)
        )
    assert [(request["type"], request["merchant_id"]) for request in requests] == [
        ("payment.confirm", 1),
        ("payment.reject", 2),
    ]
    assert (confirmed.merchant_id, rejected.merchant_id) == (1, 2)
    assert isinstance(rejected, WalletPaymentResult)
    assert rejected.status == "declined"
