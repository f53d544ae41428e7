"""docker/postgres/roles.sh: the owner and the server's login have exactly the rights that they need."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator

import asyncpg
import pytest

from pos_server.ledger.database import libpq_environment
from pos_server.postgres.binaries import find_program
from pos_server.postgres.embedded import EmbeddedPostgres
from tests.docker.files import DOCKER
from tests.end_to_end.server_process import pos_server, running_server
from tests.support import MASTER_KEYS, ask, build_shop, logged_in, open_directory, scan_message
from tests.tested_postgres import BIN_DIR

pytestmark = [pytest.mark.asyncio, pytest.mark.long]


@pytest.fixture(scope="module")
def fresh() -> Iterator[str]:
    """Run the script in a new Postgres; yield the DSN of the ledger, with `{user}` as a placeholder."""
    data_dir = open_directory("pos-roles-")
    psql = find_program("psql", BIN_DIR).parent
    try:
        with EmbeddedPostgres(data_dir, bin_dir=BIN_DIR) as dsn:
            environment = (
                os.environ
                | libpq_environment(dsn)
                | {
                    "PATH": f"{psql}{os.pathsep}{os.environ['PATH']}",
                    "POSTGRES_USER": "pos",
                    "LEDGER_OWNER_PASSWORD": "owner's",
                    "LEDGER_SERVER_PASSWORD": "server's",
                }
            )
            subprocess.run([DOCKER / "postgres" / "roles.sh"], env=environment, check=True, capture_output=True)
            yield dsn.replace("pos@/pos?", "{user}@/ledger?")
    finally:
        shutil.rmtree(data_dir, ignore_errors=True)


async def test_the_owner_can_migrate_and_the_server_can_serve(fresh: str) -> None:
    owner, server = (fresh.replace("{user}", user) for user in ("pos_owner", "pos_server"))
    too_early = await pos_server("run", POS_DATABASE_URL=server, POS_MASTER_KEYS=MASTER_KEYS)
    assert (too_early.status, "pos-server migrate` once as" in too_early.err) == (3, True)

    migrated = await pos_server("migrate", POS_DATABASE_URL=owner)
    assert migrated.status == 0, migrated.err
    assert migrated.out.startswith("applied 0001_ledger.sql\n")
    connection = await asyncpg.connect(server)
    shop = await build_shop(connection, terminals=1, wallets=1)
    async with (
        running_server(POS_DATABASE_URL=server, POS_MASTER_KEYS=MASTER_KEYS) as serving,
        logged_in(serving.url, shop.terminals[0]) as till,
    ):
        assert (await ask(till, scan_message(shop.wallets[0].code())))["status"] == "approved"
    for statement in (
        "update transfer set amount_minor = 1",
        "delete from payment",
        "create table mine (id integer)",
        "create temporary table mine (id integer)",
        "set role pos_owner",
        "update migration set checksum = ''",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    await connection.close()

    audited = await pos_server("audit", POS_DATABASE_URL=owner)
    assert audited.out.startswith("audit ok: 1 payments")
    key = await pos_server("keys", "create", "--role", "admin", POS_DATABASE_URL=owner)
    assert key.status == 0, key.err


async def test_passwords_are_stored_as_scram_and_other_roles_cannot_connect(fresh: str) -> None:
    connection = await asyncpg.connect(fresh.replace("{user}", "pos"))
    stored = await connection.fetch(
        "select rolname, rolpassword from pg_authid where rolname in ('pos_owner', 'pos_server')"
    )
    assert {row["rolname"]: row["rolpassword"].partition("$")[0] for row in stored} == {
        "pos_owner": "SCRAM-SHA-256",
        "pos_server": "SCRAM-SHA-256",
    }
    await connection.execute("create role stranger login")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with asyncio.timeout(10):
            await asyncpg.connect(fresh.replace("{user}", "stranger"))
    await connection.close()
