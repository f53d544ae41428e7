"""What the customer's lines mean while a payment waits for its PIN."""

import asyncio

import pytest

from pos_client.cli.pin_dialog import Dialog
from pos_client.wallet.client import Notice, WalletClient
from pos_server.core.protocol.server_messages import ConfirmationRequired
from tests.pos_client.fake_server import BOUGHT, CONFIRM, Peer
from tests.pos_client.wallet.test_requests import NEW_PIN, PAYMENT_ID, PIN, PIN_CHANGED, wallet_at


async def opened(wallet: WalletClient, told: list[Notice]) -> Dialog:
    dialog = Dialog(wallet, told.append)
    notice = await wallet.next_notice()
    assert isinstance(notice, ConfirmationRequired)
    dialog.hear(notice)
    return dialog


async def finished(dialog: Dialog) -> None:
    assert dialog._work is not None
    await asyncio.wait([dialog._work])


@pytest.mark.asyncio
async def test_a_wallet_without_a_pin_sets_one_first_typed_twice() -> None:
    said = []

    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(**CONFIRM)
        said.append(await peer.receive())
        await peer.send(**{**PIN_CHANGED, "reply_to": said[0]["message_id"]})
        said.append(await peer.receive())
        await peer.answer(said[1], {**BOUGHT, "version": 2})

    told: list[Notice] = []
    async with wallet_at(script) as wallet:
        wallet.pin_set = False
        dialog = await opened(wallet, told)
        hints = [dialog.prompt()[-1]]
        for line in (NEW_PIN, "582048", NEW_PIN, NEW_PIN):
            dialog.typed(line)
            hints.append(" ".join(dialog.prompt()[1:]))
        await finished(dialog)
        assert dialog.is_open
        dialog.typed(NEW_PIN)
        await finished(dialog)
    assert [hint.split(" and ")[0] for hint in hints] == [
        "Type a new PIN of 4 to 12 digits",
        "Type the new PIN once more",
        "Those were two different PINs. Again: Type a new PIN of 4 to 12 digits",
        "Type the new PIN once more",
        "One moment …",
    ]
    assert [(each["type"], each.get("new_pin", each.get("pin"))) for each in said] == [
        ("pin.set", NEW_PIN),
        ("payment.confirm", NEW_PIN),
    ]
    assert [getattr(notice, "status", None) for notice in told] == ["approved"]
    assert (dialog.is_open, dialog.prompt()) == (False, [])


@pytest.mark.asyncio
async def test_what_is_no_pin_and_what_is_refused_is_said_and_asked_again() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(**CONFIRM)
        await peer.refuse(await peer.receive(), "pin_not_set", retryable=False)

    async with wallet_at(script) as wallet:
        dialog = await opened(wallet, [])
        for line, trouble in (("12", "That did not work: pin: "), (PIN, "That did not work: because of pin_not_set")):
            dialog.typed(line)
            await finished(dialog)
            assert dialog.prompt()[1].startswith(trouble)
            assert PIN not in "".join(dialog.prompt())


@pytest.mark.asyncio
async def test_a_question_ends_when_the_payment_does_and_lines_mean_nothing_then() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(**CONFIRM)
        await peer.send(**{**BOUGHT, "version": 2, "status": "expired"})

    async with wallet_at(script) as wallet:
        dialog = await opened(wallet, [])
        assert dialog.prompt()[0] == CONFIRM["text"]
        dialog.hear(await wallet.next_notice())
        dialog.typed(PIN)
        assert (dialog.is_open, dialog.prompt(), dialog._work) == (False, [], None)


@pytest.mark.asyncio
async def test_closing_ends_a_request_that_runs() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(**CONFIRM)

    async with wallet_at(script) as wallet:
        dialog = await opened(wallet, [])
        dialog.typed("n")
        assert dialog.prompt()[-1] == "One moment …"
        await dialog.close()
        assert dialog._asked[0].payment_id == PAYMENT_ID
