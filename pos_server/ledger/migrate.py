"""Plain SQL migrations, applied in order, each in its own transaction and recorded with a checksum.

Several servers may start concurrently: an advisory lock lets one of them migrate while the others wait.
"""

import re
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files

import asyncpg

from ..core.errors import PosError

# An arbitrary constant that nothing else in the database uses: the ASCII of "pos-migr".
_ADVISORY_LOCK = int.from_bytes(b"pos-migr")
_FILE_NAME = re.compile(r"(\d{4})_\w+\.sql")
_CREATE_TABLE = """
create table if not exists migration (
    number integer primary key,
    name text not null,
    checksum text not null,
    applied_at timestamptz not null default now()
)
"""


class MigrationError(PosError):
    """A migration failed or does not match this version; the text names the migration and the cause."""


@dataclass(frozen=True, slots=True, order=True)
class Migration:
    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return sha256(self.text.encode()).hexdigest()


def load_migrations() -> list[Migration]:
    """Return the migrations of this version in order, numbered from 1 without a gap."""
    migrations = sorted(
        (Migration(int(match[1]), entry.name, entry.read_text("utf-8")))
        for entry in (files(__package__) / "migrations").iterdir()
        if (match := _FILE_NAME.fullmatch(entry.name))
    )
    if [migration.number for migration in migrations] != list(range(1, len(migrations) + 1)):
        raise MigrationError("the migration files are not numbered 1, 2, 3 … without a gap")
    return migrations


async def migrate(connection: asyncpg.Connection, migrations: list[Migration]) -> list[str]:
    """Apply all pending migrations and return their names.

    Raises MigrationError if an applied migration was edited later, if the database is newer than this version, or if a
    migration fails. A failed migration is rolled back; earlier ones remain applied. If nothing is pending, a member of
    pos_app may call this too.
    """
    await connection.execute("select pg_advisory_lock($1)", _ADVISORY_LOCK)
    try:
        # `create table if not exists` alone would need the privilege to create even if the table exists.
        if await connection.fetchval("select to_regclass('migration') is null"):
            await _create_table(connection)
        applied = {row["number"]: row for row in await connection.fetch("select * from migration order by number")}
        _check_history(applied, migrations)
        pending = [migration for migration in migrations if migration.number not in applied]
        for migration in pending:
            await _apply(connection, migration)
        return [migration.name for migration in pending]
    finally:
        if not connection.is_closed():
            await connection.execute("select pg_advisory_unlock($1)", _ADVISORY_LOCK)


async def check_current(connection: asyncpg.Connection, migrations: list[Migration]) -> None:
    """Raise MigrationError unless the schema is that of this version: neither older nor newer, nor edited."""
    if await connection.fetchval("select to_regclass('migration') is null"):
        raise MigrationError("the database has no ledger. Run `pos-server migrate` first")
    applied = {row["number"]: row for row in await connection.fetch("select * from migration order by number")}
    _check_history(applied, migrations)
    if len(applied) < len(migrations):
        raise MigrationError(
            f"the schema is at migration {max(applied, default=0)}, and this version needs {migrations[-1].number}. "
            "Run `pos-server migrate` first"
        )


async def schema_number(pool: asyncpg.Pool) -> int:
    """Return the number of the last applied migration; 0 if there is none or its table is not accessible."""
    try:
        number: int = await pool.fetchval("select coalesce(max(number), 0) from migration")
    except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError):
        return 0
    return number


def _check_history(applied: dict[int, asyncpg.Record], migrations: list[Migration]) -> None:
    known = {migration.number: migration for migration in migrations}
    for number, row in applied.items():
        if number not in known:
            raise MigrationError(
                f"the database has migration {row['name']}, which this version does not know. Use a newer version"
            )
        if known[number].checksum != row["checksum"]:
            raise MigrationError(
                f"migration {known[number].name} was changed after it was applied. Restore its file and add a new "
                "migration instead"
            )


async def _create_table(connection: asyncpg.Connection) -> None:
    try:
        await connection.execute(_CREATE_TABLE)
    except asyncpg.InsufficientPrivilegeError as error:
        raise _missing_privileges("the first migration", error) from error


async def _apply(connection: asyncpg.Connection, migration: Migration) -> None:
    try:
        async with connection.transaction():
            await connection.execute(migration.text)
            await connection.execute(
                "insert into migration (number, name, checksum) values ($1, $2, $3)",
                migration.number,
                migration.name,
                migration.checksum,
            )
    except asyncpg.InsufficientPrivilegeError as error:
        raise _missing_privileges(f"migration {migration.name}", error) from error
    except asyncpg.PostgresError as error:
        raise MigrationError(f"migration {migration.name} failed and was rolled back: {error}") from error


def _missing_privileges(migration: str, error: asyncpg.InsufficientPrivilegeError) -> MigrationError:
    return MigrationError(
        f"{migration} needs more privileges: {error}. Run `pos-server migrate` once as a database user that owns the "
        "database and may create roles."
    )
