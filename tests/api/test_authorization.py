"""Who may do what: every operation, with every kind of key, about something of one's own, another's and nobody's.

How an operation is asked stands in tests/api/reaching.py.
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
from tests.api.reaching import REACH, World, built_world
from tests.shared import shared_database, shared_server
from tests.support import Shop

pytestmark = pytest.mark.asyncio
dsn = shared_database()
server = shared_server(api_key_failures_max=1_000_000)


@pytest_asyncio.fixture
async def world(server: RunningServer, admin: asyncpg.Connection, shop: Shop) -> AsyncIterator[World]:
    async with built_world(server, admin, shop) as built:
        yield built


def told(response: httpx.Response) -> tuple[int, dict[str, Any]]:
    """All of a problem but the name of its request."""
    return response.status_code, {name: value for name, value in response.json().items() if name != "request_id"}


@pytest.mark.parametrize("operation", ENDPOINTS, ids=lambda operation: operation.name)
async def test_who_may(operation: Endpoint, world: World) -> None:
    assert operation.name in REACH, "say in tests/api/reaching.py how this operation is asked"
    own = await REACH[operation.name](world)
    nothing = own.of_nothing()
    assert nothing is not None or operation.parameters is NoParameters
    whatever = [own] if nothing is None else [own, nothing]

    for nobody in world.nobodies:
        for asked in whatever:
            status, problem = told(await world.ask(nobody, operation, asked))
            assert (status, problem["code"]) == (401, "unauthorized")
    for role in set(Role) - {operation.role}:
        for asked in whatever:
            status, problem = told(await world.ask(world.by_role[role], operation, asked))
            assert (status, problem["code"]) == (403, "role_missing")

    right = world.by_role[operation.role]
    if nothing is not None:
        unknown = told(await world.ask(right, operation, nothing))
        assert unknown[0] == 404
        if operation.role is Role.MERCHANT:
            # Another's is answered like nobody's, to the word. A day is everybody's: each has its own statement of it.
            if "business_date" not in own.path:
                assert told(await world.ask(world.other_merchant, operation, own)) == unknown
            assert told(await world.ask(world.other_merchant, operation, nothing)) == unknown
    done = await world.ask(right, operation, own)
    assert done.status_code in operation.statuses, done.text


async def test_the_table_has_no_other_operations() -> None:
    assert set(REACH) <= {operation.name for operation in ENDPOINTS}
