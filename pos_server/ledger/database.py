"""Connections to Postgres: how they are opened, checked and pooled, and their role."""

import asyncio
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import asyncpg
from asyncpg.connection import LoggedQuery
from asyncpg.pool import PoolConnectionProxy

from ..core.errors import PosError
from .failures import DATABASE_ERRORS, NotConnected, Phase, WrongSession, classify
from .session_checks import APP_ROLE, check_session

# A dedicated connection, or one acquired from a pool.
AnyConnection = asyncpg.Connection | PoolConnectionProxy
SERVER_VERSION_MIN = 15


class DatabaseUnavailable(PosError):
    """The database was unavailable at start. The text says what to check and never contains the password."""

    def __init__(self, dsn: str, cause: str) -> None:
        super().__init__(dsn, cause)
        self.dsn = dsn
        self.cause = cause

    def __str__(self) -> str:
        return (
            f"cannot use the database at {describe_dsn(self.dsn)}: {self.cause}. "
            "Check that Postgres is running there and that POS_DATABASE_URL is correct."
        )


def describe_dsn(dsn: str) -> str:
    """Return the host, port and database of a DSN, without user and password."""
    try:
        parts = urlsplit(dsn)
        host, port = parts.hostname or "the local socket", parts.port
    except ValueError:
        return "the given address"
    return f"{host}{f':{port}' if port else ''}{parts.path}"


def libpq_environment(dsn: str) -> dict[str, str]:
    """Return the environment variables that let Postgres programs find the embedded database.

    Source: the PostgreSQL manual, libpq, "Environment Variables".
    """
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
    """Open a connection with the server's limited role; `role=None` keeps the DSN's own user, for operator commands.

    Raises WrongSession and asyncpg's errors.
    """
    async with asyncio.timeout(timeout_s):
        connection = await asyncpg.connect(dsn, server_settings=_settings(role))
        return await _checked(connection, role)


async def create_pool(dsn: str, *, timeout_s: float, size_max: int) -> asyncpg.Pool:
    """Open a pool for everything except the payment path, which has dedicated connections.

    Acquiring a connection raises WrongSession, and NotConnected if none can be opened. An error after which a
    connection must not be used further replaces all connections of the pool: after a failover, each of them leads to
    the standby.
    """

    async def watch_queries(connection: asyncpg.Connection) -> None:
        connection.add_query_logger(replace_connections)

    async def replace_connections(query: LoggedQuery) -> None:
        error = query.exception
        if isinstance(error, asyncpg.PostgresError) and not classify(error, Phase.READ).keeps_connection:
            await pool.expire_connections()

    pool = asyncpg.create_pool(
        dsn,
        min_size=1,
        max_size=size_max,
        timeout=timeout_s,
        command_timeout=timeout_s,
        server_settings=_settings(APP_ROLE),
        connect=_connect_for_pool,
        init=watch_queries,
    )
    await pool
    return pool


async def _connect_for_pool(*arguments: Any, **options: Any) -> asyncpg.Connection:
    try:
        return await _checked(await asyncpg.connect(*arguments, **options), APP_ROLE)
    except WrongSession:
        raise
    except DATABASE_ERRORS as error:
        raise NotConnected(str(error) or type(error).__name__) from error


async def _checked(connection: asyncpg.Connection, role: str | None) -> asyncpg.Connection:
    try:
        await check_session(connection, role)
    except BaseException:
        connection.terminate()
        raise
    return connection


async def is_available(pool: asyncpg.Pool, *, timeout_s: float) -> bool:
    """Return whether the database responds within this time, and accepts writes.

    The time includes the wait for a connection from the pool.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return not await is_read_only(pool)
    except DATABASE_ERRORS:
        return False


async def is_read_only(pool: asyncpg.Pool) -> bool:
    """Return whether the database rejects writes, as a standby does. Raises asyncpg's errors."""
    return bool(await pool.fetchval("select current_setting('transaction_read_only')::boolean"))


async def wait_until_available(dsn: str, *, attempts: int, timeout_s: float, pause_s: float) -> None:
    """Check that the database responds and is recent enough.

    Raises DatabaseUnavailable after all attempts, and WrongSession.
    """
    cause = "no attempt was made"
    for attempt in range(attempts):
        if attempt:
            await asyncio.sleep(pause_s)
        try:
            connection = await connect(dsn, timeout_s=timeout_s, role=None)
        except (asyncpg.InvalidPasswordError, asyncpg.InvalidCatalogNameError, ValueError) as error:
            raise DatabaseUnavailable(dsn, str(error)) from None
        except WrongSession:
            raise
        except DATABASE_ERRORS as error:
            cause = str(error) or type(error).__name__
            continue
        try:
            version = connection.get_server_version().major
        finally:
            await connection.close()
        if version < SERVER_VERSION_MIN:
            raise DatabaseUnavailable(dsn, f"it runs PostgreSQL {version}; {SERVER_VERSION_MIN} or newer is required")
        return
    raise DatabaseUnavailable(dsn, cause)


def _settings(role: str | None) -> dict[str, str]:
    # Statements are prepared once and reused. With custom plans, which Postgres may prefer while tables are small, each
    # batch would be planned again, which takes half of the time of a lone payment.
    settings = {"application_name": "pos-server", "timezone": "UTC", "plan_cache_mode": "force_generic_plan"}
    # A commit that did not wait for its standby is reported as a warning only: see durability.py.
    settings["client_min_messages"] = "warning"
    # Operator commands use one core, because parallel workers would compete with payments for all cores. They use
    # memory rather than temporary files, whose writes would delay the commits of payments.
    owner = {"max_parallel_workers_per_gather": "0", "work_mem": "64MB"}
    return {**settings, **owner} if role is None else {**settings, "role": role}
