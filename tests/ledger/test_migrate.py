"""Migrations: in order, once, completely or not at all, also when several servers start concurrently."""

import asyncio

import asyncpg
import pytest

from pos_server.core.payments.snapshot import HouseAccount
from pos_server.ledger.audit import audit
from pos_server.ledger.database import connect
from pos_server.ledger.migrate import Migration, MigrationError, load_migrations, migrate

pytestmark = pytest.mark.asyncio

ONE = Migration(1, "0001_one.sql", "create table one (id integer)")
TWO = Migration(2, "0002_two.sql", "create table two (id integer); insert into one values (2)")


async def test_they_are_applied_in_order_and_once(empty_dsn: str) -> None:
    connection = await connect(empty_dsn, timeout_s=10, role=None)
    assert await migrate(connection, [ONE]) == ["0001_one.sql"]
    assert await migrate(connection, [ONE, TWO]) == ["0002_two.sql"]
    assert await migrate(connection, [ONE, TWO]) == []
    assert await connection.fetchval("select id from one") == 2
    await connection.close()


async def test_existing_top_ups_become_payments(empty_dsn: str) -> None:
    connection = await connect(empty_dsn, timeout_s=10, role=None)
    before = [migration for migration in load_migrations() if migration.number < 6]
    await migrate(connection, before)
    await connection.execute(
        "insert into account (kind, name, currency) values ('house', 'cash_in', 'EUR'), ('merchant', 'Shop', 'EUR'),"
        " ('wallet', 'Ann', 'EUR');"
        "insert into merchant (account_id, name, currency)"
        " select id, name, currency from account where kind = 'merchant';"
        "insert into wallet (account_id, name, currency, balance_minor)"
        " select id, name, currency, 700 from account where kind = 'wallet';"
        "insert into transfer (kind, source_id, debit_account_id, credit_account_id, amount_minor, currency,"
        " wallet_number, created_at)"
        " select 'top_up', gen_random_uuid(), h.id, w.account_id, 700, 'EUR', w.number, now()"
        " from account h, wallet w where h.kind = 'house'"
    )
    await migrate(connection, load_migrations())
    report = await audit(connection)
    assert (report.findings, report.cash_movements, report.payments) == ([], 1, 0)
    houses = await connection.fetch("select name from account where kind = 'house' and currency = 'EUR' order by 1")
    assert [row["name"] for row in houses] == sorted(HouseAccount)
    await connection.close()


async def test_ten_concurrent_servers_apply_them_once(empty_dsn: str) -> None:
    async def start() -> list[str]:
        connection = await connect(empty_dsn, timeout_s=10, role=None)
        try:
            return await migrate(connection, load_migrations())
        finally:
            await connection.close()

    applied = await asyncio.gather(*(start() for _ in range(10)))
    names = [migration.name for migration in load_migrations()]
    assert sorted(map(len, applied)) == [0] * 9 + [len(names)]


async def test_a_failing_migration_is_rolled_back_alone(empty_dsn: str) -> None:
    broken = Migration(2, "0002_broken.sql", "create table two (id integer); select 1 / 0")
    connection = await connect(empty_dsn, timeout_s=10, role=None)
    with pytest.raises(MigrationError, match=r"0002_broken\.sql failed and was rolled back: division by zero"):
        await migrate(connection, [ONE, broken])
    assert await connection.fetchval("select to_regclass('one') is not null and to_regclass('two') is null")
    assert await migrate(connection, [ONE, TWO]) == ["0002_two.sql"]
    await connection.close()


async def test_an_edited_migration_is_rejected(empty_dsn: str) -> None:
    connection = await connect(empty_dsn, timeout_s=10, role=None)
    await migrate(connection, [ONE])
    with pytest.raises(MigrationError, match=r"0001_one\.sql was changed after it was applied"):
        await migrate(connection, [Migration(1, ONE.name, ONE.text + " ")])
    await connection.close()


async def test_a_newer_database_is_rejected(empty_dsn: str) -> None:
    connection = await connect(empty_dsn, timeout_s=10, role=None)
    await migrate(connection, [ONE, TWO])
    with pytest.raises(MigrationError, match="this version does not know"):
        await migrate(connection, [ONE])
    await connection.close()


async def login(dsn: str, name: str, *, member_of_app: bool) -> asyncpg.Connection:
    """Open a connection as a role with this name, which owns nothing."""
    admin = await connect(dsn, timeout_s=10, role=None)
    await admin.execute(f"do $$ begin create role {name} login; exception when duplicate_object then null; end $$")
    if member_of_app:
        await admin.execute(f"grant pos_app to {name}")
    await admin.close()
    return await asyncpg.connect(dsn.replace("pos@", f"{name}@"))


async def test_missing_privileges_are_explained(empty_dsn: str) -> None:
    connection = await login(empty_dsn, "poor", member_of_app=False)
    with pytest.raises(MigrationError, match=r"needs more privileges: .*\. Run `pos-server migrate` once as"):
        await migrate(connection, load_migrations())
    await connection.close()


async def test_a_member_of_pos_app_may_only_read(dsn: str) -> None:
    connection = await login(dsn, "pos_server", member_of_app=True)
    known = load_migrations()
    assert await migrate(connection, known) == []
    new = Migration(len(known) + 1, "9999_new.sql", "create table new (id integer)")
    with pytest.raises(MigrationError, match=r"9999_new\.sql needs more privileges"):
        await migrate(connection, [*known, new])
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("update transfer set amount_minor = 1")
    await connection.close()
