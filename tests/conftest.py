"""What every test may use: a real Postgres, a database of its own, a small shop of shops and wallets, a server."""

import asyncio
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import hypothesis
import pytest
import pytest_asyncio

from pos_server.ledger.database import connect
from pos_server.ledger.migrate import load_migrations, migrate
from pos_server.postgres.embedded import EmbeddedPostgres
from pos_server.server import RunningServer, serving
from tests.support import KEYRING, Shop, build_shop, open_directory, settings

# How long an example takes says how busy the machine is, nothing else.
hypothesis.settings.register_profile("pos", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("pos")

# Of free memory, for the databases of all tests that run at a time.
_MEMORY_BYTES = 8 * 2**30


def _in_memory() -> str | None:
    """A directory in memory where there is plenty: to clone a database there takes a fifth of the time."""
    try:
        place = os.statvfs("/dev/shm")
    except OSError:
        return None
    plenty = place.f_bavail * place.f_frsize >= _MEMORY_BYTES and not place.f_flag & os.ST_NOEXEC
    return "/dev/shm" if plenty else None


# Of this process and all that it starts.
if "TMPDIR" not in os.environ and (directory := _in_memory()):
    os.environ["TMPDIR"] = tempfile.tempdir = directory

_numbers = itertools.count(1)


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "postgres" in getattr(item, "fixturenames", ()):
            item.add_marker("postgres")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The DSN of an embedded Postgres, with a migrated database `pos_template` to clone."""
    data_dir = open_directory("pos-tests-")
    try:
        with EmbeddedPostgres(data_dir) as dsn:
            asyncio.run(_make_template(dsn))
            yield dsn
    finally:
        shutil.rmtree(data_dir, ignore_errors=True)


async def _make_template(dsn: str) -> None:
    await _execute(dsn, "create database pos_template")
    connection = await connect(_dsn_of(dsn, "pos_template"), timeout_s=10, role=None)
    try:
        await migrate(connection, load_migrations())
    finally:
        await connection.close()


async def _execute(dsn: str, statement: str) -> None:
    connection = await connect(dsn, timeout_s=10, role=None)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _dsn_of(dsn: str, database: str) -> str:
    return dsn.replace("/pos?", f"/{database}?")


@pytest_asyncio.fixture
async def empty_dsn(postgres: str) -> AsyncIterator[str]:
    """A database without a schema."""
    name = f"pos_empty_{next(_numbers)}"
    await _execute(postgres, f"create database {name}")
    yield _dsn_of(postgres, name)
    await _execute(postgres, f"drop database {name} with (force)")


@pytest_asyncio.fixture
async def dsn(postgres: str) -> AsyncIterator[str]:
    """A migrated database of this test's own."""
    name = f"pos_test_{next(_numbers)}"
    await _execute(postgres, f"create database {name} template pos_template")
    yield _dsn_of(postgres, name)
    await _execute(postgres, f"drop database {name} with (force)")


@pytest_asyncio.fixture
async def connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection under the server's role."""
    opened = await connect(dsn, timeout_s=10)
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def admin(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that may do anything, also what the server may not."""
    opened = await connect(dsn, timeout_s=10, role=None)
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def shop(connection: asyncpg.Connection) -> Shop:
    """One merchant with a store and two terminals; three wallets with 100.00 EUR and one device each."""
    return await build_shop(connection)


@pytest_asyncio.fixture
async def _loop_errors() -> AsyncIterator[None]:
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
    yield
    assert not errors, f"unhandled in the event loop: {errors}"


@pytest.fixture(autouse=True)
def _loop_errors_fail(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("asyncio"):
        request.getfixturevalue("_loop_errors")


@pytest_asyncio.fixture
async def server(dsn: str) -> AsyncIterator[RunningServer]:
    """A real server on a free port, in this process."""
    async with serving(settings(revocation_check_s=0.2), KEYRING, dsn) as running:
        yield running
