"""A request for every endpoint, about an existing object, for tests of all endpoints.

An endpoint that is not in REQUESTS fails tests/api/test_authorization.py. Add a function that creates the object, for
the merchant `world.shop` if it belongs to a merchant, and returns the request.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
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
# A valid number or id that no object has.
UNKNOWN_NUMBER = 4_000_000_000


@dataclass(frozen=True, slots=True)
class RequestData:
    """The path parameters, the query and the body of a request."""

    path: dict[str, Any] = field(default_factory=dict)
    query: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] | None = None

    def for_unknown_object(self) -> "RequestData | None":
        """Return the same request for an unknown object; None if the request refers to no object."""
        body = self.body or {}
        if not any(is_reference(name, value) for name, value in (self.path | body).items()):
            return None
        path = _with_unknown_references(self.path)
        return replace(self, path=path, body=None if self.body is None else _with_unknown_references(body))


def is_reference(name: str, value: object) -> bool:
    return value is not None and name.endswith(("_id", "_number", "business_date"))


def _with_unknown_references(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _unknown(name, value) if is_reference(name, value) else value for name, value in values.items()}


def _unknown(name: str, value: object) -> object:
    if name == "business_date":
        return "1999-12-31"
    return UNKNOWN_NUMBER if isinstance(value, int) else str(new_id())


@dataclass(slots=True)
class World:
    """Two merchants, and clients with keys: one per role, one of the other merchant, and unauthorized ones."""

    admin: asyncpg.Connection
    shop: Shop
    by_role: dict[Role, httpx.AsyncClient]
    other_merchant: httpx.AsyncClient
    # Without a key, with an unknown key, and with a revoked key of each role.
    unauthorized: list[httpx.AsyncClient]

    async def ask(self, client: httpx.AsyncClient, operation: Endpoint, request: RequestData) -> httpx.Response:
        """Send a request, with a new idempotency key if needed; return the response, which must match the document."""
        headers = {"Idempotency-Key": str(new_id())} if operation.kind is Kind.CREATE else {}
        if operation.kind is Kind.REPLACE:
            read = await client.get(operation.path.format(**request.path))
            headers["If-Match"] = read.headers.get("ETag", '"0"')
        response = await client.request(
            operation.method,
            operation.path.format(**request.path),
            params=request.query,
            json=request.body,
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
        unauthorized = [await client(key) for key in (None, unknown, *revoked)]
        yield World(admin, shop, by_role, stranger, unauthorized)


def faults(operation: Endpoint, response: httpx.Response) -> list[str]:
    """Return the differences between a response and the document: status, media type, headers and body."""
    responses = DOCUMENT["paths"][operation.path][operation.method.lower()]["responses"]
    described = responses.get(str(response.status_code))
    if described is None:
        return [f"{operation.name}: status {response.status_code} is not in the document"]
    media_type = response.headers["content-type"].partition(";")[0]
    if media_type not in described["content"]:
        return [f"{operation.name}: {media_type} is not in the document"]
    # Other headers are optional.
    required = described["headers"].keys() & {"X-Request-Id", "ETag"}
    missing = [f"{operation.name}: the header {name} is missing" for name in required if name not in response.headers]
    return missing + body_faults(described["content"][media_type]["schema"], response.json())


def body_faults(schema: dict[str, Any], body: object) -> list[str]:
    """Return the violations of a schema of the document by a body."""
    rooted = schema | {"components": DOCUMENT["components"]}
    validator = Draft202012Validator(rooted, format_checker=FormatChecker())
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(body)]


async def without_parameters(world: World) -> RequestData:
    return RequestData()


async def existing_merchant(world: World) -> RequestData:
    return RequestData({"merchant_id": world.shop.merchant_id})


async def existing_key(world: World) -> RequestData:
    name = f"to be changed {new_id()}"
    await operator_acts.new_key(world.admin, Role.ISSUER, None, name)
    [record] = [each for each in await api_keys.list_api_keys(world.admin) if each.name == name]
    return RequestData({"key_id": record.id})


async def new_merchant(world: World) -> RequestData:
    return RequestData(body={"name": "Kiosk", "currency": "EUR"})


async def merchant_change(world: World) -> RequestData:
    return replace(await existing_merchant(world), body={"fee_bps": 3})


async def new_api_key(world: World) -> RequestData:
    return RequestData(body={"role": "merchant", "merchant_id": world.shop.merchant_id, "name": "shop"})


async def rotation(world: World) -> RequestData:
    return replace(await existing_key(world), body={"overlap_s": 60})


async def existing_wallet(world: World) -> RequestData:
    return RequestData({"wallet_number": world.shop.wallets[0].device.number})


async def new_wallet(world: World) -> RequestData:
    return RequestData(body={"name": "Customer", "currency": EUR})


async def wallet_change(world: World) -> RequestData:
    return replace(await existing_wallet(world), body={"status": "frozen"})


async def wallet_limits(world: World) -> RequestData:
    return replace(await existing_wallet(world), body={"payment_minor_max": 500})


async def new_wallet_device(world: World) -> RequestData:
    return replace(await existing_wallet(world), body={})


async def existing_wallet_device(world: World) -> RequestData:
    return RequestData({"wallet_number": world.shop.wallets[0].device.number, "slot": 0})


async def new_cash(world: World) -> RequestData:
    wallet_number = world.shop.wallets[0].device.number
    return RequestData(
        body={"wallet_number": wallet_number, "merchant_id": world.shop.merchant_id, "amount_minor": 100}
    )


async def existing_top_up(world: World) -> RequestData:
    return RequestData(
        {"payment_id": await create(world, Role.ISSUER, "/v1/top-ups", await new_cash(world), "payment_id")}
    )


async def existing_withdrawal(world: World) -> RequestData:
    cash = await new_cash(world)
    return RequestData({"payment_id": await create(world, Role.ISSUER, "/v1/withdrawals", cash, "payment_id")})


async def new_store(world: World) -> RequestData:
    return RequestData(body={"name": "Garden"})


async def existing_store(world: World) -> RequestData:
    return RequestData({"store_id": world.shop.store_id})


async def new_terminal(world: World) -> RequestData:
    return RequestData(body={"store_id": world.shop.store_id, "name": "Till"})


async def existing_terminal(world: World) -> RequestData:
    return RequestData({"terminal_number": world.shop.terminals[0].device.number})


async def terminal_change(world: World) -> RequestData:
    return replace(await existing_terminal(world), body={"status": "disabled"})


async def new_payment(world: World) -> RequestData:
    return RequestData(
        body={
            "terminal_number": world.shop.terminals[0].device.number,
            "code": world.shop.wallets[0].code(),
            "amount_minor": 1_000,
            "reference": f"order-{new_id()}",
        }
    )


async def existing_payment(world: World) -> RequestData:
    payment = await new_payment(world)
    return RequestData({"payment_id": await create(world, Role.MERCHANT, "/v1/payments", payment, "payment_id")})


async def list_with_a_payment(world: World) -> RequestData:
    await existing_payment(world)
    return RequestData()


async def order_cancel(world: World) -> RequestData:
    return RequestData(body={"reference": f"order-{new_id()}"})


async def new_refund(world: World) -> RequestData:
    return replace(await existing_payment(world), body={"amount_minor": 100})


async def refunds_of_a_payment(world: World) -> RequestData:
    paid = await existing_payment(world)
    refund = RequestData(body={"amount_minor": 100})
    await create(world, Role.MERCHANT, f"/v1/payments/{paid.path['payment_id']}/refunds", refund, "refund_id")
    return paid


async def existing_shift(world: World) -> RequestData:
    async with logged_in(str(world.by_role[Role.MERCHANT].base_url), world.shop.terminals[0]) as till:
        return RequestData({"shift_id": (await ask(till, opening()))["shift_id"]})


async def list_with_a_shift(world: World) -> RequestData:
    await existing_shift(world)
    return RequestData()


async def existing_statement(world: World) -> RequestData:
    now = datetime.now(UTC)
    day = now.date() - timedelta(days=2)
    # The merchant's days begin with its first transfer.
    await world.admin.execute(
        "insert into transfer (kind, source_id, debit_account_id, credit_account_id, amount_minor, currency, "
        "wallet_number, merchant_id, created_at) select 'payment', gen_random_uuid(), w.account_id, m.account_id, 1, "
        "m.currency, w.number, m.id, $2 from merchant m, wallet w where m.id = $1 order by w.number limit 1",
        world.shop.merchant_id,
        datetime.combine(day, time(12), UTC),
    )
    await settle(world.admin, day, now)
    return RequestData({"business_date": day.isoformat()})


async def list_with_a_statement(world: World) -> RequestData:
    await existing_statement(world)
    return RequestData()


async def create(world: World, role: Role, path: str, request: RequestData, name: str) -> Any:
    """Create an object through the API; return its field `name`."""
    response = await world.by_role[role].post(path, json=request.body, headers={"Idempotency-Key": str(new_id())})
    assert response.status_code == httpx.codes.CREATED, response.text
    return response.json()[name]


REQUESTS: dict[str, Callable[[World], Awaitable[RequestData]]] = {
    "createMerchant": new_merchant,
    "listMerchants": without_parameters,
    "getMerchant": existing_merchant,
    "changeMerchant": merchant_change,
    "createApiKey": new_api_key,
    "listApiKeys": without_parameters,
    "rotateApiKey": rotation,
    "revokeApiKey": existing_key,
    "createWallet": new_wallet,
    "listWallets": without_parameters,
    "getWallet": existing_wallet,
    "changeWallet": wallet_change,
    "resetWalletPin": existing_wallet,
    "getWalletLimits": existing_wallet,
    "replaceWalletLimits": wallet_limits,
    "listWalletDevices": existing_wallet,
    "createWalletDevice": new_wallet_device,
    "revokeWalletDevice": existing_wallet_device,
    "listWalletTransfers": existing_wallet,
    "createTopUp": new_cash,
    "getTopUp": existing_top_up,
    "cancelTopUp": existing_top_up,
    "createWithdrawal": new_cash,
    "getWithdrawal": existing_withdrawal,
    "cancelWithdrawal": existing_withdrawal,
    "createStore": new_store,
    "listStores": without_parameters,
    "getStore": existing_store,
    "createTerminal": new_terminal,
    "listTerminals": without_parameters,
    "getTerminal": existing_terminal,
    "changeTerminal": terminal_change,
    "createTerminalActivation": existing_terminal,
    "createPayment": new_payment,
    "listPayments": list_with_a_payment,
    "getPayment": existing_payment,
    "cancelPayment": existing_payment,
    "cancelReference": order_cancel,
    "createRefund": new_refund,
    "listRefunds": refunds_of_a_payment,
    "listShifts": list_with_a_shift,
    "getShift": existing_shift,
    "listStatements": list_with_a_statement,
    "getStatement": existing_statement,
    "getBalance": without_parameters,
}
