"""Fixtures of all tests: a real Postgres, a database, a small shop with tills and wallets, a server.

Server code is imported where a fixture needs it, so that tests of pure rules start at once.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import asyncpg

    from pos_server.server import RunningServer
    from tests.support import Shop

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


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "postgres" in getattr(item, "fixturenames", ()):
            item.add_marker("postgres")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The DSN of an embedded Postgres, with a migrated database `pos_template` to clone."""
    from pos_server.postgres.embedded import EmbeddedPostgres
    from tests.databases import make_template
    from tests.support import open_directory

    data_dir = open_directory("pos-tests-")
    try:
        with EmbeddedPostgres(data_dir) as dsn:
            asyncio.run(make_template(dsn))
            yield dsn
    finally:
        shutil.rmtree(data_dir, ignore_errors=True)


@pytest_asyncio.fixture
async def empty_dsn(postgres: str) -> AsyncIterator[str]:
    """A database without a schema."""
    from tests.databases import database

    async with database(postgres, empty=True) as made:
        yield made


@pytest_asyncio.fixture
async def dsn(postgres: str) -> AsyncIterator[str]:
    """A migrated database of this test's own, unless its file shares one (tests/shared.py)."""
    from tests.databases import database

    async with database(postgres) as made:
        yield made


@pytest_asyncio.fixture
async def connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection under the server's role."""
    from pos_server.ledger.database import connect

    opened = await connect(dsn, timeout_s=10)
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def admin(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that may do anything, also what the server may not."""
    from pos_server.ledger.database import connect

    opened = await connect(dsn, timeout_s=10, role=None)
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def shop(connection: asyncpg.Connection) -> Shop:
    """One merchant with a store and two terminals; three wallets with 100.00 EUR and one device each."""
    from tests.support import build_shop

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
    from pos_server.server import serving
    from tests.support import KEYRING, settings

    async with serving(settings(revocation_check_s=0.2), KEYRING, dsn) as running:
        yield running
