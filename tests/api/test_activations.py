"""`POST /v1/activations`: a key reaches its device and no one else."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio

from pos_server.core.credentials.activation import ACTIVATION_BYTES, activation_code
from pos_server.core.credentials.device_keys import DeviceId, DeviceKind
from pos_server.ledger import directory
from pos_server.server import RunningServer, serving
from tests.proxy import proxied
from tests.support import KEYRING, Shop, TestDevice, activated, http_client, logged_in, new_id, settings

pytestmark = pytest.mark.asyncio
CODE = activation_code(bytes(range(ACTIVATION_BYTES)))
PROBLEM = "application/problem+json"


@pytest_asyncio.fixture
async def http(server: RunningServer) -> AsyncIterator[httpx.AsyncClient]:
    async with http_client(server.url) as client:
        yield client


async def post(http: httpx.AsyncClient, code: str = CODE, request_id: object = None) -> httpx.Response:
    return await http.post("/v1/activations", json={"activation_code": code, "request_id": str(request_id or new_id())})


async def issue(connection: asyncpg.Connection, device: DeviceId, *, ttl_s: float = 60) -> None:
    await directory.issue_activation(connection, device, CODE, ttl_s=ttl_s)


def device_of(body: dict[str, Any]) -> TestDevice:
    device = DeviceId(DeviceKind(body["kind"]), body["number"], body["slot"])
    return TestDevice(device, body["kid"], base64.b64decode(body["device_key"]))


@pytest.mark.parametrize(("kind", "slot"), [("terminal", 0), ("wallet", 0), ("wallet", 9)])
async def test_an_activated_device_can_connect(
    kind: str, slot: int, http: httpx.AsyncClient, server: RunningServer, shop: Shop, connection: asyncpg.Connection
) -> None:
    known = (shop.terminals if kind == "terminal" else shop.wallets)[0].device
    await issue(connection, DeviceId(known.kind, known.number, slot))
    response = await post(http)
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    body = response.json()
    name = "Till 0" if kind == "terminal" else "Customer 0"
    assert {key: body[key] for key in ("kind", "number", "slot", "kid", "currency", "name")} == {
        "kind": kind,
        "number": known.number,
        "slot": slot,
        "kid": "k1",
        "currency": "EUR",
        "name": name,
    }
    async with logged_in(server.url, device_of(body)):
        pass


async def test_a_lost_response_can_be_repeated_by_the_same_device_only(
    http: httpx.AsyncClient, shop: Shop, connection: asyncpg.Connection
) -> None:
    await issue(connection, shop.terminals[0].device)
    request_id = new_id()
    first = await post(http, request_id=request_id)
    again = await post(http, request_id=request_id)
    stranger = await post(http)
    assert first.status_code == again.status_code == 200
    assert first.json() == again.json()
    assert (stranger.status_code, stranger.json()["code"]) == (404, "activation_unknown")


async def test_a_repeat_after_a_newer_activation_gets_no_key(
    http: httpx.AsyncClient, shop: Shop, connection: asyncpg.Connection
) -> None:
    request_id = new_id()
    await issue(connection, shop.terminals[0].device)
    assert (await post(http, request_id=request_id)).status_code == 200
    await activated(connection, shop.terminals[0].device)
    assert (await post(http, request_id=request_id)).status_code == 404


@pytest.mark.parametrize("typed", [CODE.lower(), CODE.replace("-", ""), CODE.replace("0", "O"), f" {CODE} "])
async def test_a_code_may_be_typed_in_variants(
    typed: str, http: httpx.AsyncClient, shop: Shop, connection: asyncpg.Connection
) -> None:
    await issue(connection, shop.terminals[0].device)
    assert (await post(http, typed)).status_code == 200


async def test_an_expired_code_is_unknown(http: httpx.AsyncClient, shop: Shop, connection: asyncpg.Connection) -> None:
    await issue(connection, shop.terminals[0].device, ttl_s=-1)
    response = await post(http)
    assert (response.status_code, response.json()["code"]) == (404, "activation_unknown")


async def test_the_code_itself_is_not_stored(shop: Shop, connection: asyncpg.Connection) -> None:
    await issue(connection, shop.terminals[0].device)
    stored = await connection.fetchval("select string_agg(a::text, '') from activation a")
    assert CODE not in stored
    assert CODE.replace("-", "") not in stored


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"),
    [
        (b"{", 400, "bad_json", None),
        (b"", 400, "bad_json", None),
        (b"[]", 400, "bad_json", None),
        (b"\xff\xfe", 400, "bad_json", None),
        (b"{}", 400, "bad_field", "/activation_code"),
        (b'{"activation_code":"x"}', 400, "bad_field", "/request_id"),
        (b'{"activation_code":"x","request_id":"7"}', 400, "bad_field", "/request_id"),
        (
            b'{"activation_code":5,"request_id":"01a206c1-9da9-7487-8acf-4193117464c4"}',
            400,
            "bad_field",
            "/activation_code",
        ),
        (
            b'{"activation_code":"x","request_id":"01a206c1-9da9-7487-8acf-4193117464c4","a/b":1}',
            400,
            "bad_field",
            "/a~1b",
        ),
        (b" " * 1025, 413, "body_too_large", None),
    ],
)
async def test_an_invalid_body_names_the_field(
    body: bytes, status: int, code: str, pointer: str | None, http: httpx.AsyncClient
) -> None:
    response = await http.post("/v1/activations", content=body)
    assert (response.status_code, response.headers["content-type"]) == (status, PROBLEM)
    problem = response.json()
    assert (problem["status"], problem["code"], problem.get("pointer")) == (status, code, pointer)
    assert problem["title"]


async def test_guessing_is_rate_limited(dsn: str, shop: Shop, connection: asyncpg.Connection) -> None:
    await issue(connection, shop.terminals[0].device)
    async with (
        serving(settings(activation_failures_max=3), KEYRING, dsn) as server,
        http_client(server.url) as http,
    ):
        for _ in range(3):
            assert (await post(http, "WRONG")).status_code == 404
        response = await post(http)
    assert (response.status_code, response.json()["code"]) == (429, "too_many_attempts")
    assert 0 < int(response.headers["retry-after"]) <= 60


async def test_without_the_database_it_is_busy(dsn: str) -> None:
    async with (
        proxied(dsn) as proxy,
        serving(settings(), KEYRING, proxy.dsn) as server,
        http_client(server.url) as http,
    ):
        proxy.away = True
        await proxy.drop_all()
        response = await post(http)
    assert (response.status_code, response.json()["code"]) == (503, "busy")
    assert response.headers["retry-after"] == "1"


async def test_other_methods_and_paths_are_rejected(http: httpx.AsyncClient) -> None:
    assert (await http.get("/v1/activations")).status_code == 405
    assert (await http.get("/")).status_code == 404
