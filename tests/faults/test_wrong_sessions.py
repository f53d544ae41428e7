"""Sessions with wrong settings: a server refuses to start with them, and never pays with them later."""

import asyncio

import asyncpg
import pytest
from structlog.testing import capture_logs

from pos_server.ledger.audit import audit
from pos_server.server import serving
from tests.end_to_end.server_process import pos_server
from tests.proxy import proxied
from tests.support import KEYRING, MASTER_KEYS, Shop, ask, http_client, logged_in, scan_message, settings

pytestmark = pytest.mark.asyncio

WITHIN_S = 30


async def ready(url: str) -> tuple[int, str]:
    async with http_client(url) as http:
        response = await http.get("/readyz")
    return response.status_code, response.text


async def test_a_server_does_not_start_behind_a_pooler_that_drops_its_role(dsn: str) -> None:
    async with proxied(dsn) as proxy:
        proxy.dropped = {"role"}
        refused = await pos_server("run", "--port", "0", POS_DATABASE_URL=proxy.dsn, POS_MASTER_KEYS=MASTER_KEYS)
    assert refused.status == 3
    assert refused.err == (
        "pos-server: current_user is pos in sessions of the database and must be pos_app, or stored transfers could be "
        "changed. Correct it in postgresql.conf, in `alter role`, in `alter database`, or in the pooler\n"
    )


async def test_a_command_of_the_owner_does_not_start_without_durable_commits(
    dsn: str, admin: asyncpg.Connection
) -> None:
    database = await admin.fetchval("select current_database()")
    await admin.execute(f"alter database {database} set synchronous_commit = off")
    refused = await pos_server("settle", "--out", "/nowhere", POS_DATABASE_URL=dsn)
    assert refused.status == 3
    assert refused.err.startswith("pos-server: synchronous_commit is off in sessions of the database and must be on, ")
    assert refused.err.count("\n") == 1


@pytest.mark.parametrize("connections", ["all", "lanes"])
async def test_a_server_that_reconnects_to_wrong_sessions_is_down(
    connections: str, dsn: str, admin: asyncpg.Connection, shop: Shop
) -> None:
    """Regression: it went on as the owner. With `lanes`, the connections of the pool are older, and right."""
    lanes = {row["pid"] for row in await backends(admin)}
    async with (
        proxied(dsn) as proxy,
        serving(settings(), KEYRING, proxy.dsn) as server,
        logged_in(server.url, shop.terminals[0]) as till,
    ):
        assert (await ask(till, scan_message(shop.wallets[0].code())))["status"] == "approved"
        proxy.dropped = {"role"}
        with capture_logs() as logs:
            if connections == "all":
                await proxy.drop_all()
            else:
                for row in await backends(admin):
                    if row["pid"] not in lanes and "payment" in row["query"]:
                        await admin.execute("select pg_terminate_backend($1, 10000)", row["pid"])
            scan = scan_message(shop.wallets[1].code())
            assert (await ask(till, scan))["code"] == "busy"
            assert await ready(server.url) == (
                503,
                "the setting current_user of the database is wrong: see the log\n",
            )
        reasons = {log["reason"] for log in logs if log["event"] == "database_error"}
        assert len(reasons) == 1
        assert reasons.pop().startswith("current_user is pos in sessions of the database and must be pos_app")
        assert await admin.fetchval("select count(*) from payment where purpose = 'sale'") == 1

        proxy.dropped = set()
        assert (await ask(till, scan))["status"] == "approved"
        async with asyncio.timeout(WITHIN_S):
            while (await ready(server.url))[0] != 200:
                pass
    report = await audit(admin)
    assert report.findings == []


async def backends(admin: asyncpg.Connection) -> list[asyncpg.Record]:
    return await admin.fetch(
        "select pid, query from pg_stat_activity where datname = current_database() and application_name = 'pos-server'"
    )
