"""`/readyz` returns 503 while the server drains, has no database, or has one with another schema."""

import asyncpg
import httpx
import pytest

from pos_server.app import open_app
from pos_server.ledger.migrate import load_migrations
from pos_server.server import RunningServer, serving
from tests.proxy import proxied
from tests.support import KEYRING, http_client, settings

pytestmark = pytest.mark.asyncio

LAST = load_migrations()[-1].number


async def probe(server: RunningServer, path: str = "/readyz") -> tuple[int, str]:
    async with http_client(server.url) as http:
        response = await http.get(path)
    return response.status_code, response.text


async def test_a_server_with_its_database_is_ready(server: RunningServer) -> None:
    assert await probe(server) == (200, "ready\n")
    assert await probe(server, "/healthz") == (200, "alive\n")


async def test_a_draining_server_is_not_ready(dsn: str) -> None:
    async with (
        open_app(settings(), KEYRING, dsn) as app,
        httpx.AsyncClient(transport=httpx.ASGITransport(app.asgi), base_url="http://server") as http,
    ):
        await app.drain()
        response = await http.get("/readyz")
        assert (response.status_code, response.text) == (503, "draining\n")
        assert (await http.get("/healthz")).status_code == 200


async def test_readiness_follows_the_database(dsn: str) -> None:
    async with proxied(dsn) as proxy, serving(settings(), KEYRING, proxy.dsn) as server:
        proxy.away = True
        await proxy.drop_all()
        assert await probe(server) == (503, "the database does not respond\n")
        assert await probe(server, "/healthz") == (200, "alive\n")
        proxy.away = False
        assert await probe(server) == (200, "ready\n")


async def test_a_slow_database_is_not_ready(dsn: str, admin: asyncpg.Connection) -> None:
    async with serving(settings(probe_timeout_s=0.1), KEYRING, dsn) as server:
        async with admin.transaction():
            await admin.execute("lock table migration")
            assert await probe(server) == (503, "the database does not respond\n")
        assert (await probe(server))[0] == 200


async def test_the_schema_must_match_the_version(server: RunningServer, admin: asyncpg.Connection) -> None:
    await admin.execute("delete from migration where number = $1", LAST)
    older = f"the schema is at migration {LAST - 1}, this version needs {LAST}: run pos-server migrate\n"
    assert await probe(server) == (503, older)
    await admin.execute("insert into migration (number, name, checksum) values ($1, 'next', '')", LAST + 1)
    newer = f"the schema is at migration {LAST + 1}, this version has {LAST}: run the newer version\n"
    assert await probe(server) == (503, newer)
    await admin.execute("drop table migration")
    empty = f"the schema is at migration 0, this version needs {LAST}: run pos-server migrate\n"
    assert await probe(server) == (503, empty)
