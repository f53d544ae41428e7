"""Every decline code over WebSockets, with the texts for cashier and customer in every language."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import asyncpg
import pytest
from websockets.asyncio.client import ClientConnection

from pos_server.core.payments.declines import DeclineCode
from pos_server.core.payments.operations import Scan
from pos_server.core.payments.rules import Risk
from pos_server.core.payments.snapshot import Wallet
from pos_server.core.texts import LANGUAGES, decline_text
from pos_server.server import RunningServer
from tests.gateway.test_cancel import cancel_message
from tests.gateway.test_pin import OTHER_PIN, confirm_message, pin_message
from tests.shared import shared_database, shared_server
from tests.support import Shop, TestDevice, ask, forged, logged_in, receive, scan_message

pytestmark = pytest.mark.asyncio

# Amounts that require a PIN, exceed a limit, or trigger the risk hook.
PIN_FREE_MAX, RISKY, DAY_MAX, PAYMENT_MAX, BALANCE_MAX = 2_000, 666, 5_000, 20_000, 12_000


dsn = shared_database()
server = shared_server(
    pin_free_minor_max=PIN_FREE_MAX,
    day_minor_max=DAY_MAX,
    payment_minor_max=PAYMENT_MAX,
    balance_minor_max=BALANCE_MAX,
    risk_hook="tests.gateway.test_declines:reject_risky_amount",
)


def reject_risky_amount(scan: Scan, wallet: Wallet) -> Risk:
    """Reject one amount: a risk hook, loaded by its name."""
    return Risk.REJECT if scan.amount_minor == RISKY else Risk.ACCEPT


@dataclass(slots=True)
class Scene:
    shop: Shop
    till: ClientConnection
    phone: ClientConnection
    wallet: TestDevice
    admin: asyncpg.Connection

    async def pay(self, **fields: object) -> dict[str, object]:
        return await ask(self.till, scan_message(self.wallet.code(), amount_minor=100, **fields))

    async def ask_for_pin(self) -> dict[str, object]:
        await ask(self.phone, pin_message())
        pending = await ask(self.till, scan_message(self.wallet.code(), amount_minor=PIN_FREE_MAX + 1, reference="pin"))
        assert pending["type"] == "payment.pending"
        return await receive(self.phone)


Case = Callable[[Scene], Awaitable[dict[str, object]]]
"""Prepares a decline. Returns the scan to send, or an empty dict if the decline is already on its way."""

CASES: dict[DeclineCode, Case] = {}


def case(code: DeclineCode) -> Callable[[Case], Case]:
    def register(function: Case) -> Case:
        CASES[code] = function
        return function

    return register


def sql(code: DeclineCode, statement: str) -> None:
    @case(code)
    async def change_row(scene: Scene) -> dict[str, object]:
        shop = scene.shop
        terminal, wallet = shop.terminals[0].device.number, scene.wallet.device.number
        await scene.admin.execute(statement.format(merchant=shop.merchant_id, terminal=terminal, wallet=wallet))
        return scan_message(scene.wallet.code(), amount_minor=100)


sql(DeclineCode.TERMINAL_DISABLED, "update terminal set status = 'disabled' where number = {terminal}")
sql(DeclineCode.MERCHANT_INACTIVE, "update merchant set status = 'inactive' where id = {merchant}")
sql(DeclineCode.WALLET_FROZEN, "update wallet set status = 'frozen' where number = {wallet}")
sql(DeclineCode.WALLET_CLOSED, "update wallet set status = 'closed' where number = {wallet}")
sql(DeclineCode.CURRENCY_MISMATCH, "update wallet set currency = 'USD' where number = {wallet}")
sql(DeclineCode.INSUFFICIENT_FUNDS, "update wallet set balance_minor = 99 where number = {wallet}")


@case(DeclineCode.CODE_MALFORMED)
async def _malformed(scene: Scene) -> dict[str, object]:
    return scan_message("4006381333931")


@case(DeclineCode.CODE_INVALID)
async def _forged(scene: Scene) -> dict[str, object]:
    return scan_message(forged(scene.wallet.code()))


@case(DeclineCode.CODE_EXPIRED)
async def _expired(scene: Scene) -> dict[str, object]:
    return scan_message(scene.wallet.code(steps=-4))


@case(DeclineCode.CODE_USED)
async def _used(scene: Scene) -> dict[str, object]:
    code = scene.wallet.code()
    await ask(scene.till, scan_message(code, amount_minor=100))
    await receive(scene.phone)
    return scan_message(code, amount_minor=100)


@case(DeclineCode.CANCELED)
async def _canceled(scene: Scene) -> dict[str, object]:
    await ask(scene.till, cancel_message(reference="order-9"))
    return scan_message(scene.wallet.code(), reference="order-9", amount_minor=100)


@case(DeclineCode.ALREADY_PAID)
async def _paid(scene: Scene) -> dict[str, object]:
    await scene.pay(reference="order-9")
    await receive(scene.phone)
    return scan_message(scene.wallet.code(), reference="order-9", amount_minor=100)


@case(DeclineCode.ALREADY_PENDING)
async def _pending(scene: Scene) -> dict[str, object]:
    await scene.ask_for_pin()
    return scan_message(scene.wallet.code(), reference="pin", amount_minor=100)


@case(DeclineCode.AMOUNT_OVER_LIMIT)
async def _over_limit(scene: Scene) -> dict[str, object]:
    return scan_message(scene.wallet.code(), amount_minor=PAYMENT_MAX + 1)


@case(DeclineCode.DAILY_LIMIT)
async def _daily_limit(scene: Scene) -> dict[str, object]:
    await scene.pay()
    await receive(scene.phone)
    return scan_message(scene.wallet.code(), amount_minor=DAY_MAX - 99)


@case(DeclineCode.BALANCE_LIMIT)
async def _balance_limit(scene: Scene) -> dict[str, object]:
    return scan_message(scene.wallet.code(), amount_minor=BALANCE_MAX - 9_999, purpose="top_up")


@case(DeclineCode.RISK_REJECTED)
async def _risk(scene: Scene) -> dict[str, object]:
    return scan_message(scene.wallet.code(), amount_minor=RISKY)


@case(DeclineCode.PIN_WRONG)
async def _pin_wrong(scene: Scene) -> dict[str, object]:
    request = await scene.ask_for_pin()
    for _ in range(2):
        request = await ask(scene.phone, confirm_message(request, OTHER_PIN))
    await scene.phone.send(json.dumps(confirm_message(request, OTHER_PIN)))
    return {}


@case(DeclineCode.PIN_LOCKED)
async def _pin_locked(scene: Scene) -> dict[str, object]:
    await ask(scene.phone, pin_message())
    locked = "update wallet set pin_locked_until = now() + interval '1 hour' where number = $1"
    await scene.admin.execute(locked, scene.wallet.device.number)
    return scan_message(scene.wallet.code(), amount_minor=PIN_FREE_MAX + 1)


@case(DeclineCode.CUSTOMER_REJECTED)
async def _rejected(scene: Scene) -> dict[str, object]:
    request = await scene.ask_for_pin()
    reject = {"type": "payment.reject", "message_id": "no", "payment_id": request["payment_id"]}
    await scene.phone.send(json.dumps(reject))
    return {}


WITHOUT_NOTICE = {
    DeclineCode.TERMINAL_DISABLED,
    DeclineCode.MERCHANT_INACTIVE,
    DeclineCode.CODE_MALFORMED,
    DeclineCode.CODE_INVALID,
}


async def test_every_code_has_a_case() -> None:
    assert set(CASES) == set(DeclineCode)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("code", CASES)
async def test_decline(
    code: DeclineCode, language: str, server: RunningServer, shop: Shop, admin: asyncpg.Connection
) -> None:
    wallet = shop.wallets[0]
    async with (
        logged_in(server.url, shop.terminals[0], language=language) as till,
        logged_in(server.url, wallet, language=f"{language}-XX") as phone,
    ):
        scan = await CASES[code](Scene(shop, till, phone, wallet, admin))
        result = await ask(till, scan) if scan else await receive(till)
        assert (result["type"], result["status"], result["decline_code"]) == ("payment.result", "declined", code)
        assert result["text"] == decline_text(language, "cashier", code)
        assert result["next_step"] is not None
        if code not in WITHOUT_NOTICE:
            notice = await receive(phone)
            assert (notice["payment_id"], notice["decline_code"]) == (result["payment_id"], code)
            assert notice["text"] == decline_text(language, "customer", code)
        if scan:
            assert await ask(till, scan) == result, "a repeat gets the stored answer"
