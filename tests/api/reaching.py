"""How every operation is asked about something that is there: the table behind the tests that go over all of them.

An operation that is not in REACH fails tests/api/test_authorization.py. Add a function that makes what the operation is
about, under the merchant `world.town` where it is a merchant's, and says how to ask.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
from jsonschema import Draft202012Validator, FormatChecker

from pos_server import operator_desk
from pos_server.api.openapi import openapi_json
from pos_server.core.api_keys import Role
from pos_server.core.rest.operations import Kind, RestOperation
from pos_server.ledger import api_keys
from pos_server.ledger.settlement import settle
from pos_server.server import RunningServer
from tests.support import Town, build_town, new_id

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
    return value is not None and name.endswith(("_id", "_number", "_date"))


def _elsewhere(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _nothings(name, value) if names_something(name, value) else value for name, value in values.items()}


def _nothings(name: str, value: object) -> object:
    if name.endswith("_date"):
        return "1999-12-31"
    return NOBODY if isinstance(value, int) else str(new_id())


@dataclass(slots=True)
class World:
    """Two merchants, and whoever may ask: a client for each role's key, one of the other merchant, and of no use."""

    admin: asyncpg.Connection
    town: Town
    by_role: dict[Role, httpx.AsyncClient]
    other_merchant: httpx.AsyncClient
    # No key, an unknown one, and a revoked one of each role.
    nobodies: list[httpx.AsyncClient]

    async def ask(self, client: httpx.AsyncClient, operation: RestOperation, asked: Asked) -> httpx.Response:
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
async def built_world(server: RunningServer, admin: asyncpg.Connection, town: Town) -> AsyncIterator[World]:
    other = await build_town(admin, terminals=0, wallets=0)
    async with AsyncExitStack() as stack:

        async def client(key: str | None) -> httpx.AsyncClient:
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            return await stack.enter_async_context(httpx.AsyncClient(base_url=server.url, headers=headers))

        async def new_key(role: Role, merchant_id: int, name: str = "a key") -> str:
            return await operator_desk.new_key(admin, role, merchant_id if role is Role.MERCHANT else None, name)

        by_role = {role: await client(await new_key(role, town.merchant_id)) for role in Role}
        revoked = [await new_key(role, town.merchant_id, "revoked") for role in Role]
        for record in await api_keys.list_api_keys(admin):
            if record.name == "revoked":
                await api_keys.end_api_key(admin, record.id)
        stranger = await client(await new_key(Role.MERCHANT, other.merchant_id))
        unknown = "pos_admin_" + "a" * 52
        nobodies = [await client(key) for key in (None, unknown, *revoked)]
        yield World(admin, town, by_role, stranger, nobodies)


def faults(operation: RestOperation, response: httpx.Response) -> list[str]:
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
    return Asked({"merchant_id": world.town.merchant_id})


async def a_key(world: World) -> Asked:
    await operator_desk.new_key(world.admin, Role.ISSUER, None, "to be changed")
    [record] = [each for each in await api_keys.list_api_keys(world.admin) if each.name == "to be changed"]
    return Asked({"key_id": record.id})


async def new_merchant(world: World) -> Asked:
    return Asked(body={"name": "Kiosk", "currency": "EUR"})


async def merchant_change(world: World) -> Asked:
    return replace(await the_merchant(world), body={"fee_bps": 3})


async def new_api_key(world: World) -> Asked:
    return Asked(body={"role": "merchant", "merchant_id": world.town.merchant_id, "name": "shop"})


async def rotation(world: World) -> Asked:
    return replace(await a_key(world), body={"overlap_s": 60})


async def new_wallet(world: World) -> Asked:
    return Asked(body={"name": "Jo", "currency": "EUR"})


async def the_wallet(world: World) -> Asked:
    return Asked({"wallet_number": world.town.wallets[0].device.number})


async def wallet_change(world: World) -> Asked:
    return replace(await the_wallet(world), body={"status": "frozen"})


async def wallet_limits(world: World) -> Asked:
    return replace(await the_wallet(world), body={"payment_minor_max": 500})


async def new_device(world: World) -> Asked:
    return replace(await the_wallet(world), body={})


async def the_device(world: World) -> Asked:
    return Asked((await the_wallet(world)).path | {"slot": 0})


async def cash(world: World) -> Asked:
    wallet = {"wallet_number": world.town.wallets[0].device.number, "merchant_id": world.town.merchant_id}
    return Asked(body=wallet | {"amount_minor": 100})


async def made(world: World, role: Role, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """What a POST with the right key has made."""
    response = await world.by_role[role].post(path, json=body, headers={"Idempotency-Key": str(new_id())})
    assert response.status_code == 201, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def a_top_up(world: World) -> Asked:
    return Asked(
        {"payment_id": (await made(world, Role.ISSUER, "/v1/top-ups", (await cash(world)).body or {}))["payment_id"]}
    )


async def a_withdrawal(world: World) -> Asked:
    body = (await cash(world)).body or {}
    return Asked({"payment_id": (await made(world, Role.ISSUER, "/v1/withdrawals", body))["payment_id"]})


async def new_store(world: World) -> Asked:
    return Asked(body={"name": "Garden"})


async def the_store(world: World) -> Asked:
    return Asked({"store_id": world.town.store_id})


async def new_terminal(world: World) -> Asked:
    return Asked(body={"store_id": world.town.store_id, "name": "Till 9"})


async def the_terminal(world: World) -> Asked:
    return Asked({"terminal_number": world.town.terminals[0].device.number})


async def terminal_change(world: World) -> Asked:
    return replace(await the_terminal(world), body={"status": "disabled"})


async def new_activation(world: World) -> Asked:
    return await the_terminal(world)


async def new_payment(world: World) -> Asked:
    till = {"terminal_number": world.town.terminals[0].device.number}
    order = {"code": world.town.wallets[1].code(), "amount_minor": 300, "reference": str(new_id())}
    return Asked(body=till | order)


async def a_payment(world: World) -> Asked:
    body = (await new_payment(world)).body or {}
    return Asked({"payment_id": (await made(world, Role.MERCHANT, "/v1/payments", body))["payment_id"]})


async def an_order(world: World) -> Asked:
    return Asked(body={"reference": "order-to-cancel"})


async def new_refund(world: World) -> Asked:
    return replace(await a_payment(world), body={"amount_minor": 100})


async def a_refunded_payment(world: World) -> Asked:
    asked = await a_payment(world)
    await made(world, Role.MERCHANT, f"/v1/payments/{asked.path['payment_id']}/refunds", {"amount_minor": 100})
    return asked


async def shifts(world: World) -> Asked:
    await a_shift(world)
    return Asked()


async def statements(world: World) -> Asked:
    await a_statement(world)
    return Asked()


async def a_shift(world: World) -> Asked:
    shift_id, number = new_id(), world.town.terminals[0].device.number
    await world.admin.execute(
        "insert into shift (id, terminal_number, number, operator, opening_cash_minor, opened_at) "
        "values ($1, $2, 1, 'Alice', 0, now())",
        shift_id,
        number,
    )
    await world.admin.execute("update terminal set shift_id = $1 where number = $2", shift_id, number)
    return Asked({"shift_id": str(shift_id)})


async def a_statement(world: World) -> Asked:
    now = datetime.now(UTC)
    day = now.date() - timedelta(days=2)
    await settle(world.admin, day, now)
    # The other merchant has one of that day too, which is not what is asked for here.
    await world.admin.execute("delete from settlement where merchant_id <> $1", world.town.merchant_id)
    return Asked({"business_date": day.isoformat()})


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
    "createWalletDevice": new_device,
    "revokeWalletDevice": the_device,
    "listWalletTransfers": the_wallet,
    "createTopUp": cash,
    "getTopUp": a_top_up,
    "cancelTopUp": a_top_up,
    "createWithdrawal": cash,
    "getWithdrawal": a_withdrawal,
    "cancelWithdrawal": a_withdrawal,
    "createStore": new_store,
    "listStores": nothing_special,
    "getStore": the_store,
    "createTerminal": new_terminal,
    "listTerminals": nothing_special,
    "getTerminal": the_terminal,
    "changeTerminal": terminal_change,
    "createTerminalActivation": new_activation,
    "createPayment": new_payment,
    "listPayments": nothing_special,
    "getPayment": a_payment,
    "cancelPayment": a_payment,
    "cancelReference": an_order,
    "createRefund": new_refund,
    "listRefunds": a_refunded_payment,
    "listShifts": shifts,
    "getShift": a_shift,
    "listStatements": statements,
    "getStatement": a_statement,
    "getBalance": nothing_special,
}
