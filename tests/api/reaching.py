"""How every operation is asked about something that is there: the table behind the tests that go over all of them.

An operation that is not in REACH fails tests/api/test_authorization.py. Add a function that makes what the operation is
about, under the merchant `world.shop` where it is a merchant's, and says how to ask.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
from jsonschema import Draft202012Validator, FormatChecker

from pos_server.api.openapi import openapi_json
from pos_server.cli import operator_acts
from pos_server.core.credentials.api_keys import Role
from pos_server.core.rest.endpoints import Endpoint, Kind
from pos_server.ledger import api_keys
from pos_server.ledger.settlement import settle
from pos_server.server import RunningServer
from tests.copies import replace
from tests.gateway.test_shifts import opening
from tests.support import EUR, Shop, ask, build_shop, http_client, logged_in, new_id

DOCUMENT: dict[str, Any] = json.loads(openapi_json())
# Within what numbers and ids may be, and nobody's.
NOBODY = 4_000_000_000


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: what fills its path, its query, its body."""

    path: dict[str, Any] = field(default_factory=dict)
    query: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] | None = None

    def of_nothing(self) -> "Asked | None":
        """The same about something that is not there; None when it is about nothing that could be missing."""
        body = self.body or {}
        if not any(names_something(name, value) for name, value in (self.path | body).items()):
            return None
        return replace(self, path=_elsewhere(self.path), body=None if self.body is None else _elsewhere(body))


def names_something(name: str, value: object) -> bool:
    return value is not None and name.endswith(("_id", "_number", "business_date"))


def _elsewhere(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _nobodys(name, value) if names_something(name, value) else value for name, value in values.items()}


def _nobodys(name: str, value: object) -> object:
    if name == "business_date":
        return "1999-12-31"
    return NOBODY if isinstance(value, int) else str(new_id())


@dataclass(slots=True)
class World:
    """Two merchants, and whoever may ask: a client for each role's key, one of the other merchant, and of no use."""

    admin: asyncpg.Connection
    shop: Shop
    by_role: dict[Role, httpx.AsyncClient]
    other_merchant: httpx.AsyncClient
    # No key, an unknown one, and a revoked one of each role.
    nobodies: list[httpx.AsyncClient]

    async def ask(self, client: httpx.AsyncClient, operation: Endpoint, asked: Asked) -> httpx.Response:
        """The answer, which is what the document says of this operation. A new thing, where one is made."""
        headers = {"Idempotency-Key": str(new_id())} if operation.kind is Kind.CREATE else {}
        if operation.kind is Kind.REPLACE:
            read = await client.get(operation.path.format(**asked.path))
            headers["If-Match"] = read.headers.get("ETag", '"0"')
        response = await client.request(
            operation.method,
            operation.path.format(**asked.path),
            params=asked.query,
            json=asked.body,
            headers=headers,
        )
        assert faults(operation, response) == []
        return response


@asynccontextmanager
async def built_world(server: RunningServer, admin: asyncpg.Connection, shop: Shop) -> AsyncIterator[World]:
    other = await build_shop(admin, terminals=0, wallets=0)
    async with AsyncExitStack() as stack:

        async def client(key: str | None) -> httpx.AsyncClient:
            return await stack.enter_async_context(http_client(server.url, key))

        async def new_key(role: Role, merchant_id: int, name: str = "a key") -> str:
            return await operator_acts.new_key(admin, role, merchant_id if role is Role.MERCHANT else None, name)

        by_role = {role: await client(await new_key(role, shop.merchant_id)) for role in Role}
        revoked = [await new_key(role, shop.merchant_id, "revoked") for role in Role]
        for record in await api_keys.list_api_keys(admin):
            if record.name == "revoked":
                await api_keys.end_api_key(admin, record.id)
        stranger = await client(await new_key(Role.MERCHANT, other.merchant_id))
        unknown = "pos_admin_" + "a" * 52
        nobodies = [await client(key) for key in (None, unknown, *revoked)]
        yield World(admin, shop, by_role, stranger, nobodies)


def faults(operation: Endpoint, response: httpx.Response) -> list[str]:
    """What of an answer is not as the document says: the status, the media type, a header, the body."""
    responses = DOCUMENT["paths"][operation.path][operation.method.lower()]["responses"]
    described = responses.get(str(response.status_code))
    if described is None:
        return [f"{operation.name}: status {response.status_code} is not in the document"]
    media_type = response.headers["content-type"].partition(";")[0]
    if media_type not in described["content"]:
        return [f"{operation.name}: {media_type} is not in the document"]
    # The others say what may come.
    due = described["headers"].keys() & {"X-Request-Id", "ETag"}
    missing = [f"{operation.name}: there is no {name}" for name in due if name not in response.headers]
    return missing + body_faults(described["content"][media_type]["schema"], response.json())


def body_faults(schema: dict[str, Any], body: object) -> list[str]:
    """What of a body does not fit a schema of the document."""
    rooted = schema | {"components": DOCUMENT["components"]}
    validator = Draft202012Validator(rooted, format_checker=FormatChecker())
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(body)]


async def nothing_special(world: World) -> Asked:
    return Asked()


async def the_merchant(world: World) -> Asked:
    return Asked({"merchant_id": world.shop.merchant_id})


async def a_key(world: World) -> Asked:
    name = f"to be changed {new_id()}"
    await operator_acts.new_key(world.admin, Role.ISSUER, None, name)
    [record] = [each for each in await api_keys.list_api_keys(world.admin) if each.name == name]
    return Asked({"key_id": record.id})


async def new_merchant(world: World) -> Asked:
    return Asked(body={"name": "Kiosk", "currency": "EUR"})


async def merchant_change(world: World) -> Asked:
    return replace(await the_merchant(world), body={"fee_bps": 3})


async def new_api_key(world: World) -> Asked:
    return Asked(body={"role": "merchant", "merchant_id": world.shop.merchant_id, "name": "shop"})


async def rotation(world: World) -> Asked:
    return replace(await a_key(world), body={"overlap_s": 60})


async def the_wallet(world: World) -> Asked:
    return Asked({"wallet_number": world.shop.wallets[0].device.number})


async def new_wallet(world: World) -> Asked:
    return Asked(body={"name": "Customer", "currency": EUR})


async def wallet_change(world: World) -> Asked:
    return replace(await the_wallet(world), body={"status": "frozen"})


async def wallet_limits(world: World) -> Asked:
    return replace(await the_wallet(world), body={"payment_minor_max": 500})


async def new_wallet_device(world: World) -> Asked:
    return replace(await the_wallet(world), body={})


async def the_wallet_device(world: World) -> Asked:
    return Asked({"wallet_number": world.shop.wallets[0].device.number, "slot": 0})


async def new_cash(world: World) -> Asked:
    wallet_number = world.shop.wallets[0].device.number
    return Asked(body={"wallet_number": wallet_number, "merchant_id": world.shop.merchant_id, "amount_minor": 100})


async def the_top_up(world: World) -> Asked:
    return Asked({"payment_id": await made(world, Role.ISSUER, "/v1/top-ups", await new_cash(world), "payment_id")})


async def the_withdrawal(world: World) -> Asked:
    cash = await new_cash(world)
    return Asked({"payment_id": await made(world, Role.ISSUER, "/v1/withdrawals", cash, "payment_id")})


async def new_store(world: World) -> Asked:
    return Asked(body={"name": "Garden"})


async def the_store(world: World) -> Asked:
    return Asked({"store_id": world.shop.store_id})


async def new_terminal(world: World) -> Asked:
    return Asked(body={"store_id": world.shop.store_id, "name": "Till"})


async def the_terminal(world: World) -> Asked:
    return Asked({"terminal_number": world.shop.terminals[0].device.number})


async def terminal_change(world: World) -> Asked:
    return replace(await the_terminal(world), body={"status": "disabled"})


async def new_payment(world: World) -> Asked:
    return Asked(
        body={
            "terminal_number": world.shop.terminals[0].device.number,
            "code": world.shop.wallets[0].code(),
            "amount_minor": 1_000,
            "reference": f"order-{new_id()}",
        }
    )


async def the_payment(world: World) -> Asked:
    payment = await new_payment(world)
    return Asked({"payment_id": await made(world, Role.MERCHANT, "/v1/payments", payment, "payment_id")})


async def a_payment_is_there(world: World) -> Asked:
    await the_payment(world)
    return Asked()


async def order_cancel(world: World) -> Asked:
    return Asked(body={"reference": f"order-{new_id()}"})


async def new_refund(world: World) -> Asked:
    return replace(await the_payment(world), body={"amount_minor": 100})


async def refunds_of_a_payment(world: World) -> Asked:
    paid = await the_payment(world)
    refund = Asked(body={"amount_minor": 100})
    await made(world, Role.MERCHANT, f"/v1/payments/{paid.path['payment_id']}/refunds", refund, "refund_id")
    return paid


async def the_shift(world: World) -> Asked:
    async with logged_in(str(world.by_role[Role.MERCHANT].base_url), world.shop.terminals[0]) as till:
        return Asked({"shift_id": (await ask(till, opening()))["shift_id"]})


async def a_shift_is_there(world: World) -> Asked:
    await the_shift(world)
    return Asked()


async def the_statement(world: World) -> Asked:
    now = datetime.now(UTC)
    day = now.date() - timedelta(days=2)
    await settle(world.admin, day, now)
    return Asked({"business_date": day.isoformat()})


async def a_statement_is_there(world: World) -> Asked:
    await the_statement(world)
    return Asked()


async def made(world: World, role: Role, path: str, asked: Asked, name: str) -> Any:
    """Make something over the API; returns the field `name` of it."""
    response = await world.by_role[role].post(path, json=asked.body, headers={"Idempotency-Key": str(new_id())})
    assert response.status_code == httpx.codes.CREATED, response.text
    return response.json()[name]


REACH: dict[str, Callable[[World], Awaitable[Asked]]] = {
    "createMerchant": new_merchant,
    "listMerchants": nothing_special,
    "getMerchant": the_merchant,
    "changeMerchant": merchant_change,
    "createApiKey": new_api_key,
    "listApiKeys": nothing_special,
    "rotateApiKey": rotation,
    "revokeApiKey": a_key,
    "createWallet": new_wallet,
    "listWallets": nothing_special,
    "getWallet": the_wallet,
    "changeWallet": wallet_change,
    "resetWalletPin": the_wallet,
    "getWalletLimits": the_wallet,
    "replaceWalletLimits": wallet_limits,
    "listWalletDevices": the_wallet,
    "createWalletDevice": new_wallet_device,
    "revokeWalletDevice": the_wallet_device,
    "listWalletTransfers": the_wallet,
    "createTopUp": new_cash,
    "getTopUp": the_top_up,
    "cancelTopUp": the_top_up,
    "createWithdrawal": new_cash,
    "getWithdrawal": the_withdrawal,
    "cancelWithdrawal": the_withdrawal,
    "createStore": new_store,
    "listStores": nothing_special,
    "getStore": the_store,
    "createTerminal": new_terminal,
    "listTerminals": nothing_special,
    "getTerminal": the_terminal,
    "changeTerminal": terminal_change,
    "createTerminalActivation": the_terminal,
    "createPayment": new_payment,
    "listPayments": a_payment_is_there,
    "getPayment": the_payment,
    "cancelPayment": the_payment,
    "cancelReference": order_cancel,
    "createRefund": new_refund,
    "listRefunds": refunds_of_a_payment,
    "listShifts": a_shift_is_there,
    "getShift": the_shift,
    "listStatements": a_statement_is_there,
    "getStatement": the_statement,
    "getBalance": nothing_special,
}
