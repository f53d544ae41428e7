"""How every operation is asked about something that is there: the table behind the tests that go over all of them.

An operation that is not in REACH fails tests/api/test_authorization.py. Add a function that makes what the operation is
about, under the merchant `world.town` where it is a merchant's, and says how to ask.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg
import httpx
from jsonschema import Draft202012Validator, FormatChecker

from pos_server import operator_desk
from pos_server.api.openapi import openapi_json
from pos_server.core.api_keys import Role
from pos_server.core.rest.operations import Kind, RestOperation
from pos_server.ledger import api_keys
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
    return value is not None and name.endswith(("_id", "_number"))


def _elsewhere(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: (NOBODY if isinstance(value, int) else str(new_id())) if names_something(name, value) else value
        for name, value in values.items()
    }


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


REACH: dict[str, Callable[[World], Awaitable[Asked]]] = {
    "createMerchant": new_merchant,
    "listMerchants": nothing_special,
    "getMerchant": the_merchant,
    "changeMerchant": merchant_change,
    "createApiKey": new_api_key,
    "listApiKeys": nothing_special,
    "rotateApiKey": rotation,
    "revokeApiKey": a_key,
}
