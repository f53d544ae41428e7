"""Connections to Postgres: how they are opened, under which role, and what counts as the database being away."""

import asyncio
from urllib.parse import parse_qsl, urlsplit

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from ..core.errors import PosError

# A connection of one's own, or one that is borrowed from a pool.
AnyConnection = asyncpg.Connection | PoolConnectionProxy
APP_ROLE = "pos_app"
SERVER_VERSION_MIN = 15

# What says that a statement did not get an answer, or that none can be had now: try again, elsewhere or later.
DATABASE_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.exceptions.InsufficientResourcesError,
    asyncpg.exceptions.InvalidAuthorizationSpecificationError,
)


class DatabaseUnavailable(PosError):
    """The database could not be reached at start; the text says what to check. It never holds the password."""

    def __init__(self, dsn: str, cause: str) -> None:
        super().__init__(dsn, cause)
        self.dsn = dsn
        self.cause = cause

    def __str__(self) -> str:
        return (
            f"cannot use the database at {where(self.dsn)}: {self.cause}. "
            "Check that Postgres runs there and that POS_DATABASE_URL is right."
        )


def where(dsn: str) -> str:
    """Host, port and database of a DSN, without user and password."""
    try:
        parts = urlsplit(dsn)
        host, port = parts.hostname or "the local socket", parts.port
    except ValueError:
        return "the given address"
    return f"{host}{f':{port}' if port else ''}{parts.path}"


def libpq_environment(dsn: str) -> dict[str, str]:
    """The variables by which programs of Postgres find the embedded one's database (libpq, "Environment Variables")."""
    parts = urlsplit(dsn)
    options = dict(parse_qsl(parts.query))
    return {
        "PGHOST": options["host"],
        "PGPORT": options["port"],
        "PGUSER": parts.username or "",
        "PGDATABASE": parts.path.removeprefix("/"),
        "PGSSLMODE": options["sslmode"],
    }


async def connect(dsn: str, *, timeout_s: float, role: str | None = APP_ROLE) -> asyncpg.Connection:
    """One connection, with the server's limited role (None: the DSN's own user, for migrations and audits)."""
    return await asyncpg.connect(dsn, timeout=timeout_s, server_settings=_settings(role))


async def create_pool(dsn: str, *, timeout_s: float, size_max: int) -> asyncpg.Pool:
    """A pool for everything that is not the payment path, which has connections of its own."""
    return await asyncpg.create_pool(
        dsn,
        min_size=1,
        max_size=size_max,
        timeout=timeout_s,
        command_timeout=timeout_s,
        server_settings=_settings(APP_ROLE),
    )


async def answers(pool: asyncpg.Pool, *, timeout_s: float) -> bool:
    """Whether the database answers within this time, the wait for a connection of the pool included."""
    try:
        async with asyncio.timeout(timeout_s):
            await pool.execute("select 1")
    except DATABASE_AWAY:
        return False
    return True


async def wait_until_available(dsn: str, *, attempts: int, timeout_s: float, pause_s: float) -> None:
    """Check that the database answers and is recent enough; a few attempts, then DatabaseUnavailable."""
    cause = "no attempt was made"
    for attempt in range(attempts):
        if attempt:
            await asyncio.sleep(pause_s)
        try:
            connection = await connect(dsn, timeout_s=timeout_s, role=None)
        except (asyncpg.InvalidPasswordError, asyncpg.InvalidCatalogNameError, ValueError) as error:
            raise DatabaseUnavailable(dsn, str(error)) from None
        except DATABASE_AWAY as error:
            cause = str(error) or type(error).__name__
            continue
        try:
            version = connection.get_server_version().major
        finally:
            await connection.close()
        if version < SERVER_VERSION_MIN:
            raise DatabaseUnavailable(dsn, f"it is PostgreSQL {version}, and {SERVER_VERSION_MIN} or newer is needed")
        return
    raise DatabaseUnavailable(dsn, cause)


def _settings(role: str | None) -> dict[str, str]:
    # Statements are prepared once and run for ever: planning them anew for every batch, which Postgres may find cheaper
    # while tables are small, would cost half of a lone payment's time.
    settings = {"application_name": "pos-server", "timezone": "UTC", "plan_cache_mode": "force_generic_plan"}
    # What an operator runs takes one core, since parallel workers would take all of them from the payments meanwhile;
    # and memory rather than temporary files, whose writing payments' commits would wait for.
    owner = {"max_parallel_workers_per_gather": "0", "work_mem": "64MB"}
    return {**settings, **owner} if role is None else {**settings, "role": role}
