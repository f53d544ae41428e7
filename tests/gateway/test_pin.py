"""Payments that wait for the customer's PIN, over WebSockets."""

from typing import Any

import asyncpg
import pytest
from websockets.asyncio.client import ClientConnection

from pos_server.core.credentials.device_keys import DeviceId, DeviceKind
from pos_server.ledger.audit import audit
from pos_server.server import RunningServer
from tests.shared import shared_database, shared_server
from tests.support import Shop, activated, ask, logged_in, new_id, receive, scan_message

pytestmark = pytest.mark.asyncio
dsn = shared_database()
# The PIN is required for 5.00 EUR and more.
server = shared_server(pin_free_minor_max=499)

PIN = "274951"
OTHER_PIN = "860317"


def pin_message(new_pin: str = PIN, **fields: Any) -> dict[str, Any]:
    return {"type": "pin.set", "message_id": "pin", "request_id": str(new_id()), "new_pin": new_pin} | fields


def confirm_message(request: dict[str, Any], pin: str = PIN, **fields: Any) -> dict[str, Any]:
    message = {"type": "payment.confirm", "message_id": "confirm", "pin": pin}
    return message | {"payment_id": request["payment_id"], "version": request["version"]} | fields


async def ask_for_pin(till: ClientConnection, phone: ClientConnection, code: str, **fields: Any) -> dict[str, Any]:
    """Make a payment that waits for the PIN. Returns the phone's confirmation request."""
    pending = await ask(till, scan_message(code, **fields))
    assert pending["type"] == "payment.pending", pending
    request = await receive(phone)
    assert (request["type"], request["payment_id"]) == ("payment.confirmation_required", pending["payment_id"])
    return request


async def set_pin(phone: ClientConnection) -> None:
    assert (await ask(phone, pin_message()))["type"] == "pin.changed"


async def test_a_pending_payment_is_approved_with_the_pin(
    server: RunningServer, shop: Shop, admin: asyncpg.Connection
) -> None:
    wallet = shop.wallets[0]
    tablet = await activated(admin, DeviceId(DeviceKind.WALLET, wallet.device.number, 3))
    async with (
        logged_in(server.url, shop.terminals[0]) as till,
        logged_in(server.url, wallet) as phone,
        logged_in(server.url, tablet) as other,
    ):
        await set_pin(phone)
        notice = await receive(other)
        assert (notice["type"], notice["reply_to"]) == ("pin.changed", None)

        pending = await ask(till, scan_message(wallet.code()))
        assert (pending["type"], pending["wallet_online"]) == ("payment.pending", True)
        request, same_request = await receive(phone), await receive(other)
        assert request == same_request
        assert request["pin_tries_left"] == 3
        assert request["expires_at_ms"] == pending["expires_at_ms"] == request["decided_at_ms"] + 60_000

        wrong = await ask(phone, confirm_message(request, OTHER_PIN))
        assert (wrong["type"], wrong["reply_to"]) == ("payment.confirmation_required", "confirm")
        assert (wrong["pin_tries_left"], wrong["version"]) == (2, 2)
        assert await receive(other) == wrong | {"reply_to": None}

        paid = await ask(phone, confirm_message(wrong))
        assert (paid["type"], paid["status"], paid["reply_to"], paid["balance_minor"]) == (
            "payment.result",
            "approved",
            "confirm",
            9_000,
        )
        assert await receive(other) == paid | {"reply_to": None}
        result = await receive(till)
        assert (result["type"], result["status"], result["reply_to"], result["version"]) == (
            "payment.result",
            "approved",
            None,
            3,
        )
    assert (await audit(admin)).ok


async def test_a_small_payment_needs_no_pin_but_a_typed_code_does(server: RunningServer, shop: Shop) -> None:
    wallet = shop.wallets[0]
    async with logged_in(server.url, shop.terminals[0]) as till:
        small = await ask(till, scan_message(wallet.code(), amount_minor=499))
        typed = await ask(till, scan_message(wallet.code(), amount_minor=1, entry="typed"))
    assert (small["status"], typed["type"]) == ("approved", "payment.pending")


async def test_pending_says_that_no_phone_is_online(server: RunningServer, shop: Shop) -> None:
    wallet = shop.wallets[0]
    async with logged_in(server.url, shop.terminals[0]) as till:
        pending = await ask(till, scan_message(wallet.code()))
        assert pending["wallet_online"] is False
        assert "open the wallet" in pending["text"]
        async with logged_in(server.url, wallet) as phone:
            request = await receive(phone)
            assert request["payment_id"] == pending["payment_id"]
            assert "Set a PIN" in request["text"]
            refusal = await ask(phone, confirm_message(request))
            assert (refusal["type"], refusal["code"]) == ("error", "pin_not_set")
            await set_pin(phone)
            assert (await ask(phone, confirm_message(request)))["status"] == "approved"
        assert (await receive(till))["status"] == "approved"


async def test_a_repeated_wrong_pin_counts_once(server: RunningServer, shop: Shop) -> None:
    async with logged_in(server.url, shop.terminals[0]) as till, logged_in(server.url, shop.wallets[0]) as phone:
        await set_pin(phone)
        request = await ask_for_pin(till, phone, shop.wallets[0].code())
        first = await ask(phone, confirm_message(request, OTHER_PIN))
        repeat = await ask(phone, confirm_message(request, OTHER_PIN))
        assert first == repeat
        # Even the right PIN is not checked for an old version.
        assert await ask(phone, confirm_message(request)) == repeat
        assert (await ask(phone, confirm_message(repeat)))["status"] == "approved"


async def test_three_wrong_pins_decline_the_payment_and_five_lock_the_pin(server: RunningServer, shop: Shop) -> None:
    wallet = shop.wallets[0]
    async with logged_in(server.url, shop.terminals[0]) as till, logged_in(server.url, wallet) as phone:
        await set_pin(phone)
        request = await ask_for_pin(till, phone, wallet.code())
        for _ in range(3):
            request = await ask(phone, confirm_message(request, OTHER_PIN))
        assert (request["status"], request["decline_code"]) == ("declined", "pin_wrong")
        assert (await receive(till))["decline_code"] == "pin_wrong"

        request = await ask_for_pin(till, phone, wallet.code())
        assert request["pin_tries_left"] == 2
        for _ in range(2):
            request = await ask(phone, confirm_message(request, OTHER_PIN))
        assert (request["status"], request["decline_code"]) == ("declined", "pin_locked")
        assert (await receive(till))["decline_code"] == "pin_locked"

        assert (await ask(till, scan_message(wallet.code())))["decline_code"] == "pin_locked"
        assert (await receive(phone))["decline_code"] == "pin_locked"
        locked = await ask(phone, pin_message(OTHER_PIN, old_pin=PIN))
        assert (locked["code"], locked["retryable"]) == ("pin_locked", True)
        assert locked["retry_after_s"] > 3600
        assert (await ask(till, scan_message(wallet.code(), amount_minor=100)))["status"] == "approved"


async def test_a_customer_can_reject(server: RunningServer, shop: Shop) -> None:
    async with logged_in(server.url, shop.terminals[0]) as till, logged_in(server.url, shop.wallets[0]) as phone:
        request = await ask_for_pin(till, phone, shop.wallets[0].code())
        reject = {"type": "payment.reject", "message_id": "no", "payment_id": request["payment_id"]}
        answer = await ask(phone, reject)
        assert (answer["status"], answer["decline_code"]) == ("declined", "customer_rejected")
        assert await ask(phone, reject) == answer
        assert (await receive(till))["decline_code"] == "customer_rejected"


async def test_another_wallets_payment_is_unknown(server: RunningServer, shop: Shop) -> None:
    async with (
        logged_in(server.url, shop.terminals[0]) as till,
        logged_in(server.url, shop.wallets[0]) as phone,
        logged_in(server.url, shop.wallets[1]) as stranger,
    ):
        await set_pin(stranger)
        request = await ask_for_pin(till, phone, shop.wallets[0].code())
        for message in (
            confirm_message(request),
            {"type": "payment.reject", "message_id": "no", "payment_id": request["payment_id"]},
        ):
            assert (await ask(stranger, message))["code"] == "payment_unknown"


async def test_setting_a_pin(server: RunningServer, shop: Shop, admin: asyncpg.Connection) -> None:
    number = shop.wallets[0].device.number
    failures = "select pin_failures from wallet where number = $1"
    async with logged_in(server.url, shop.wallets[0]) as phone:
        for weak in ("0000", "123456", "987654", "7777777"):
            refusal = await ask(phone, pin_message(weak))
            assert (refusal["code"], refusal["field"]) == ("pin_too_weak", "new_pin")
        for bad in ("123", "1234567890123", "12a4", "\uff11\uff12\uff13\uff14", 1234, None):
            refusal = await ask(phone, pin_message(bad))  # type: ignore[arg-type]
            assert (refusal["code"], refusal["field"]) == ("bad_field", "new_pin")
        first = pin_message()
        assert (await ask(phone, first))["type"] == "pin.changed"
        assert (await ask(phone, first))["type"] == "pin.changed"
        assert (await ask(phone, pin_message(OTHER_PIN)))["code"] == "pin_wrong"
        wrong = pin_message(OTHER_PIN, old_pin="111222")
        assert (await ask(phone, wrong))["code"] == "pin_wrong"
        assert (await ask(phone, wrong))["code"] == "pin_wrong"
        assert await admin.fetchval(failures, number) == 1, "a repeat must not count again"
        assert (await ask(phone, pin_message(OTHER_PIN, old_pin=PIN)))["type"] == "pin.changed"
    numbers = [wallet.device.number for wallet in shop.wallets]
    hashes = "select number, pin_hash from wallet where number = any($1) and pin_hash is not null"
    [row] = await admin.fetch(hashes, numbers)
    assert row["number"] == number
    assert row["pin_hash"].startswith("$argon2id$")
    assert PIN not in row["pin_hash"]


async def test_the_error_does_not_reveal_whether_the_new_pin_equals_the_old_one(
    server: RunningServer, shop: Shop
) -> None:
    """Otherwise a thief with the phone could guess the PIN without a limit."""
    async with logged_in(server.url, shop.wallets[0]) as phone:
        await set_pin(phone)
        right = await ask(phone, pin_message(PIN, old_pin=OTHER_PIN))
        wrong = await ask(phone, pin_message("402816", old_pin=OTHER_PIN))
        assert right == wrong
        assert right["code"] == "pin_wrong"


async def test_balance_and_limits_are_decided_again_at_the_confirmation(
    server: RunningServer, shop: Shop, admin: asyncpg.Connection
) -> None:
    wallet = shop.wallets[0]
    async with logged_in(server.url, shop.terminals[0]) as till, logged_in(server.url, wallet) as phone:
        await set_pin(phone)
        request = [await ask_for_pin(till, phone, wallet.code(), amount_minor=6_000) for _ in range(2)]
        assert (await ask(phone, confirm_message(request[0])))["status"] == "approved"
        assert (await receive(till))["status"] == "approved"
        assert (await ask(phone, confirm_message(request[1])))["decline_code"] == "insufficient_funds"
        assert (await receive(till))["decline_code"] == "insufficient_funds"
        last = await ask_for_pin(till, phone, wallet.code(), amount_minor=500)
        await admin.execute(
            "update wallet set status = 'frozen', version = version + 1 where number = $1", wallet.device.number
        )
        assert (await ask(phone, confirm_message(last)))["decline_code"] == "wallet_frozen"
