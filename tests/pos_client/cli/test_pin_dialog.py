"""The PIN dialog: prompts and the meaning of typed lines."""

import asyncio

import pytest

from pos_client.cli.pin_dialog import PinDialog
from pos_client.wallet.client import Notice, WalletClient
from pos_server.core.protocol.server_messages import ConfirmationRequired
from tests.pos_client.fake_server import BOUGHT, CONFIRM, Peer
from tests.pos_client.wallet.test_requests import NEW_PIN, PAYMENT_ID, PIN, PIN_CHANGED, wallet_at


async def opened(wallet: WalletClient, answers: list[Notice]) -> PinDialog:
    dialog = PinDialog(wallet, answers.append)
    notice = await wallet.next_notice()
    assert isinstance(notice, ConfirmationRequired)
    dialog.on_notice(notice)
    return dialog


async def finished(dialog: PinDialog) -> None:
    assert dialog._task is not None
    await asyncio.wait([dialog._task])


@pytest.mark.asyncio
async def test_a_wallet_without_a_pin_must_first_set_one_typed_twice() -> None:
    requests = []

    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(**CONFIRM)
        requests.append(await peer.receive())
        await peer.send(**{**PIN_CHANGED, "reply_to": requests[0]["message_id"]})
        requests.append(await peer.receive())
        await peer.answer(requests[1], {**BOUGHT, "version": 2})

    answers: list[Notice] = []
    async with wallet_at(script) as wallet:
        wallet.pin_set = False
        dialog = await opened(wallet, answers)
        hints = [dialog.prompt()[-1]]
        for line in (NEW_PIN, "582048", NEW_PIN, NEW_PIN):
            dialog.on_line(line)
            hints.append(" ".join(dialog.prompt()[1:]))
        await finished(dialog)
        assert dialog.is_open
        dialog.on_line(NEW_PIN)
        await finished(dialog)
    assert [hint.split(" and ")[0] for hint in hints] == [
        "Type a new PIN of 4 to 12 digits",
        "Type the new PIN again",
        "The two PINs differ. Type a new PIN of 4 to 12 digits",
        "Type the new PIN again",
        "One moment …",
    ]
    assert [(each["type"], each.get("new_pin", each.get("pin"))) for each in requests] == [
        ("pin.set", NEW_PIN),
        ("payment.confirm", NEW_PIN),
    ]
    assert [getattr(notice, "status", None) for notice in answers] == ["approved"]
    assert (dialog.is_open, dialog.prompt()) == (False, [])


@pytest.mark.asyncio
async def test_an_invalid_or_refused_pin_is_reported_and_the_prompt_stays() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(**CONFIRM)
        await peer.refuse(await peer.receive(), "pin_not_set", retryable=False)

    async with wallet_at(script) as wallet:
        dialog = await opened(wallet, [])
        for line, message in (("12", "That failed: pin: "), (PIN, "That failed: because of pin_not_set")):
            dialog.on_line(line)
            await finished(dialog)
            assert dialog.prompt()[1].startswith(message)
            assert PIN not in "".join(dialog.prompt())


@pytest.mark.asyncio
async def test_a_question_closes_with_its_payment_and_later_lines_are_ignored() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(**CONFIRM)
        await peer.send(**{**BOUGHT, "version": 2, "status": "expired"})

    async with wallet_at(script) as wallet:
        dialog = await opened(wallet, [])
        assert dialog.prompt()[0] == CONFIRM["text"]
        dialog.on_notice(await wallet.next_notice())
        dialog.on_line(PIN)
        assert (dialog.is_open, dialog.prompt(), dialog._task) == (False, [], None)


@pytest.mark.asyncio
async def test_closing_cancels_the_running_request() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(**CONFIRM)

    async with wallet_at(script) as wallet:
        dialog = await opened(wallet, [])
        dialog.on_line("n")
        assert dialog.prompt()[-1] == "One moment …"
        await dialog.close()
        assert dialog._questions[0].payment_id == PAYMENT_ID


@pytest.mark.asyncio
async def test_a_result_closes_the_question_of_its_merchant_only() -> None:
    requests = []

    async def script(peer: Peer) -> None:
        await peer.welcome()
        for merchant_id in (1, 2):
            await peer.send(**CONFIRM | {"merchant_id": merchant_id, "text": f"Pay {merchant_id}?"})
        requests.append(await peer.receive())
        await peer.answer(requests[0], BOUGHT | {"merchant_id": 1, "version": 2})

    answers: list[Notice] = []
    async with wallet_at(script) as wallet:
        dialog = await opened(wallet, answers)
        dialog.on_notice(await wallet.next_notice())
        dialog.on_line(PIN)
        await finished(dialog)
        assert dialog.prompt()[0] == "Pay 2?"
    assert requests[0]["merchant_id"] == 1
