"""A database whose collation has changed, as after an update of the C library: paid orders are still found."""

from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest
import pytest_asyncio

from pos_server.ledger.audit import audit
from pos_server.ledger.collations import collation_notice, unsorted_index
from pos_server.ledger.database import connect, create_pool
from pos_server.ledger.migrate import load_migrations, migrate
from pos_server.server import serving
from tests.databases import dsn_of, execute
from tests.end_to_end.server_process import pos_server
from tests.ledger.test_audit import sell
from tests.support import KEYRING, build_shop, settings

pytestmark = pytest.mark.asyncio

NAME = "pos_changed"


@pytest_asyncio.fixture
async def changed(postgres: str) -> AsyncIterator[str]:
    """Yield a database whose collation has another version than when it was created."""
    # A collation with a version exists in every build of Postgres 17 and newer; ICU or a language's C library may miss.
    connection = await connect(postgres, timeout_s=10, role=None)
    version = connection.get_server_version().major
    await connection.close()
    if version < 17:
        pytest.skip("before PostgreSQL 17, no built-in collation has a version")
    locale = "locale_provider builtin builtin_locale 'C.UTF-8' locale 'C'"
    await execute(postgres, f"create database {NAME} template template0 {locale}")
    try:
        dsn = dsn_of(postgres, NAME)
        owner = await connect(dsn, timeout_s=10, role=None)
        await migrate(owner, load_migrations())
        await owner.execute(f"update pg_database set datcollversion = '0' where datname = '{NAME}'")
        await owner.close()
        yield dsn
    finally:
        await execute(postgres, f"drop database {NAME} with (force)")


@pytest_asyncio.fixture
async def owner(changed: str) -> AsyncIterator[asyncpg.Connection]:
    opened = await connect(changed, timeout_s=10, role=None)
    yield opened
    await opened.close()


async def test_no_key_of_the_schema_is_sorted_in_the_order_of_a_language(admin: asyncpg.Connection) -> None:
    rows = await admin.fetch(
        "select i.indexrelid::regclass::text as name, c.collname from pg_index i "
        "join pg_class r on r.oid = i.indrelid and r.relnamespace = current_schema()::regnamespace "
        "cross join unnest(i.indcollation::oid[]) as k (id) join pg_collation c on c.oid = k.id"
    )
    assert len(rows) >= 9
    assert [(row["name"], row["collname"]) for row in rows if row["collname"] != "C"] == []


async def test_a_changed_collation_is_told_and_does_no_harm(changed: str, owner: asyncpg.Connection) -> None:
    notice = await collation_notice(owner)
    assert notice is not None
    assert "changed from version 0 to " in notice
    migrated = await pos_server("migrate", POS_DATABASE_URL=changed)
    assert (migrated.status, notice in migrated.err) == (0, True), migrated.err
    assert (await audit(owner)).ok


async def test_an_unchanged_collation_is_not_mentioned(admin: asyncpg.Connection) -> None:
    assert await collation_notice(admin) is None


async def test_an_index_of_the_operator_that_may_be_out_of_order_is_named(
    changed: str, owner: asyncpg.Connection
) -> None:
    async with await create_pool(changed, timeout_s=10, size_max=1) as pool:
        assert await unsorted_index(pool) is None
        await owner.execute("create index my_names on wallet (name)")
        assert await unsorted_index(pool) == "my_names"
    async with serving(settings(), KEYRING, changed) as server, httpx.AsyncClient() as client:
        ready = await client.get(f"{server.url}/readyz")
    assert (ready.status_code, "run reindex index my_names" in ready.text) == (503, True)
    findings = (await audit(owner)).findings
    assert [(finding.check, finding.offenders) for finding in findings] == [("sort_order", ["my_names"])]


async def test_the_audit_finds_duplicates_without_the_unique_index(
    connection: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    ids = await sell(connection, await build_shop(connection))
    await admin.execute("drop index payment_open_reference")
    await admin.execute("set session_replication_role = replica")  # a payment's order is fixed by a trigger
    order = await admin.fetchval(
        "update payment set reference = (select reference from payment where id = $1::text::uuid) "
        "where id = $2::text::uuid returning reference",
        ids["paid"],
        ids["also_paid"],
    )
    await admin.execute("reset session_replication_role")
    findings = {finding.check: finding.offenders for finding in (await audit(admin)).findings}
    assert findings["unique"] == [f"order {order}"]


async def test_the_audit_finds_ids_that_occur_twice(connection: asyncpg.Connection, admin: asyncpg.Connection) -> None:
    ids = await sell(connection, await build_shop(connection))
    await admin.execute("alter table payment drop constraint payment_pkey")
    await admin.execute("drop index payment_open_reference")
    await admin.execute("insert into payment select * from payment where id = $1::text::uuid", ids["paid"])
    findings = {finding.check: finding.offenders for finding in (await audit(admin)).findings}
    assert f"payment {ids['paid']}" in findings["unique"]
