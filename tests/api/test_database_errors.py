"""Database errors over HTTP: every endpoint answers a problem document with a code, and never a plain 500."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from structlog.testing import capture_logs

from pos_server.api.support.dispatch import ApiCall, Dispatcher, Reply
from pos_server.api.support.error_responses import ERROR_RESPONSES
from pos_server.core.credentials.api_keys import ApiKey
from pos_server.core.rest.catalogue import ENDPOINTS
from pos_server.core.rest.endpoints import Endpoint, Kind
from pos_server.ledger.failures import NotConnected
from pos_server.limits import ApiLimits
from pos_server.server import RunningServer, serving
from tests.api.clients import issuer_client
from tests.api.endpoint_requests import REQUESTS, RequestData, World, built_world, faults
from tests.proxy import proxied
from tests.support import KEYRING, Shop, http_client, new_id, settings

pytestmark = pytest.mark.asyncio

LIMITS = ApiLimits(
    body_bytes_max=10_000,
    timeout_s=5,
    requests_max=10,
    requests_per_s=1000,
    requests_burst=1000,
    keys_tracked_max=10,
)
# One endpoint of each kind, with a path and a body.
BY_KIND: dict[Kind, tuple[str, str, dict[str, Any] | None]] = {
    Kind.READ: ("getWallet", "/v1/wallets/1000000001", None),
    Kind.CREATE: ("createWallet", "/v1/wallets", {"name": "Ada", "currency": "EUR"}),
    Kind.CHANGE: ("changeWallet", "/v1/wallets/1000000001", {"status": "frozen"}),
}
BUSY, UNKNOWN = "busy", "unknown_outcome"
# The error of a handler, its code for a read, its code for a write.
ERRORS = [
    (NotConnected("no"), BUSY, BUSY),
    (asyncpg.InterfaceError("another operation is in progress"), BUSY, UNKNOWN),
    (asyncpg.InternalClientError("cannot switch to state 11"), BUSY, UNKNOWN),
    (asyncpg.ConnectionDoesNotExistError("gone"), BUSY, UNKNOWN),
    (asyncpg.AdminShutdownError("gone"), BUSY, UNKNOWN),
    (asyncpg.ReadOnlySQLTransactionError("standby"), BUSY, BUSY),
    (asyncpg.DeadlockDetectedError("deadlock"), BUSY, BUSY),
    (asyncpg.SerializationError("conflict"), BUSY, BUSY),
    (asyncpg.DiskFullError("full"), BUSY, BUSY),
    (asyncpg.TooManyConnectionsError("full"), BUSY, BUSY),
    (asyncpg.LockNotAvailableError("locked"), BUSY, BUSY),
    (asyncpg.UndefinedTableError("no table"), BUSY, BUSY),
    (asyncpg.InsufficientPrivilegeError("no right"), BUSY, BUSY),
    (asyncpg.UnknownPostgresError("new"), BUSY, UNKNOWN),
    (TimeoutError(), BUSY, UNKNOWN),
    (ConnectionResetError(), BUSY, UNKNOWN),
    (KeyError("a bug"), BUSY, UNKNOWN),
]


class AnyKey:
    """Authentication that accepts every request, with the role of the endpoint."""

    def __init__(self, endpoint: Endpoint, error: Exception | None = None) -> None:
        self._endpoint = endpoint
        self._error = error

    async def require(self, request: Request) -> ApiKey:
        if self._error is not None:
            raise self._error
        return ApiKey(1, self._endpoint.role)


async def answer_of(kind: Kind, error: Exception, *, in_authentication: bool = False) -> httpx.Response:
    """Return the response to a request of this kind whose handler, or authentication, raises `error`."""
    name, path, body = BY_KIND[kind]
    (endpoint,) = (endpoint for endpoint in ENDPOINTS if endpoint.name == name)
    assert endpoint.kind is kind

    async def fail(call: ApiCall[Any, Any, Any]) -> Reply:
        raise error

    authentication: Any = AnyKey(endpoint, error if in_authentication else None)
    app = Starlette(routes=Dispatcher(LIMITS, authentication, [endpoint], {name: fail}).routes())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
        response = await client.request(endpoint.method, path, json=body, headers={"Idempotency-Key": "key"})
    assert faults(endpoint, response) == []
    return response


@pytest.mark.parametrize("kind", BY_KIND)
@pytest.mark.parametrize(("error", "read_code", "write_code"), ERRORS, ids=[type(row[0]).__name__ for row in ERRORS])
async def test_an_error_of_a_handler(kind: Kind, error: Exception, read_code: str, write_code: str) -> None:
    response = await answer_of(kind, error)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert response.json()["code"] == (read_code if kind is Kind.READ else write_code)


@pytest.mark.parametrize("kind", BY_KIND)
async def test_an_error_of_the_authentication_is_busy(kind: Kind) -> None:
    """Nothing has been written then."""
    response = await answer_of(kind, ConnectionResetError(), in_authentication=True)
    assert (response.status_code, response.json()["code"]) == (503, BUSY)


@pytest.mark.parametrize(("method", "code"), [("GET", BUSY), ("POST", UNKNOWN)])
async def test_a_bug_in_any_other_page_is_a_problem_too(method: str, code: str) -> None:
    async def page(request: Request) -> Response:
        raise KeyError("a bug")

    app = Starlette(routes=[Route("/page", page, methods=[method])], exception_handlers=ERROR_RESPONSES)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        response = await client.request(method, "/page")
    assert (response.status_code, response.json()["code"]) == (503, code)
    assert response.headers["content-type"] == "application/problem+json"


async def request_of(endpoint: Endpoint, world: World) -> RequestData:
    """Return a request for an endpoint, which need not exist: a shop has one open shift, and no statement yet."""
    without_object = {
        "listShifts": RequestData(),
        "listStatements": RequestData(),
        "getStatement": RequestData({"business_date": "2020-01-01"}),
    }
    return without_object.get(endpoint.name) or await REQUESTS[endpoint.name](world)


@asynccontextmanager
async def world_of(dsn: str, admin: asyncpg.Connection, shop: Shop) -> AsyncIterator[tuple[RunningServer, World]]:
    limits = settings(api_requests_per_s=1000, api_requests_burst=1000)
    async with serving(limits, KEYRING, dsn) as server, built_world(server, admin, shop) as world:
        yield server, world


async def test_without_a_database_every_endpoint_is_busy(dsn: str, shop: Shop, admin: asyncpg.Connection) -> None:
    async with proxied(dsn) as proxy, world_of(proxy.dsn, admin, shop) as (server, world):
        requests = {endpoint.name: await request_of(endpoint, world) for endpoint in ENDPOINTS}
        proxy.away = True
        await proxy.drop_all()
        with capture_logs() as logs:
            for endpoint in ENDPOINTS:
                response = await world.ask(world.by_role[endpoint.role], endpoint, requests[endpoint.name])
                assert (response.status_code, response.json()["code"]) == (503, BUSY), endpoint.name
            async with http_client(server.url) as http:
                body = {"activation_code": "ABCD-EFGH-JKLM-NPQR", "request_id": str(new_id())}
                activation = await http.post("/v1/activations", json=body)
                assert (activation.status_code, activation.json()["code"]) == (503, BUSY)
                assert (await http.get("/readyz")).status_code == 503
        assert not [log for log in logs if "exc_info" in log]
        proxy.away = False
        for endpoint in ENDPOINTS:
            response = await world.ask(world.by_role[endpoint.role], endpoint, requests[endpoint.name])
            assert response.status_code != 503, endpoint.name


async def test_no_request_is_a_plain_500_while_backends_are_terminated(
    dsn: str, shop: Shop, admin: asyncpg.Connection
) -> None:
    async with world_of(dsn, admin, shop) as (_, world):
        requests = {endpoint.name: await request_of(endpoint, world) for endpoint in ENDPOINTS}
        mine = await admin.fetchval("select pg_backend_pid()")
        done = asyncio.Event()

        async def end_backends() -> None:
            while not done.is_set():
                await admin.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where datname = current_database() and pid <> $1",
                    mine,
                )

        statuses: list[int] = []

        async def ask(endpoint: Endpoint) -> None:
            response = await world.ask(world.by_role[endpoint.role], endpoint, requests[endpoint.name])
            statuses.append(response.status_code)
            if response.status_code == 503:
                assert response.json()["code"] in (BUSY, UNKNOWN)

        with capture_logs() as logs:
            ending = asyncio.create_task(end_backends())
            for _ in range(3):
                await asyncio.gather(*map(ask, ENDPOINTS))
            done.set()
            await ending
    assert 503 in statuses
    assert 500 not in statuses
    assert [log["event"] for log in logs if "exc_info" in log] == []


async def test_the_pool_leaves_a_server_that_became_a_standby(dsn: str, admin: asyncpg.Connection) -> None:
    """`default_transaction_read_only` stands for the standby: it holds for connections that are opened now."""
    name = await admin.fetchval("select current_database()")
    token = "a token of 16 characters"
    async with (
        serving(settings(metrics_token=token), KEYRING, dsn) as server,
        issuer_client(server, admin) as issuer,
    ):

        async def create() -> httpx.Response:
            body = {"name": "Ada", "currency": "EUR"}
            return await issuer.post("/v1/wallets", json=body, headers={"Idempotency-Key": "wallet"})

        async def readiness() -> tuple[int, str]:
            response = await issuer.get("/readyz")
            return response.status_code, response.text

        await admin.execute(f"alter database {name} set default_transaction_read_only = on")
        await admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )
        while (await readiness())[1] == "the database does not respond\n":
            pass
        assert await readiness() == (503, "the database is read-only\n")
        metrics = await issuer.get("/metrics", headers={"Authorization": f"Bearer {token}"})
        assert "\npos_database_up 0.0\n" in metrics.text
        assert (await create()).json()["code"] == BUSY
        await admin.execute("set default_transaction_read_only = off")
        await admin.execute(f"alter database {name} reset default_transaction_read_only")
        # Each connection that was opened in between is replaced after its first error.
        async with asyncio.timeout(20):
            while (created := await create()).status_code == 503:
                pass
        assert created.status_code == 201
        assert await readiness() == (200, "ready\n")
