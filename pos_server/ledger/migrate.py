"""Plain SQL migrations: applied in order, each in a transaction of its own, recorded with a checksum.

Safe when several servers start at once: an advisory lock lets one of them work while the others wait.
"""

import re
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files

import asyncpg

from ..core.errors import PosError

# Any constant will do, as long as nothing else in the database uses it: the ASCII of "pos-migr".
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
    """The database's history does not fit this version of the program; the text says which migration and why."""


@dataclass(frozen=True, slots=True, order=True)
class Migration:
    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return sha256(self.text.encode()).hexdigest()


def load_migrations() -> list[Migration]:
    """The migrations that ship with this version, in order, numbered from 1 without a gap."""
    found = sorted(
        (Migration(int(match[1]), entry.name, entry.read_text("utf-8")))
        for entry in (files(__package__) / "migrations").iterdir()
        if (match := _FILE_NAME.fullmatch(entry.name))
    )
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise MigrationError("the migration files are not numbered 1, 2, 3 … without a gap")
    return found


async def migrate(connection: asyncpg.Connection, migrations: list[Migration]) -> list[str]:
    """Bring the database up to date; returns the names of what was applied.

    Raises MigrationError when an applied migration has been edited since, or when the database is newer than this
    program. Everything applied so far stays, the failing one leaves nothing. Where nothing is to be done, a member of
    pos_app may look.
    """
    await connection.execute("select pg_advisory_lock($1)", _ADVISORY_LOCK)
    try:
        # Not `create table if not exists` alone: it wants the right to create also where the table is there.
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


async def schema_number(pool: asyncpg.Pool) -> int:
    """The number of the last migration that was applied; 0 for a database that has none, or does not show it."""
    try:
        number: int = await pool.fetchval("select coalesce(max(number), 0) from migration")
    except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError):
        return 0
    return number


def _check_history(applied: dict[int, asyncpg.Record], migrations: list[Migration]) -> None:
    known = {migration.number: migration for migration in migrations}
    for number, row in applied.items():
        if number not in known:
            raise MigrationError(f"the database has migration {row['name']}, which this version lacks: use a newer one")
        if known[number].checksum != row["checksum"]:
            raise MigrationError(
                f"migration {known[number].name} was changed after it was applied: restore it and add a new one"
            )


async def _create_table(connection: asyncpg.Connection) -> None:
    try:
        await connection.execute(_CREATE_TABLE)
    except asyncpg.InsufficientPrivilegeError as error:
        raise _needs_more_rights("the first one", error) from error


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
        raise _needs_more_rights(migration.name, error) from error
    except asyncpg.PostgresError as error:
        raise MigrationError(f"migration {migration.name} failed and left nothing: {error}") from error


def _needs_more_rights(name: str, error: asyncpg.InsufficientPrivilegeError) -> MigrationError:
    return MigrationError(
        f"migration {name} needs more rights: {error}. Run `pos-server migrate` once as a database user that owns the "
        "database and may create roles."
    )
