"""Cancels and refunds of the role `merchant`; a key gives access only to its own merchant."""

import asyncio

import asyncpg
import httpx
import pytest

from pos_server.ledger.audit import audit
from pos_server.server import RunningServer
from tests.api.clients import idempotent, pay, payment_body, problem
from tests.support import Shop, ask, logged_in, new_id, receive, scan_message

pytestmark = pytest.mark.asyncio


async def test_a_payment_is_canceled_by_its_id(
    server: RunningServer,
    shop: Shop,
    api: httpx.AsyncClient,
    stranger: httpx.AsyncClient,
    admin: asyncpg.Connection,
) -> None:
    async with logged_in(server.url, shop.terminals[0]) as till:
        payment_id = (await ask(till, scan_message(shop.wallets[0].code())))["payment_id"]
        path = f"/v1/payments/{payment_id}/cancel"
        assert problem(await stranger.post(path)) == (404, "payment_unknown", None)
        canceled = await api.post(path)
        notice = await receive(till)
    again = await api.post(path)
    assert (canceled.status_code, canceled.json()["status"], canceled.json()["version"]) == (200, "canceled", 2)
    assert (again.status_code, again.json()) == (200, canceled.json())
    assert (notice["payment_id"], notice["status"], notice["reply_to"]) == (payment_id, "canceled", None)
    # An unknown id leaves no tombstone.
    unknown = new_id()
    assert problem(await api.post(f"/v1/payments/{unknown}/cancel")) == (404, "payment_unknown", None)
    assert await admin.fetchval("select count(*) from payment where id = $1", unknown) == 0
    refunded = await pay(api, shop)
    path = f"/v1/payments/{refunded['payment_id']}"
    await api.post(f"{path}/refunds", json={"amount_minor": 1}, headers=idempotent())
    assert problem(await api.post(f"{path}/cancel")) == (409, "already_refunded", None)
    assert (await audit(admin)).ok


async def test_an_order_is_canceled_by_its_reference(
    shop: Shop, api: httpx.AsyncClient, stranger: httpx.AsyncClient, admin: asyncpg.Connection
) -> None:
    paid = await pay(api, shop, reference="order-1")
    # Another merchant's order with the same number is a different order.
    theirs = await stranger.post("/v1/cancels", json={"reference": "order-1"})
    assert (theirs.status_code, theirs.json()["amount_minor"]) == (200, None)
    canceled = await api.post("/v1/cancels", json={"reference": "order-1"})
    assert (canceled.json()["payment_id"], canceled.json()["status"]) == (paid["payment_id"], "canceled")
    tombstones = await asyncio.gather(*(api.post("/v1/cancels", json={"reference": "order-2"}) for _ in range(5)))
    assert len({response.text for response in tombstones}) == 1
    assert (tombstones[0].status_code, tombstones[0].json()["amount_minor"]) == (200, None)
    late = await pay(api, shop, reference="order-2")
    assert (late["status"], late["decline_code"]) == ("declined", "canceled")
    assert problem(await api.post("/v1/cancels", json={})) == (400, "bad_field", "/reference")
    by_id = {"payment_id": paid["payment_id"]}
    assert problem(await api.post("/v1/cancels", json=by_id | {"reference": "x"})) == (
        400,
        "bad_field",
        "/payment_id",
    )
    assert (await audit(admin)).ok


async def test_a_refund_is_made_once_and_all_are_notified(
    server: RunningServer, shop: Shop, api: httpx.AsyncClient, admin: asyncpg.Connection
) -> None:
    payment = await pay(api, shop)
    path = f"/v1/payments/{payment['payment_id']}/refunds"
    async with logged_in(server.url, shop.terminals[0]) as till, logged_in(server.url, shop.wallets[0]) as phone:
        made = await api.post(path, json={"amount_minor": 300}, headers=idempotent("r"))
        at_till, on_phone = await receive(till), await receive(phone)
        again = await api.post(path, json={"amount_minor": 300}, headers=idempotent("r"))
    assert (made.status_code, again.status_code, again.json()) == (201, 200, made.json())
    refund = made.json()
    assert refund | {"refund_id": "", "created_at": ""} == {
        "refund_id": "",
        "payment_id": payment["payment_id"],
        "terminal_number": None,
        "amount_minor": 300,
        "currency": "EUR",
        "shift_id": None,
        "created_at": "",
    }
    assert (at_till["type"], at_till["reply_to"], at_till["refund_id"]) == ("refund.result", None, refund["refund_id"])
    assert (on_phone["type"], on_phone["balance_minor"]) == ("refund.result", 9_300)
    second = await api.post(path, json={"amount_minor": 200}, headers=idempotent())
    page = (await api.get(path, params={"limit": 1})).json()
    rest = (await api.get(path, params={"limit": 1, "cursor": page["next_cursor"]})).json()
    assert [*page["items"], *rest["items"]] == [refund, second.json()]
    assert rest["next_cursor"] is None
    shown = (await api.get(f"/v1/payments/{payment['payment_id']}")).json()
    assert (shown["refunded_minor"], shown["refundable_minor"], shown["version"]) == (500, 500, 3)
    assert shown["text"] == "Paid 10.00 EUR, of which 5.00 EUR was refunded."
    assert (await audit(admin)).ok


async def test_rejected_refunds(
    shop: Shop, api: httpx.AsyncClient, stranger: httpx.AsyncClient, admin: asyncpg.Connection
) -> None:
    payment, other = await pay(api, shop), await pay(api, shop)
    declined = await pay(api, shop, code="hello")
    path = f"/v1/payments/{payment['payment_id']}/refunds"
    await api.post(path, json={"amount_minor": 300}, headers=idempotent("r"))
    for where, body, key, expected in (
        (path, {"amount_minor": 1}, "r", (422, "idempotency_key_reused", None)),
        (
            f"/v1/payments/{other['payment_id']}/refunds",
            {"amount_minor": 300},
            "r",
            (422, "idempotency_key_reused", None),
        ),
        (path, {"amount_minor": 701}, "s", (409, "refund_exceeds_remaining", None)),
        (f"/v1/payments/{declined['payment_id']}/refunds", {"amount_minor": 1}, "s", (409, "not_refundable", None)),
        (f"/v1/payments/{new_id()}/refunds", {"amount_minor": 1}, "s", (404, "payment_unknown", None)),
        ("/v1/payments/x/refunds", {"amount_minor": 1}, "s", (404, "not_found", None)),
        (path, {"amount_minor": 0}, "s", (400, "bad_field", "/amount_minor")),
        (path, {"amount_minor": 1.0}, "s", (400, "bad_field", "/amount_minor")),
        (path, {"amount_minor": 1, "extra": 1}, "s", (400, "bad_field", "/extra")),
        (path, {}, "s", (400, "bad_field", "/amount_minor")),
        (path, [], "s", (400, "bad_json", None)),
    ):
        assert problem(await api.post(where, json=body, headers=idempotent(key))) == expected
    theirs = await stranger.post(path, json={"amount_minor": 1}, headers=idempotent())
    assert problem(theirs) == (404, "payment_unknown", None)
    assert problem(await stranger.get(path)) == (404, "payment_unknown", None)
    huge = await api.post(path, content=b" " * 5000, headers=idempotent() | {"Content-Type": "application/json"})
    assert problem(huge) == (413, "body_too_large", None)
    assert await admin.fetchval("select sum(refunded_minor)::bigint from payment where purpose = 'sale'") == 300


async def test_archived_payments_are_gone(shop: Shop, api: httpx.AsyncClient, admin: asyncpg.Connection) -> None:
    old, body = new_id(), payment_body(shop)
    made = await api.post("/v1/payments", json=body, headers=idempotent("p"))
    archived = "insert into archived_name (merchant_id, id, status, reference) values ($1, $2, 'approved', $3)"
    await admin.execute(archived, shop.merchant_id, old, "order-of-old")
    gone = (410, "payment_archived", None)
    assert problem(await api.get(f"/v1/payments/{old}")) == gone
    assert problem(await api.post(f"/v1/payments/{old}/cancel")) == gone
    assert (
        problem(await api.post(f"/v1/payments/{old}/refunds", json={"amount_minor": 1}, headers=idempotent())) == gone
    )
    assert problem(await api.get(f"/v1/payments/{old}/refunds")) == gone
    assert problem(await api.post("/v1/cancels", json={"reference": "order-of-old"})) == gone
    assert (await pay(api, shop, reference="order-of-old"))["decline_code"] == "already_paid"
    await admin.execute(archived, shop.merchant_id, made.json()["payment_id"], None)
    assert problem(await api.post("/v1/payments", json=body, headers=idempotent("p"))) == gone
    # An archived refund's key stays used.
    payment = await pay(api, shop)
    path = f"/v1/payments/{payment['payment_id']}/refunds"
    refund = await api.post(path, json={"amount_minor": 1}, headers=idempotent("r"))
    await admin.execute("insert into archived_refund (id) values ($1)", refund.json()["refund_id"])
    other = await pay(api, shop)
    reused = await api.post(
        f"/v1/payments/{other['payment_id']}/refunds", json={"amount_minor": 1}, headers=idempotent("r")
    )
    assert problem(reused) == (422, "idempotency_key_reused", None)
