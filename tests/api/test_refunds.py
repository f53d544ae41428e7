"""`POST /v1/refunds` with a merchant's API key: who may, what comes of it, and who else hears."""

from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest
import pytest_asyncio

from pos_server import operator_desk
from pos_server.core.api_keys import Scope
from pos_server.ledger import directory
from pos_server.ledger.audit import audit
from pos_server.server import RunningServer, serving
from tests.support import EUR, KEYRING, Town, ask, logged_in, new_id, receive, scan_message, settings

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def http(server: RunningServer, town: Town, admin: asyncpg.Connection) -> AsyncIterator[httpx.AsyncClient]:
    """The merchant's back office."""
    key = await operator_desk.new_key(admin, town.merchant_id, "back office", [Scope.REFUNDS])
    async with httpx.AsyncClient(base_url=server.url, headers={"Authorization": f"Bearer {key}"}) as client:
        yield client


async def paid(server: RunningServer, town: Town) -> str:
    async with logged_in(server.url, town.terminals[0]) as till:
        payment_id: str = (await ask(till, scan_message(town.wallets[0].code())))["payment_id"]
    return payment_id


def body(payment_id: str, amount_minor: object = 300, **fields: object) -> dict[str, object]:
    return {"refund_id": str(new_id()), "payment_id": payment_id, "amount_minor": amount_minor} | fields


async def test_a_refund_is_made_once_and_everybody_hears(
    server: RunningServer, town: Town, http: httpx.AsyncClient, admin: asyncpg.Connection
) -> None:
    payment_id = await paid(server, town)
    async with logged_in(server.url, town.terminals[0]) as till, logged_in(server.url, town.wallets[0]) as phone:
        wish = body(payment_id)
        made = await http.post("/v1/refunds", json=wish)
        told, heard = await receive(till), await receive(phone)
        again = await http.post("/v1/refunds", json=wish)
    assert (made.status_code, again.status_code) == (201, 200)
    assert made.json() == again.json()
    assert made.json() | {"created_at_ms": 0, "reference": ""} == {
        "refund_id": wish["refund_id"],
        "payment_id": payment_id,
        "reference": "",
        "amount_minor": 300,
        "currency": "EUR",
        "refunded_minor": 300,
        "refundable_minor": 700,
        "created_at_ms": 0,
    }
    assert (told["type"], told["reply_to"], told["refund_id"]) == ("refund.result", None, wish["refund_id"])
    assert (heard["type"], heard["balance_minor"]) == ("refund.result", 9_300)
    assert (await audit(admin)).ok


async def test_what_is_refused(
    server: RunningServer, town: Town, http: httpx.AsyncClient, admin: asyncpg.Connection
) -> None:
    payment_id = await paid(server, town)
    first = body(payment_id)
    await http.post("/v1/refunds", json=first)
    for wish, status, code in (
        (first | {"amount_minor": 1}, 409, "id_reused"),
        (body(payment_id, 701), 409, "refund_over_rest"),
        (body(str(new_id())), 404, "payment_unknown"),
        (body(payment_id, 0), 400, "bad_field"),
        (body(payment_id, 1.0), 400, "bad_field"),
        (body(payment_id, extra=1), 400, "bad_field"),
        ({}, 400, "bad_field"),
        ([], 400, "bad_json"),
    ):
        response = await http.post("/v1/refunds", json=wish)
        assert (response.status_code, response.json()["code"]) == (status, code)
        assert response.headers["content-type"] == "application/problem+json"
    huge = await http.post("/v1/refunds", content=b" " * 5000)
    assert (huge.status_code, huge.json()["code"]) == (413, "body_too_large")
    assert await admin.fetchval("select refunded_minor from payment where purpose = 'sale'") == 300


async def test_another_merchants_payment_is_not_there(
    server: RunningServer, town: Town, connection: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    payment_id = await paid(server, town)
    stranger = await directory.create_merchant(connection, "Other shop", EUR)
    key = await operator_desk.new_key(admin, stranger, "theirs", [Scope.REFUNDS])
    async with httpx.AsyncClient(base_url=server.url, headers={"Authorization": f"Bearer {key}"}) as http:
        response = await http.post("/v1/refunds", json=body(payment_id))
    assert (response.status_code, response.json()["code"]) == (404, "payment_unknown")


async def test_who_may_not(server: RunningServer, town: Town, admin: asyncpg.Connection) -> None:
    key = await operator_desk.new_key(admin, town.merchant_id, "revoked", [Scope.REFUNDS])
    await operator_desk.end_key(admin, 1)
    powerless = await operator_desk.new_key(admin, town.merchant_id, "may nothing", [])
    async with httpx.AsyncClient(base_url=server.url) as http:
        for headers, status, code in (
            ({}, 401, "unauthorized"),
            ({"Authorization": key}, 401, "unauthorized"),
            ({"Authorization": f"Basic {key}"}, 401, "unauthorized"),
            ({"Authorization": f"Bearer {key}"}, 401, "unauthorized"),
            ({"Authorization": "Bearer " + "x" * 4000}, 401, "unauthorized"),
            ({"Authorization": f"Bearer {powerless}"}, 403, "scope_missing"),
        ):
            response = await http.post("/v1/refunds", json=body(str(new_id())), headers=headers)
            assert (response.status_code, response.json()["code"]) == (status, code), headers
            assert ("www-authenticate" in response.headers) == (status == 401)


async def test_guessing_is_slow(dsn: str, town: Town) -> None:
    async with (
        serving(settings(api_key_failures_max=2), KEYRING, dsn) as server,
        httpx.AsyncClient(base_url=server.url) as http,
    ):
        statuses = [
            (await http.post("/v1/refunds", json={}, headers={"Authorization": f"Bearer pos_{n}"})).status_code
            for n in range(4)
        ]
    assert statuses == [401, 401, 429, 429]


async def test_a_key_is_stored_as_a_hash_only(town: Town, admin: asyncpg.Connection) -> None:
    key = await operator_desk.new_key(admin, town.merchant_id, "x", [Scope.REFUNDS])
    row = await admin.fetchrow("select * from api_key")
    assert row is not None
    assert key not in str(dict(row))
    assert len(key) == 56


async def test_an_archived_payment_or_refund_is_known(
    server: RunningServer, town: Town, http: httpx.AsyncClient, admin: asyncpg.Connection
) -> None:
    payment_id = await paid(server, town)
    old, old_refund = new_id(), new_id()
    await admin.execute(
        "insert into archived_name (merchant_id, id, status) values ($1, $2, 'approved')", town.merchant_id, old
    )
    await admin.execute("insert into archived_refund (id) values ($1)", old_refund)
    gone = await http.post("/v1/refunds", json=body(str(old)))
    assert (gone.status_code, gone.json()["code"]) == (410, "payment_archived")
    reused = await http.post("/v1/refunds", json=body(payment_id) | {"refund_id": str(old_refund)})
    assert (reused.status_code, reused.json()["code"]) == (409, "id_reused")
