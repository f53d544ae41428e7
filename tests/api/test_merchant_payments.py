"""Payments of the role `merchant`; a key gives access only to its own merchant."""

import asyncpg
import httpx
import pytest

from pos_server.ledger.audit import audit
from pos_server.server import RunningServer, serving
from tests.api.clients import back_office, idempotent, pay, payment_body, problem
from tests.gateway.test_pin import confirm_message, set_pin
from tests.gateway.test_shifts import opening
from tests.support import KEYRING, Shop, ask, forged, logged_in, new_id, receive, scan_message, settings

pytestmark = pytest.mark.asyncio


async def test_a_scanned_code_pays_once_and_all_are_notified(
    server: RunningServer, shop: Shop, api: httpx.AsyncClient, stranger: httpx.AsyncClient, admin: asyncpg.Connection
) -> None:
    body = payment_body(shop, reference="order-1")
    async with logged_in(server.url, shop.terminals[0]) as till, logged_in(server.url, shop.wallets[0]) as phone:
        made = await api.post("/v1/payments", json=body, headers=idempotent("p"))
        at_till, on_phone = await receive(till), await receive(phone)
    again = await api.post("/v1/payments", json=body, headers=idempotent("p"))
    assert (made.status_code, again.status_code, again.json()) == (201, 200, made.json())
    payment = made.json()
    assert payment | {"payment_id": "", "changed_at": "", "approved_at": ""} == {
        "payment_id": "",
        "version": 1,
        "terminal_number": body["terminal_number"],
        "reference": "order-1",
        "purpose": "sale",
        "amount_minor": 1_000,
        "currency": "EUR",
        "status": "approved",
        "decline_code": None,
        "retryable": False,
        "next_step": None,
        "text": "Paid 10.00 EUR.",
        "paid_by": None,
        "refunded_minor": 0,
        "refundable_minor": 1_000,
        "fee_minor": 0,
        "shift_id": None,
        "changed_at": "",
        "approved_at": "",
        "expires_at": None,
    }
    assert (at_till["payment_id"], at_till["reply_to"], at_till["status"]) == (payment["payment_id"], None, "approved")
    assert (on_phone["payment_id"], on_phone["balance_minor"]) == (payment["payment_id"], 9_000)
    path = f"/v1/payments/{payment['payment_id']}"
    assert (await api.get(path)).json() == payment
    chinese = await api.get(path, headers={"Accept-Language": "fr, zh-CN;q=0.8, en;q=0.5"})
    assert (chinese.headers["content-language"], chinese.json()["text"]) == ("zh", "已收款 10.00 EUR。")
    reused = await api.post("/v1/payments", json=body | {"amount_minor": 1}, headers=idempotent("p"))
    assert problem(reused) == (422, "idempotency_key_reused", None)
    missing = await stranger.get(path), await stranger.get(f"/v1/payments/{new_id()}")
    assert problem(missing[0]) == problem(missing[1]) == (404, "payment_unknown", None)
    assert (await audit(admin)).ok


async def test_a_declined_payment_is_created(shop: Shop, api: httpx.AsyncClient) -> None:
    first = await pay(api, shop, amount_minor=10_001)
    assert (first["status"], first["decline_code"], first["next_step"]) == (
        "declined",
        "insufficient_funds",
        "other_payment",
    )
    no_code = await pay(api, shop, code="hello")
    assert (no_code["decline_code"], no_code["retryable"]) == ("code_malformed", True)
    paid = await pay(api, shop, reference="order-1")
    twice = await pay(api, shop, reference="order-1")
    assert (twice["decline_code"], twice["paid_by"]) == ("already_paid", paid["payment_id"])


async def test_a_payment_with_pin_is_pending_until_its_confirmation(
    server: RunningServer, shop: Shop, api: httpx.AsyncClient
) -> None:
    async with logged_in(server.url, shop.wallets[0]) as phone:
        await set_pin(phone)
        body = payment_body(shop, entry="typed")
        pending = await api.post("/v1/payments", json=body, headers=idempotent("p"))
        question = await receive(phone)
        path = f"/v1/payments/{pending.json()['payment_id']}"
        waits = await api.get(path)
        await ask(phone, confirm_message(question))
        repeated = await api.post("/v1/payments", json=body, headers=idempotent("p"))
    assert (pending.status_code, pending.json()["status"]) == (202, "pending")
    assert pending.json()["expires_at"] > pending.json()["changed_at"]
    assert (waits.status_code, waits.json()) == (200, pending.json())
    # A repeat returns the current state.
    assert (repeated.status_code, repeated.json()["status"], repeated.json()["version"]) == (200, "approved", 2)
    assert repeated.json() == (await api.get(path)).json()


async def test_cash_with_a_scanned_code(shop: Shop, api: httpx.AsyncClient, admin: asyncpg.Connection) -> None:
    top_up = await pay(api, shop, purpose="top_up", amount_minor=2_000)
    assert (top_up["status"], top_up["purpose"], top_up["refundable_minor"]) == ("approved", "top_up", 0)
    # A withdrawal needs the PIN for any amount.
    withdrawal = await api.post("/v1/payments", json=payment_body(shop, purpose="withdrawal"), headers=idempotent())
    assert (withdrawal.status_code, withdrawal.json()["status"]) == (202, "pending")
    assert (await api.post(f"/v1/payments/{withdrawal.json()['payment_id']}/cancel")).json()["status"] == "canceled"
    await pay(api, shop, amount_minor=11_000)
    spent = await api.post(f"/v1/payments/{top_up['payment_id']}/cancel")
    assert problem(spent) == (409, "funds_spent", None)
    refused = await api.post(
        f"/v1/payments/{top_up['payment_id']}/refunds", json={"amount_minor": 1}, headers=idempotent()
    )
    assert problem(refused) == (409, "not_refundable", None)
    assert (await audit(admin)).ok


async def test_a_payment_counts_in_the_open_shift_of_its_terminal(
    server: RunningServer, shop: Shop, api: httpx.AsyncClient
) -> None:
    async with logged_in(server.url, shop.terminals[0]) as till:
        opened = await ask(till, opening())
    payment = await pay(api, shop)
    assert payment["shift_id"] == opened["shift_id"]
    shift = (await api.get(f"/v1/shifts/{opened['shift_id']}")).json()
    assert shift["net_sales_minor"] == 1_000
    # A refund through the API has no terminal and therefore no shift.
    path = f"/v1/payments/{payment['payment_id']}/refunds"
    refund = await api.post(path, json={"amount_minor": 100}, headers=idempotent())
    assert refund.json()["shift_id"] is None
    assert (await api.get(f"/v1/shifts/{opened['shift_id']}")).json()["net_sales_minor"] == 1_000


async def test_invalid_bodies_and_other_terminals(
    shop: Shop, api: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    for fields, pointer in (
        ({"amount_minor": 0}, "/amount_minor"),
        ({"amount_minor": 1.0}, "/amount_minor"),
        ({"amount_minor": True}, "/amount_minor"),
        ({"reference": ""}, "/reference"),
        ({"code": "1" * 300}, "/code"),
        ({"entry": "shouted"}, "/entry"),
        ({"purpose": "gift"}, "/purpose"),
        ({"currency": "EUR"}, "/currency"),
    ):
        refused = await api.post("/v1/payments", json=payment_body(shop, **fields), headers=idempotent())
        assert problem(refused) == (400, "bad_field", pointer), fields
    theirs = await stranger.post("/v1/payments", json=payment_body(shop), headers=idempotent())
    nobodys = await api.post("/v1/payments", json=payment_body(shop, terminal_number=7_000), headers=idempotent())
    assert problem(theirs) == problem(nobodys) == (404, "not_found", "/terminal_number")


async def test_forged_codes_block_the_terminal_over_both_protocols(
    dsn: str, shop: Shop, admin: asyncpg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    code = forged(shop.wallets[0].code())
    async with (
        serving(settings(bad_codes_max=2), KEYRING, dsn) as server,
        back_office(server.url, admin, shop.merchant_id) as api,
        logged_in(server.url, shop.terminals[0]) as till,
    ):
        assert (await ask(till, scan_message(code)))["decline_code"] == "code_invalid"
        assert (await pay(api, shop, code=code))["decline_code"] == "code_invalid"
        assert (await receive(till))["decline_code"] == "code_invalid"
        blocked = await api.post("/v1/payments", json=payment_body(shop), headers=idempotent())
        assert problem(blocked) == (429, "too_many_bad_codes", None)
        assert 0 < int(blocked.headers["retry-after"]) <= 60
        assert (await ask(till, scan_message(shop.wallets[0].code())))["code"] == "too_many_bad_codes"
        other = shop.terminals[1].device.number
        assert (await pay(api, shop, terminal_number=other))["status"] == "approved"
        # Neither the log nor a problem contains a code.
        refused = await api.post("/v1/payments", json=payment_body(shop, code=[code]), headers=idempotent())
    logged = capsys.readouterr()
    assert "api_request" in logged.out + logged.err
    assert code not in logged.out + logged.err + refused.text


async def test_a_rejected_request_does_not_notify_the_terminal(
    server: RunningServer, shop: Shop, api: httpx.AsyncClient
) -> None:
    body = payment_body(shop)
    await api.post("/v1/payments", json=body, headers=idempotent("p"))
    async with logged_in(server.url, shop.terminals[0]) as till:
        await api.post("/v1/payments", json=body | {"amount_minor": 1}, headers=idempotent("p"))
        answer = await ask(till, scan_message(shop.wallets[0].code()))
    assert (answer["type"], answer["status"]) == ("payment.result", "approved")
