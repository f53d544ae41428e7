"""Two merchants use the same ids: what the REST API answers to each of them, and to the issuer."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio

from pos_server.ledger.audit import audit
from pos_server.server import RunningServer
from tests.api.clients import back_office, idempotent, issuer_client, problem
from tests.support import Shop, ask, build_shop, logged_in, new_id, scan_message

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def other(connection: asyncpg.Connection, shop: Shop) -> Shop:
    return await build_shop(connection, wallets=0)


@pytest_asyncio.fixture
async def issuer(server: RunningServer, admin: asyncpg.Connection) -> AsyncIterator[httpx.AsyncClient]:
    async with issuer_client(server, admin) as client:
        yield client


async def pay_at_both(server: RunningServer, shop: Shop, other: Shop, **fields: Any) -> str:
    """Make a payment of 1.00 EUR at the shop and one of 2.00 EUR at the other, with one id; return the id."""
    payment_id = str(new_id())
    ids = {"payment_id": payment_id, "reference": f"order-{payment_id}"}
    for merchant, amount_minor in ((shop, 100), (other, 200)):
        async with logged_in(server.url, merchant.terminals[0]) as till:
            paid = await ask(till, scan_message(shop.wallets[0].code(), amount_minor=amount_minor, **ids, **fields))
            assert paid["status"] == "approved", paid
    return payment_id


async def test_each_merchant_reads_refunds_and_cancels_its_own(
    server: RunningServer, shop: Shop, other: Shop, admin: asyncpg.Connection
) -> None:
    payment_id = await pay_at_both(server, shop, other)
    path = f"/v1/payments/{payment_id}"
    async with (
        back_office(server.url, admin, shop.merchant_id) as first,
        back_office(server.url, admin, other.merchant_id) as second,
    ):
        for api, amount_minor in ((first, 100), (second, 200)):
            assert (await api.get(path)).json()["amount_minor"] == amount_minor
            listed = (await api.get("/v1/payments", params={"reference": f"order-{payment_id}"})).json()["items"]
            assert [payment["amount_minor"] for payment in listed] == [amount_minor]
        refund = await second.post(f"{path}/refunds", json={"amount_minor": 50}, headers=idempotent("refund"))
        assert refund.status_code == 201
        assert (await first.get(f"{path}/refunds")).json()["items"] == []
        assert len((await second.get(f"{path}/refunds")).json()["items"]) == 1
        assert (await first.post(f"{path}/cancel")).json()["status"] == "canceled"
        assert problem(await second.post(f"{path}/cancel")) == (409, "already_refunded", None)
        assert (await second.get(path)).json()["status"] == "approved"
    assert (await audit(admin)).ok


async def test_the_issuer_names_the_merchant_of_an_ambiguous_top_up(
    server: RunningServer, shop: Shop, other: Shop, issuer: httpx.AsyncClient, admin: asyncpg.Connection
) -> None:
    path = f"/v1/top-ups/{await pay_at_both(server, shop, other, purpose='top_up')}"
    assert problem(await issuer.get(path)) == (409, "merchant_ambiguous", None)
    assert problem(await issuer.post(f"{path}/cancel")) == (409, "merchant_ambiguous", None)
    for merchant, amount_minor in ((shop, 100), (other, 200)):
        found = await issuer.get(path, params={"merchant_id": merchant.merchant_id})
        assert (found.json()["amount_minor"], found.json()["merchant_id"]) == (amount_minor, merchant.merchant_id)
    canceled = await issuer.post(f"{path}/cancel", params={"merchant_id": other.merchant_id})
    assert (canceled.json()["status"], canceled.json()["merchant_id"]) == ("canceled", other.merchant_id)
    assert (await issuer.get(path, params={"merchant_id": shop.merchant_id})).json()["status"] == "approved"
    assert problem(await issuer.get(path, params={"merchant_id": 77})) == (404, "payment_unknown", None)
    assert problem(await issuer.get(path, params={"merchant_id": 0}))[:2] == (400, "bad_field")
    assert (await audit(admin)).ok


async def test_an_archived_payment_makes_an_id_ambiguous(
    server: RunningServer, shop: Shop, other: Shop, issuer: httpx.AsyncClient, admin: asyncpg.Connection
) -> None:
    """A till may use the id of another merchant's archived top-up: the issuer must not cancel the wrong one."""
    payment_id = new_id()
    archived = "insert into archived_name (merchant_id, id, status) values ($1, $2, 'declined')"
    await admin.execute(archived, shop.merchant_id, payment_id)
    async with logged_in(server.url, other.terminals[0]) as till:
        code = shop.wallets[0].code()
        await ask(till, scan_message(code, payment_id=str(payment_id), purpose="top_up"))
    path = f"/v1/top-ups/{payment_id}"
    assert problem(await issuer.post(f"{path}/cancel")) == (409, "merchant_ambiguous", None)
    gone = await issuer.get(path, params={"merchant_id": shop.merchant_id})
    assert problem(gone) == (410, "payment_archived", None)
    assert (await issuer.get(path, params={"merchant_id": other.merchant_id})).json()["status"] == "approved"


async def test_an_idempotency_key_is_used_for_one_merchant(
    shop: Shop, other: Shop, issuer: httpx.AsyncClient, admin: asyncpg.Connection
) -> None:
    cash = {"wallet_number": shop.wallets[0].device.number, "amount_minor": 500}
    paid, repeat, elsewhere = [
        await issuer.post("/v1/top-ups", json=cash | {"merchant_id": merchant.merchant_id}, headers=idempotent("key"))
        for merchant in (shop, shop, other)
    ]
    assert (paid.status_code, repeat.status_code) == (201, 200)
    assert problem(elsewhere) == (409, "id_reused", None)
    assert await admin.fetchval("select count(*) from transfer where amount_minor = 500") == 1


async def test_a_wallets_statement_lists_both(
    server: RunningServer, shop: Shop, other: Shop, issuer: httpx.AsyncClient
) -> None:
    payment_id = await pay_at_both(server, shop, other)
    path = f"/v1/wallets/{shop.wallets[0].device.number}/transfers"
    items = (await issuer.get(path)).json()["items"]
    shown = [(item["merchant_id"], item["amount_minor"]) for item in items if item["payment_id"] == payment_id]
    assert shown == [(other.merchant_id, -200), (shop.merchant_id, -100)]
