"""Endpoints of the role `admin`, merchants and API keys; and rules that apply to all endpoints."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio

from pos_server.cli import operator_acts
from pos_server.core.credentials.api_keys import Role
from pos_server.server import RunningServer, serving
from tests.api.clients import idempotent, problem
from tests.support import KEYRING, Shop, http_client, settings

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def admin_api(server: RunningServer, admin: asyncpg.Connection) -> AsyncIterator[httpx.AsyncClient]:
    key = await operator_acts.new_key(admin, Role.ADMIN, None, "the operator's")
    async with http_client(server.url, key) as client:
        yield client


async def test_a_merchant_is_created_read_and_changed(admin_api: httpx.AsyncClient) -> None:
    body = {"name": "Kiosk", "currency": "EUR", "fee_bps": 145, "time_zone": "Europe/Berlin", "cut_off": "04:00"}
    made = await admin_api.post("/v1/merchants", json=body, headers=idempotent("first"))
    again = await admin_api.post("/v1/merchants", json=body, headers=idempotent("first"))
    assert (made.status_code, again.status_code, again.json()) == (201, 200, made.json())
    merchant = made.json()
    assert merchant == body | {"merchant_id": merchant["merchant_id"], "status": "active", "fee_fixed_minor": 0}
    path = f"/v1/merchants/{merchant['merchant_id']}"
    assert (await admin_api.get(path)).json() == merchant
    changed = await admin_api.patch(path, json={"status": "inactive", "fee_fixed_minor": 7})
    assert changed.json() == merchant | {"status": "inactive", "fee_fixed_minor": 7}
    assert (await admin_api.get(path)).json() == changed.json()
    # Another body, and another operation.
    other = await admin_api.post("/v1/merchants", json=body | {"name": "Cafe"}, headers=idempotent("first"))
    assert problem(other) == (422, "idempotency_key_reused", None)
    key = await admin_api.post("/v1/api-keys", json={"role": "issuer", "name": "desk"}, headers=idempotent("first"))
    assert problem(key) == (422, "idempotency_key_reused", None)


async def test_lists_have_pages(admin_api: httpx.AsyncClient, shop: Shop) -> None:
    for number in range(4):
        await admin_api.post("/v1/merchants", json={"name": f"Shop {number}", "currency": "EUR"}, headers=idempotent())
    names, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        query = {"limit": 2} | ({} if cursor is None else {"cursor": cursor})
        page = (await admin_api.get("/v1/merchants", params=query)).json()
        names += [merchant["name"] for merchant in page["items"]]
        cursor, pages = page["next_cursor"], pages + 1
    assert (names, pages) == (["Corner Canteen", *(f"Shop {number}" for number in range(4))], 3)
    assert problem(await admin_api.get("/v1/merchants", params={"cursor": "abc"})) == (400, "bad_field", "/cursor")
    assert problem(await admin_api.get("/v1/merchants", params={"limit": 101})) == (400, "bad_field", "/limit")
    assert problem(await admin_api.get("/v1/merchants", params={"colour": "red"})) == (400, "bad_field", "/colour")
    assert problem(await admin_api.get("/v1/merchants?limit=1&limit=2")) == (400, "bad_field", "/limit")


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"name": "x" * 61}, "/name"),
        ({"name": "a\nb"}, "/name"),
        ({"currency": "eur"}, "/currency"),
        ({"fee_bps": 10_001}, "/fee_bps"),
        ({"fee_bps": 1.5}, "/fee_bps"),
        ({"fee_fixed_minor": -1}, "/fee_fixed_minor"),
        ({"time_zone": "Moon/Sea"}, "/time_zone"),
        ({"cut_off": "24:00"}, "/cut_off"),
        ({"colour": "red"}, "/colour"),
    ],
)
async def test_invalid_fields_are_named_and_nothing_is_created(
    fields: dict[str, Any], pointer: str, admin_api: httpx.AsyncClient
) -> None:
    body = {"name": "Kiosk", "currency": "EUR"} | fields
    assert problem(await admin_api.post("/v1/merchants", json=body, headers=idempotent("k"))) == (
        400,
        "bad_field",
        pointer,
    )
    assert (await admin_api.get("/v1/merchants")).json()["items"] == []
    # A rejected request does not use up its key.
    good = await admin_api.post("/v1/merchants", json={"name": "Kiosk", "currency": "EUR"}, headers=idempotent("k"))
    assert good.status_code == 201


async def test_requirements_for_every_request(server: RunningServer, admin_api: httpx.AsyncClient, shop: Shop) -> None:
    body = {"name": "Kiosk", "currency": "EUR"}
    post = admin_api.post
    assert problem(await post("/v1/merchants", json=body)) == (400, "idempotency_key_missing", None)
    for key in ("", "x" * 65, "a b"):
        assert problem(await post("/v1/merchants", json=body, headers=idempotent(key)))[1] == "idempotency_key_missing"
    assert problem(await post("/v1/merchants", content="{", headers=idempotent() | JSON)) == (
        400,
        "bad_json",
        None,
    )
    assert problem(await post("/v1/merchants", content="[]", headers=idempotent() | JSON)) == (
        400,
        "bad_json",
        None,
    )
    plain = idempotent() | {"Content-Type": "text/plain"}
    assert problem(await post("/v1/merchants", content="{}", headers=plain)) == (415, "unsupported_media_type", None)
    large = {"name": "x" * 5_000, "currency": "EUR"}
    assert problem(await post("/v1/merchants", json=large, headers=idempotent())) == (
        413,
        "body_too_large",
        None,
    )
    assert problem(await admin_api.get("/v1/merchants/seven")) == (404, "not_found", None)
    assert problem(await admin_api.get("/v1/merchants/7000")) == (404, "not_found", None)
    assert problem(await admin_api.get("/v1/nothing")) == (404, "not_found", None)
    wrong = await admin_api.delete("/v1/merchants")
    assert problem(wrong) == (405, "method_not_allowed", None)
    assert set(wrong.headers["allow"].split(", ")) >= {"GET", "POST"}
    named = await admin_api.get("/v1/merchants", headers={"X-Request-Id": "till-7.42"})
    assert named.headers["x-request-id"] == "till-7.42"
    unfit = await admin_api.get("/v1/merchants", headers={"X-Request-Id": "a b\tc"})
    assert len(unfit.headers["x-request-id"]) == 16
    async with http_client(server.url) as stranger:
        refused = await stranger.get("/v1/merchants")
        assert problem(refused) == (401, "unauthorized", None)
        assert refused.headers["www-authenticate"] == "Bearer"


JSON = {"Content-Type": "application/json"}


async def test_keys_are_created_rotated_and_revoked(
    server: RunningServer, admin_api: httpx.AsyncClient, shop: Shop, admin: asyncpg.Connection
) -> None:
    body = {"role": "admin", "name": "second operator"}
    made = await admin_api.post("/v1/api-keys", json=body, headers=idempotent("k"))
    again = await admin_api.post("/v1/api-keys", json=body, headers=idempotent("k"))
    assert (made.status_code, again.status_code, again.json()) == (201, 200, made.json())
    key = made.json()
    assert key["key"].startswith("pos_admin_")
    assert (key["last_used_at"], key["ends_at"]) == (None, None)
    assert await answers(server, key["key"]) == 200
    rotated = await admin_api.post(
        f"/v1/api-keys/{key['key_id']}/rotations", json={"overlap_s": 3600}, headers=idempotent("r")
    )
    assert rotated.status_code == 201
    assert rotated.json()["key"] != key["key"]
    assert [await answers(server, each["key"]) for each in (key, rotated.json())] == [200, 200]
    listed = {each["key_id"]: each for each in (await admin_api.get("/v1/api-keys")).json()["items"]}
    assert listed[key["key_id"]]["last_used_at"] is not None
    assert listed[key["key_id"]]["ends_at"] > listed[key["key_id"]]["created_at"]
    assert "key" not in listed[key["key_id"]]
    ended = await admin_api.delete(f"/v1/api-keys/{key['key_id']}")
    assert ended.json()["ends_at"] <= listed[key["key_id"]]["ends_at"]
    assert [await answers(server, each["key"]) for each in (key, rotated.json())] == [401, 200]
    assert (await admin_api.delete(f"/v1/api-keys/{key['key_id']}")).json() == ended.json()
    for body in ({"role": "merchant"}, {"role": "issuer", "merchant_id": shop.merchant_id}):
        refused = await admin_api.post("/v1/api-keys", json=body | {"name": "x"}, headers=idempotent())
        assert problem(refused) == (400, "bad_field", "/merchant_id")
    unknown = {"role": "merchant", "merchant_id": 7_000, "name": "x"}
    assert problem(await admin_api.post("/v1/api-keys", json=unknown, headers=idempotent())) == (
        404,
        "not_found",
        "/merchant_id",
    )
    assert problem(await admin_api.delete("/v1/api-keys/7000")) == (404, "not_found", None)
    kept = [await admin.fetch(f"select * from {table}") for table in ("api_key", "idempotency_key")]
    rows = "".join(str(dict(row)) for table in kept for row in table)
    for secret in (key["key"], rotated.json()["key"]):
        assert secret not in rows


async def answers(server: RunningServer, key: str) -> int:
    async with http_client(server.url, key) as client:
        return (await client.get("/v1/merchants")).status_code


async def test_concurrent_repeats_create_one_object(admin_api: httpx.AsyncClient) -> None:
    async def ask(number: int) -> str:
        body = {"name": f"Shop {number}", "currency": "EUR"}
        while True:
            response = await admin_api.post("/v1/merchants", json=body, headers=idempotent(f"key-{number}"))
            if response.status_code in (200, 201):
                return response.text
            assert problem(response)[1] == "in_progress"
            assert response.headers["retry-after"] == "1"

    answers = await asyncio.gather(*(ask(number) for number in range(5) for _ in range(10)))
    assert len(set(answers)) == 5
    assert len((await admin_api.get("/v1/merchants")).json()["items"]) == 5


async def test_the_rate_limit_has_a_retry_after(dsn: str, admin: asyncpg.Connection, shop: Shop) -> None:
    key = await operator_acts.new_key(admin, Role.ADMIN, None, "the operator's")
    limits = settings(api_requests_per_s=0.001, api_requests_burst=2)
    async with serving(limits, KEYRING, dsn) as server:
        assert [await answers(server, key) for _ in range(3)] == [200, 200, 429]
