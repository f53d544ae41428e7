"""Authorization: every endpoint with every kind of key, for an own object, another tenant's and an unknown one.

tests/api/endpoint_requests.py defines the requests.
"""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio

from pos_server.core.credentials.api_keys import Role
from pos_server.core.rest.catalogue import ENDPOINTS
from pos_server.core.rest.endpoints import Endpoint
from pos_server.core.rest.fields import NoParameters
from pos_server.server import RunningServer
from tests.api.endpoint_requests import REQUESTS, World, built_world
from tests.shared import shared_database, shared_server
from tests.support import Shop

pytestmark = pytest.mark.asyncio
dsn = shared_database()
server = shared_server(api_key_failures_max=1_000_000)


@pytest_asyncio.fixture
async def world(server: RunningServer, admin: asyncpg.Connection, shop: Shop) -> AsyncIterator[World]:
    async with built_world(server, admin, shop) as built:
        yield built


def problem_of(response: httpx.Response) -> tuple[int, dict[str, Any]]:
    """Return the status and body of a problem, without the request id."""
    return response.status_code, {name: value for name, value in response.json().items() if name != "request_id"}


@pytest.mark.parametrize("operation", ENDPOINTS, ids=lambda operation: operation.name)
async def test_every_endpoint_with_every_kind_of_key(operation: Endpoint, world: World) -> None:
    assert operation.name in REQUESTS, "add a request for this endpoint to tests/api/endpoint_requests.py"
    own = await REQUESTS[operation.name](world)
    unknown = own.for_unknown_object()
    assert unknown is not None or operation.parameters is NoParameters
    requests = [own] if unknown is None else [own, unknown]

    for unauthorized in world.unauthorized:
        for request in requests:
            status, problem = problem_of(await world.ask(unauthorized, operation, request))
            assert (status, problem["code"]) == (401, "unauthorized")
    for role in set(Role) - {operation.role}:
        for request in requests:
            status, problem = problem_of(await world.ask(world.by_role[role], operation, request))
            assert (status, problem["code"]) == (403, "role_missing")

    authorized = world.by_role[operation.role]
    if unknown is not None:
        not_found = problem_of(await world.ask(authorized, operation, unknown))
        assert not_found[0] == 404
        if operation.role is Role.MERCHANT:
            # Another merchant's object is indistinguishable from an unknown one. A business day exists for everyone.
            if "business_date" not in own.path:
                assert problem_of(await world.ask(world.other_merchant, operation, own)) == not_found
            assert problem_of(await world.ask(world.other_merchant, operation, unknown)) == not_found
    response = await world.ask(authorized, operation, own)
    assert response.status_code in operation.statuses, response.text


async def test_the_table_has_no_other_endpoints() -> None:
    assert set(REQUESTS) <= {operation.name for operation in ENDPOINTS}
