"""Stores and terminals of the role `merchant`; a key gives access only to its own merchant."""

import asyncpg
import httpx
import pytest

from pos_server.cli import operator_acts
from pos_server.core.credentials.api_keys import Role
from pos_server.server import RunningServer
from tests.api.clients import idempotent, problem
from tests.support import Shop, ask, http_client, logged_in, new_id, receive, scan_message

pytestmark = pytest.mark.asyncio


async def activate(api: httpx.AsyncClient, code: str) -> httpx.Response:
    return await api.post("/v1/activations", json={"activation_code": code, "request_id": str(new_id())})


async def test_a_store_is_created_and_read(api: httpx.AsyncClient, stranger: httpx.AsyncClient, shop: Shop) -> None:
    made = await api.post("/v1/stores", json={"name": "Garden"}, headers=idempotent("first"))
    again = await api.post("/v1/stores", json={"name": "Garden"}, headers=idempotent("first"))
    assert (made.status_code, again.status_code, again.json()) == (201, 200, made.json())
    store = made.json()
    assert store == {"store_id": store["store_id"], "name": "Garden"}
    path = f"/v1/stores/{store['store_id']}"
    assert (await api.get(path)).json() == store
    page = (await api.get("/v1/stores", params={"limit": 1})).json()
    assert page["items"] == [{"store_id": shop.store_id, "name": "Main hall"}]
    rest = (await api.get("/v1/stores", params={"cursor": page["next_cursor"]})).json()
    assert rest == {"items": [store], "next_cursor": None}
    # Another merchant does not find the store, and has its own idempotency keys.
    assert (await stranger.get("/v1/stores")).json()["items"] == []
    missing, never = await stranger.get(path), await stranger.get("/v1/stores/7000")
    assert problem(missing) == problem(never) == (404, "not_found", None)
    theirs = await stranger.post("/v1/stores", json={"name": "Garden"}, headers=idempotent("first"))
    assert (theirs.status_code, theirs.json()["store_id"] != store["store_id"]) == (201, True)


async def test_a_terminal_is_created_and_activated(
    api: httpx.AsyncClient, stranger: httpx.AsyncClient, shop: Shop, admin: asyncpg.Connection
) -> None:
    body = {"store_id": shop.store_id, "name": "Bar"}
    made = await api.post("/v1/terminals", json=body, headers=idempotent("t"))
    again = await api.post("/v1/terminals", json=body, headers=idempotent("t"))
    assert (made.status_code, again.status_code, again.json()) == (201, 200, made.json())
    terminal = made.json()
    code = terminal.pop("activation_code")
    assert terminal.pop("activation_ends_at") > "2026"
    path = f"/v1/terminals/{terminal['terminal_number']}"
    assert terminal == body | {
        "terminal_number": terminal["terminal_number"],
        "status": "active",
        "activated": False,
        "shift_id": None,
    }
    assert (await api.get(path)).json() == terminal
    activated = (await activate(api, code)).json()
    assert (activated["kind"], activated["number"]) == ("terminal", terminal["terminal_number"])
    assert (await api.get(path)).json() == terminal | {"activated": True}
    # The code is stored as a hash only.
    kept = [await admin.fetch(f"select * from {table}") for table in ("activation", "idempotency_key")]
    rows = "".join(str(dict(row)) for table in kept for row in table)
    assert code not in rows
    assert problem(await api.post("/v1/terminals", json=body | {"name": "Yard"}, headers=idempotent("t"))) == (
        422,
        "idempotency_key_reused",
        None,
    )
    for client, store_id in ((api, 7_000), (stranger, shop.store_id)):
        body = {"store_id": store_id, "name": "Bar"}
        refused = await client.post("/v1/terminals", json=body, headers=idempotent())
        assert problem(refused) == (404, "not_found", "/store_id")


async def test_terminals_are_listed_by_store(api: httpx.AsyncClient, stranger: httpx.AsyncClient, shop: Shop) -> None:
    store_id = (await api.post("/v1/stores", json={"name": "Garden"}, headers=idempotent())).json()["store_id"]
    made = await api.post("/v1/terminals", json={"store_id": store_id, "name": "Bar"}, headers=idempotent())
    numbers = [device.device.number for device in shop.terminals]
    everywhere = [*numbers, made.json()["terminal_number"]]
    for query, expected in (
        ({}, everywhere),
        ({"store_id": shop.store_id}, numbers),
        ({"store_id": store_id}, everywhere[-1:]),
        ({"store_id": 7_000}, []),
    ):
        items = (await api.get("/v1/terminals", params=query)).json()["items"]
        assert [terminal["terminal_number"] for terminal in items] == expected
    page = (await api.get("/v1/terminals", params={"limit": 2})).json()
    rest = (await api.get("/v1/terminals", params={"cursor": page["next_cursor"]})).json()
    assert [terminal["terminal_number"] for terminal in (*page["items"], *rest["items"])] == everywhere
    assert (await stranger.get("/v1/terminals", params={"store_id": store_id})).json()["items"] == []
    assert problem(await api.get("/v1/terminals", params={"store_id": "x"})) == (400, "bad_field", "/store_id")


async def test_a_disabled_terminal_is_notified_and_rejected(
    server: RunningServer, api: httpx.AsyncClient, stranger: httpx.AsyncClient, shop: Shop
) -> None:
    number = shop.terminals[0].device.number
    path = f"/v1/terminals/{number}"
    async with logged_in(server.url, shop.terminals[0]) as till:
        disabled = await api.patch(path, json={"status": "disabled"})
        notice = await receive(till)
        again = await api.patch(path, json={"status": "disabled"})
        assert await receive(till) == notice
        declined = await ask(till, scan_message(shop.wallets[0].code()))
        await api.patch(path, json={"status": "active"})
        reopened = await receive(till)
        paid = await ask(till, scan_message(shop.wallets[0].code()))
    assert (disabled.status_code, disabled.json()["status"], again.json()) == (200, "disabled", disabled.json())
    assert (notice["type"], notice["status"]) == ("status.changed", "disabled")
    assert (declined["status"], declined["decline_code"]) == ("declined", "terminal_disabled")
    assert (reopened["type"], reopened["status"], paid["status"]) == ("status.changed", "active", "approved")
    assert problem(await api.patch(path, json={"status": "lost"})) == (400, "bad_field", "/status")
    for client, wrong in ((stranger, path), (api, "/v1/terminals/7000")):
        assert problem(await client.patch(wrong, json={"status": "disabled"})) == (404, "not_found", None)
        assert problem(await client.get(wrong)) == (404, "not_found", None)


async def test_the_previous_key_works_until_the_code_is_used(
    server: RunningServer, api: httpx.AsyncClient, stranger: httpx.AsyncClient, shop: Shop
) -> None:
    number = shop.terminals[0].device.number
    path = f"/v1/terminals/{number}/activations"
    async with logged_in(server.url, shop.terminals[0]) as till:
        made = await api.post(path, headers=idempotent("r"))
        again = await api.post(path, headers=idempotent("r"))
        assert (made.status_code, again.status_code, again.json()) == (201, 200, made.json())
        assert (await ask(till, scan_message(shop.wallets[0].code())))["status"] == "approved"
        activated = await activate(api, made.json()["activation_code"])
        assert activated.json()["number"] == number
        await till.wait_closed()
    assert till.close_code == 4106
    assert (await activate(api, made.json()["activation_code"])).status_code == 404
    assert problem(await stranger.post(path, headers=idempotent())) == (404, "not_found", None)


async def test_the_open_shift_of_a_terminal_is_shown(server: RunningServer, api: httpx.AsyncClient, shop: Shop) -> None:
    shift_id = str(new_id())
    opening = {
        "type": "shift.open",
        "message_id": "o",
        "shift_id": shift_id,
        "operator": "Ann",
        "opening_cash_minor": 0,
    }
    async with logged_in(server.url, shop.terminals[0]) as till:
        assert (await ask(till, opening))["type"] == "shift.report"
    terminal = (await api.get(f"/v1/terminals/{shop.terminals[0].device.number}")).json()
    assert terminal["shift_id"] == shift_id


async def test_other_roles_are_rejected(server: RunningServer, shop: Shop, admin: asyncpg.Connection) -> None:
    for role in (Role.ADMIN, Role.ISSUER):
        key = await operator_acts.new_key(admin, role, None, "theirs")
        async with http_client(server.url, key) as client:
            for path in ("/v1/stores", "/v1/terminals", "/v1/payments", "/v1/shifts", "/v1/statements", "/v1/balance"):
                assert problem(await client.get(path)) == (403, "role_missing", None)
