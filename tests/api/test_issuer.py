"""Endpoints of the role `issuer`: wallets, their limits and their devices."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio
from websockets.exceptions import ConnectionClosed

from pos_server.cli import operator_acts
from pos_server.core.credentials.activation import activation_hash
from pos_server.core.credentials.api_keys import Role
from pos_server.core.credentials.device_keys import DeviceId, DeviceKind
from pos_server.server import RunningServer, serving
from tests.api.clients import idempotent, issuer_client, problem
from tests.gateway.test_pin import pin_message
from tests.shared import shared_database, shared_server
from tests.support import (
    ANSWER_TIMEOUT_S,
    KEYRING,
    Shop,
    activated,
    ask,
    authenticate,
    http_client,
    logged_in,
    new_id,
    raw_socket,
    receive,
    scan_message,
    settings,
)

pytestmark = pytest.mark.asyncio
dsn = shared_database()
server = shared_server()
UNKNOWN = 1_999_999_999
NO_LIMITS = dict.fromkeys(
    (
        "payment_minor_max",
        "day_minor_max",
        "pin_free_minor_max",
        "pin_free_day_count_max",
        "pin_free_day_minor_max",
        "top_up_minor_max",
        "balance_minor_max",
    )
)


@pytest_asyncio.fixture
async def api(server: RunningServer, admin: asyncpg.Connection) -> AsyncIterator[httpx.AsyncClient]:
    async with issuer_client(server, admin) as client:
        yield client


def path(shop: Shop, rest: str = "", wallet: int = 0) -> str:
    return f"/v1/wallets/{shop.wallets[wallet].device.number}{rest}"


# --- wallets


async def test_a_wallet_is_created_read_and_listed(api: httpx.AsyncClient, shop: Shop) -> None:
    body = {"name": "Ada", "currency": "JPY"}
    made = await api.post("/v1/wallets", json=body, headers=idempotent("first"))
    again = await api.post("/v1/wallets", json=body, headers=idempotent("first"))
    other = await api.post("/v1/wallets", json=body | {"name": "Bob"}, headers=idempotent("first"))
    assert (made.status_code, again.status_code, again.json()) == (201, 200, made.json())
    assert problem(other) == (422, "idempotency_key_reused", None)
    wallet = made.json()
    assert wallet == body | {
        "wallet_number": wallet["wallet_number"],
        "balance_minor": 0,
        "status": "active",
        "pin_set": False,
        "pin_locked_until": None,
    }
    assert (await api.get(f"/v1/wallets/{wallet['wallet_number']}")).json() == wallet
    before_the_shops = str(shop.wallets[0].device.number - 1)
    first = (await api.get("/v1/wallets", params={"limit": 3, "cursor": before_the_shops})).json()
    assert [item["wallet_number"] for item in first["items"]] == [device.device.number for device in shop.wallets]
    assert [item["balance_minor"] for item in first["items"]] == [10_000] * 3
    rest = (await api.get("/v1/wallets", params={"cursor": first["next_cursor"]})).json()
    assert rest == {"items": [wallet], "next_cursor": None}


@pytest.mark.parametrize(
    ("method", "rest", "body"),
    [
        ("GET", "", None),
        ("PATCH", "", {"status": "frozen"}),
        ("DELETE", "/pin", None),
        ("GET", "/limits", None),
        ("PUT", "/limits", {}),
        ("GET", "/devices", None),
        ("POST", "/devices", {}),
        ("DELETE", "/devices/0", None),
        ("GET", "/transfers", None),
    ],
)
async def test_an_unknown_wallet(method: str, rest: str, body: Any, api: httpx.AsyncClient) -> None:
    headers = idempotent() | {"If-Match": "*"}
    response = await api.request(method, f"/v1/wallets/{UNKNOWN}{rest}", json=body, headers=headers)
    assert problem(response) == (404, "not_found", None)


async def test_other_roles_are_rejected(server: RunningServer, shop: Shop, admin: asyncpg.Connection) -> None:
    for role, merchant_id in ((Role.ADMIN, None), (Role.MERCHANT, shop.merchant_id)):
        key = await operator_acts.new_key(admin, role, merchant_id, "not the issuer's")
        async with http_client(server.url, key) as client:
            assert problem(await client.get(path(shop))) == (403, "role_missing", None)
            top_up = await client.post("/v1/top-ups", json={}, headers=idempotent())
            assert problem(top_up) == (403, "role_missing", None)


async def test_a_new_status_applies_immediately_and_devices_are_notified(
    server: RunningServer, api: httpx.AsyncClient, shop: Shop, connection: asyncpg.Connection
) -> None:
    second = await activated(connection, DeviceId(DeviceKind.WALLET, shop.wallets[0].device.number, 1))
    async with (
        logged_in(server.url, shop.terminals[0]) as till,
        logged_in(server.url, shop.wallets[0]) as phone,
        logged_in(server.url, second, language="zh-CN") as tablet,
    ):
        for status, text, code in (
            ("frozen", "Your wallet is frozen. Call support.", "wallet_frozen"),
            ("closed", "Your wallet is closed.", "wallet_closed"),
            # As on the command line, a closed wallet can be reactivated.
            ("active", "Your wallet can be used again.", None),
        ):
            changed = await api.patch(path(shop), json={"status": status})
            assert (changed.status_code, changed.json()["status"]) == (200, status)
            notice = await receive(phone)
            assert notice == {"type": "status.changed", "status": status, "text": text}
            translated = await receive(tablet)
            assert (translated["status"], translated["text"].isascii()) == (status, False)
            paid = await ask(till, scan_message(shop.wallets[0].code()))
            assert paid["decline_code"] == code
            await receive(phone)
            await receive(tablet)
    # A repeat sends the notice again, because the first request may have been interrupted.
    async with logged_in(server.url, shop.wallets[0]) as phone:
        assert (await api.patch(path(shop), json={"status": "active"})).json()["status"] == "active"
        assert (await receive(phone))["status"] == "active"
    refused = await api.patch(path(shop), json={"status": "lost"})
    assert problem(refused) == (400, "bad_field", "/status")
    assert problem(await api.patch(path(shop), json={})) == (400, "bad_field", "/status")


async def test_a_device_at_another_server_is_notified(
    dsn: str, server: RunningServer, api: httpx.AsyncClient, shop: Shop
) -> None:
    async with (
        serving(settings(), KEYRING, dsn) as elsewhere,
        logged_in(elsewhere.url, shop.wallets[0]) as phone,
    ):
        await api.patch(path(shop), json={"status": "frozen"})
        assert (await receive(phone))["text"] == "Your wallet is frozen. Call support."


async def test_ready_contains_the_status(server: RunningServer, api: httpx.AsyncClient, shop: Shop) -> None:
    await api.patch(path(shop), json={"status": "frozen"})
    async with raw_socket(server.url, DeviceKind.WALLET) as phone:
        hello = await receive(phone)
        ready = await ask(phone, authenticate(shop.wallets[0], hello["nonce"]))
        assert (ready["type"], ready["status"]) == ("ready", "frozen")


async def test_a_forgotten_pin_is_removed(server: RunningServer, api: httpx.AsyncClient, shop: Shop) -> None:
    async with logged_in(server.url, shop.wallets[0]) as phone:
        assert (await ask(phone, pin_message()))["type"] == "pin.changed"
        assert (await api.get(path(shop))).json()["pin_set"] is True
        reset = await api.delete(path(shop, "/pin"))
        assert (reset.status_code, reset.json()["pin_set"]) == (200, False)
        assert (await api.delete(path(shop, "/pin"))).json() == reset.json()
        # The old PIN is not required.
        assert (await ask(phone, pin_message("839201")))["type"] == "pin.changed"


async def test_a_locked_pin_has_an_end(api: httpx.AsyncClient, shop: Shop, admin: asyncpg.Connection) -> None:
    locked, formerly_locked = (wallet.device.number for wallet in shop.wallets[:2])
    await admin.execute("update wallet set pin_locked_until = '2100-01-02 03:04:05.006Z' where number = $1", locked)
    await admin.execute("update wallet set pin_locked_until = '2001-01-01' where number = $1", formerly_locked)
    assert (await api.get(path(shop))).json()["pin_locked_until"] == "2100-01-02T03:04:05.006Z"
    assert (await api.get(path(shop, wallet=1))).json()["pin_locked_until"] is None
    assert (await api.delete(path(shop, "/pin"))).json()["pin_locked_until"] is None


# --- limits


async def test_limits_are_replaced_with_the_current_etag_only(api: httpx.AsyncClient, shop: Shop) -> None:
    number = shop.wallets[0].device.number
    read = await api.get(path(shop, "/limits"))
    assert read.json() == NO_LIMITS | {"wallet_number": number}
    body = NO_LIMITS | {"payment_minor_max": 999, "pin_free_day_count_max": 0}
    tag = {"If-Match": read.headers["etag"]}
    replaced = await api.put(path(shop, "/limits"), json=body, headers=tag)
    assert (replaced.status_code, replaced.json()) == (200, body | {"wallet_number": number})
    assert replaced.headers["etag"] != read.headers["etag"]
    reread = await api.get(path(shop, "/limits"))
    assert (reread.json(), reread.headers["etag"]) == (replaced.json(), replaced.headers["etag"])
    # A client with an older version must read again; a client that sends no version is rejected.
    assert problem(await api.put(path(shop, "/limits"), json={}, headers=tag)) == (412, "precondition_failed", None)
    assert problem(await api.put(path(shop, "/limits"), json={})) == (428, "precondition_required", None)
    weak = {"If-Match": f"W/{reread.headers['etag']}"}
    assert problem(await api.put(path(shop, "/limits"), json={}, headers=weak)) == (412, "precondition_failed", None)
    one_of = {"If-Match": f'"other", {reread.headers["etag"]}'}
    cleared = await api.put(path(shop, "/limits"), json={}, headers=one_of)
    assert (cleared.json(), cleared.headers["etag"]) == (read.json(), read.headers["etag"])
    # The limits of another wallet have another version.
    assert (await api.get(path(shop, "/limits", wallet=1))).headers["etag"] != read.headers["etag"]
    for fields, pointer in (
        ({"day_minor_max": -1}, "/day_minor_max"),
        ({"day_minor_max": 2**53}, "/day_minor_max"),
        ({"colour": 1}, "/colour"),
    ):
        refused = await api.put(path(shop, "/limits"), json=fields, headers={"If-Match": "*"})
        assert problem(refused) == (400, "bad_field", pointer)


async def test_payments_do_not_change_the_version_of_limits(
    server: RunningServer, api: httpx.AsyncClient, shop: Shop
) -> None:
    before = (await api.get(path(shop, "/limits"))).headers["etag"]
    async with logged_in(server.url, shop.terminals[0]) as till:
        assert (await ask(till, scan_message(shop.wallets[0].code())))["status"] == "approved"
    assert (await api.get(path(shop, "/limits"))).headers["etag"] == before


async def test_one_of_two_concurrent_replacements_succeeds(api: httpx.AsyncClient, shop: Shop) -> None:
    tag = {"If-Match": (await api.get(path(shop, "/limits"))).headers["etag"]}
    answers = await asyncio.gather(
        *(api.put(path(shop, "/limits"), json={"day_minor_max": amount}, headers=tag) for amount in range(1, 9))
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7


async def test_limits_apply_to_that_wallet_only(server: RunningServer, api: httpx.AsyncClient, shop: Shop) -> None:
    limits = {"payment_minor_max": 1_000, "pin_free_minor_max": 500}
    assert (await api.put(path(shop, "/limits"), json=limits, headers={"If-Match": "*"})).status_code == 200
    async with logged_in(server.url, shop.terminals[0]) as till, logged_in(server.url, shop.wallets[0]) as phone:
        verdicts = []
        for amount_minor in (1_001, 501, 500):
            answer = await ask(till, scan_message(shop.wallets[0].code(), amount_minor=amount_minor))
            verdicts.append(answer.get("decline_code") or answer.get("status") or answer["type"])
            await receive(phone)
        other = await ask(till, scan_message(shop.wallets[1].code(), amount_minor=1_001))
    assert verdicts == ["amount_over_limit", "payment.pending", "approved"]
    assert other["status"] == "approved"


# --- devices


async def activate(server: RunningServer, code: str) -> tuple[int, dict[str, Any]]:
    async with http_client(server.url) as device:
        body = {"activation_code": code, "request_id": str(new_id())}
        response = await device.post("/v1/activations", json=body)
        return response.status_code, response.json()


async def test_a_device_is_activated_with_a_code_that_is_not_stored(
    server: RunningServer, api: httpx.AsyncClient, shop: Shop, admin: asyncpg.Connection
) -> None:
    assert (await api.get(path(shop, "/devices"))).json() == {
        "items": [{"slot": 0, "status": "active"}],
        "next_cursor": None,
    }
    made = await api.post(path(shop, "/devices"), json={}, headers=idempotent("k"))
    again = await api.post(path(shop, "/devices"), json={}, headers=idempotent("k"))
    other = await api.post(path(shop, "/devices"), json={"slot": 4}, headers=idempotent("k"))
    assert (made.status_code, again.status_code, again.json()) == (201, 200, made.json())
    assert problem(other) == (422, "idempotency_key_reused", None)
    code = made.json()["activation_code"]
    assert made.json()["slot"] == 1
    left = await admin.fetchval(
        "select extract(epoch from expires_at - now())::int from activation where number = $1 and slot = 1",
        shop.wallets[0].device.number,
    )
    assert 0 <= settings().activation_ttl_s - left < 60
    for table in ("activation", "idempotency_key"):
        for row in await admin.fetch(f"select t::text as row from {table} t"):
            assert code not in row["row"]
    assert await admin.fetchval("select slot from activation where code_hash = $1", activation_hash(code)) == 1
    assert (await api.get(path(shop, "/devices"))).json()["items"][1:] == [{"slot": 1, "status": "unused"}]
    status, identity = await activate(server, code)
    assert (status, identity["number"], identity["slot"]) == (200, shop.wallets[0].device.number, 1)
    assert (await api.get(path(shop, "/devices"))).json()["items"][1:] == [{"slot": 1, "status": "active"}]
    paged = (await api.get(path(shop, "/devices"), params={"limit": 1})).json()
    assert (paged["items"], paged["next_cursor"]) == ([{"slot": 0, "status": "active"}], "0")
    rest = (await api.get(path(shop, "/devices"), params={"limit": 1, "cursor": "0"})).json()
    assert rest == {"items": [{"slot": 1, "status": "active"}], "next_cursor": None}


async def test_each_device_gets_a_free_slot(
    server: RunningServer, api: httpx.AsyncClient, shop: Shop, admin: asyncpg.Connection
) -> None:
    async def slot_of(body: dict[str, int]) -> int:
        response = await api.post(path(shop, "/devices"), json=body, headers=idempotent())
        assert response.status_code == 201, response.text
        slot: int = response.json()["slot"]
        return slot

    # Also for concurrent requests.
    assert sorted(await asyncio.gather(*(slot_of({}) for _ in range(9)))) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    full = await api.post(path(shop, "/devices"), json={}, headers=idempotent())
    assert problem(full) == (409, "no_free_slot", None)
    # A named slot may be occupied: a phone that was reset gets a new key.
    assert await slot_of({"slot": 0}) == 0
    assert (await api.delete(path(shop, "/devices/0"))).json() == {"slot": 0, "status": "revoked"}
    assert await slot_of({}) == 0
    # An expired code frees its slot.
    await admin.execute(
        "update activation set expires_at = now() where number = $1 and slot = 5", shop.wallets[0].device.number
    )
    assert await slot_of({}) == 5
    assert problem(await api.post(path(shop, "/devices"), json={"slot": 10}, headers=idempotent()))[2] == "/slot"


async def test_a_revoked_device_is_disconnected_and_cannot_reconnect(
    server: RunningServer, api: httpx.AsyncClient, shop: Shop
) -> None:
    async with logged_in(server.url, shop.wallets[0]) as phone, logged_in(server.url, shop.terminals[0]) as till:
        revoked = await api.delete(path(shop, "/devices/0"))
        assert (revoked.status_code, revoked.json()) == (200, {"slot": 0, "status": "revoked"})
        await closed_with(phone, 4106)
        declined = await ask(till, scan_message(shop.wallets[0].code()))
        assert declined["decline_code"] == "code_invalid"
    assert (await api.delete(path(shop, "/devices/0"))).json() == revoked.json()
    with pytest.raises(ConnectionClosed):
        async with logged_in(server.url, shop.wallets[0]):
            pass
    assert problem(await api.delete(path(shop, "/devices/7"))) == (404, "not_found", None)


async def closed_with(socket: Any, code: int) -> None:
    with pytest.raises(ConnectionClosed) as closed:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == code


async def test_a_revoked_device_at_another_server_is_disconnected(
    dsn: str, api: httpx.AsyncClient, server: RunningServer, shop: Shop
) -> None:
    async with (
        serving(settings(revocation_check_s=3_600), KEYRING, dsn) as elsewhere,
        logged_in(elsewhere.url, shop.wallets[0]) as phone,
    ):
        assert (await api.delete(path(shop, "/devices/0"))).status_code == 200
        await closed_with(phone, 4106)


async def test_a_revocation_ends_open_codes_and_changes_the_generation(
    server: RunningServer, api: httpx.AsyncClient, shop: Shop, admin: asyncpg.Connection
) -> None:
    lost = (await api.post(path(shop, "/devices"), json={"slot": 0}, headers=idempotent())).json()["activation_code"]
    await api.delete(path(shop, "/devices/0"))
    await api.delete(path(shop, "/devices/0"))
    assert (await activate(server, lost))[0] == 404
    new = (await api.post(path(shop, "/devices"), json={}, headers=idempotent())).json()
    status, _ = await activate(server, new["activation_code"])
    row = await admin.fetchrow(
        "select status, generation from wallet_device where wallet_number = $1 and slot = 0",
        shop.wallets[0].device.number,
    )
    # One generation each for the first key, the revocation and the new key.
    assert (new["slot"], status, row["status"], row["generation"]) == (0, 200, "active", 3)
