"""Access to the ledger for commands: the database, a connection as its owner, and an event loop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import asyncpg
import uvloop

from ..ledger.collations import collation_notice
from ..ledger.database import connect, wait_until_available
from ..ledger.migrate import check_current, load_migrations, migrate
from ..postgres.embedded import EmbeddedPostgres, EmbeddedPostgresError, default_data_dir, lower_priority
from ..settings import Settings
from .console import say

Result = TypeVar("Result")


class Database(NamedTuple):
    """A database for a command. `data_dir` and `postgres` are None if POS_DATABASE_URL selects it."""

    dsn: str
    data_dir: Path | None
    postgres: EmbeddedPostgres | None


@contextmanager
def database(settings: Settings, app: str, *, must_exist: bool = False) -> Iterator[Database]:
    """Yield the database of POS_DATABASE_URL, or an embedded Postgres that runs until the block ends.

    Raises EmbeddedPostgresError, also if `must_exist` is set and the directory contains no ledger.
    """
    if settings.database_url is not None:
        yield Database(settings.database_url.get_secret_value(), None, None)
        return
    data_dir = settings.data_dir or default_data_dir(app)
    if must_exist and not (data_dir / "postgres").is_dir():
        raise EmbeddedPostgresError(
            f"there is no ledger in {data_dir}. Name its directory with --data-dir, or set POS_DATABASE_URL"
        )
    postgres = EmbeddedPostgres(data_dir, bin_dir=settings.postgres_bin_dir, say=say)
    with postgres as dsn:
        yield Database(dsn, data_dir, postgres)


async def prepare(dsn: str, settings: Settings) -> list[str]:
    """Wait for the database and migrate its schema. Returns the names of the applied migrations."""
    await wait_until_available(
        dsn,
        attempts=settings.database_start_attempts,
        timeout_s=settings.database_connect_timeout_s,
        pause_s=settings.database_start_pause_s,
    )
    connection = await connect(dsn, timeout_s=settings.database_connect_timeout_s, role=None)
    try:
        applied = await migrate(connection, load_migrations())
        if notice := await collation_notice(connection):
            say(notice)
        return applied
    finally:
        await connection.close()


@asynccontextmanager
async def owner(dsn: str, settings: Settings, data_dir: Path | None) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection as the ledger's owner. In an embedded Postgres it has a lower priority than payments.

    Raises MigrationError if the schema is not that of this version.
    """
    connection = await connect(dsn, timeout_s=settings.database_connect_timeout_s, role=None)
    try:
        await check_current(connection, load_migrations())
        if data_dir is not None:
            lower_priority(connection.get_server_pid())
        yield connection
    finally:
        await connection.close()


def on_ledger(settings: Settings, work: Callable[[asyncpg.Connection], Coroutine[Any, Any, str]]) -> str:
    """Run `work` on the existing ledger as its owner. Returns the text to print."""
    with database(settings, "pos-server", must_exist=True) as (dsn, data_dir, _):

        async def run() -> str:
            await prepare(dsn, settings)
            async with owner(dsn, settings, data_dir) as connection:
                return await work(connection)

        return run_loop(run())


def run_loop(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine on uvloop and return its result."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
