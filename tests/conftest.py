"""Fixtures of all tests: a real Postgres, a database, a small shop with tills and wallets, a server.

Fixtures import server code themselves, so that tests of pure rules start quickly.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import pytest_asyncio

from tests.tested_postgres import BIN_DIR

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import asyncpg

    from pos_server.server import RunningServer
    from tests.support import Shop

# The duration of an example depends on the load of the machine, so it must not fail a test.
hypothesis.settings.register_profile("pos", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("pos")

# Free memory required for the databases of all concurrent tests.
_MEMORY_BYTES = 8 * 2**30
_TESTS = Path(__file__).parent
# Their tests kill, restart and run whole programs.
_WAITING = {"backup", "cli", "docker", "docs", "end_to_end", "faults", "model"}


def _in_memory() -> str | None:
    """Return a directory in memory if there is enough of it. Cloning a database there takes a fifth of the time."""
    try:
        status = os.statvfs("/dev/shm")
    except OSError:
        return None
    is_enough = status.f_bavail * status.f_frsize >= _MEMORY_BYTES and not status.f_flag & os.ST_NOEXEC
    return "/dev/shm" if is_enough else None


# For this process and its child processes.
if "TMPDIR" not in os.environ and (directory := _in_memory()):
    os.environ["TMPDIR"] = tempfile.tempdir = directory


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "postgres" in getattr(item, "fixturenames", ()):
            item.add_marker("postgres")
    # Every second file is one whose tests wait much, until none is left, so that no worker ends with those alone.
    files = list(dict.fromkeys(item.path for item in items))
    waiting = [path for path in files if path.relative_to(_TESTS).parts[0] in _WAITING]
    order = {path: 2 * index for index, path in enumerate(waiting)}
    order |= {path: 2 * index + 1 for index, path in enumerate(path for path in files if path not in order)}
    items.sort(key=lambda item: order[item.path])


def pytest_report_header() -> str:
    from pos_server.postgres.binaries import find_program
    from pos_server.postgres.os_user import EmbeddedPostgresError

    try:
        program = find_program("postgres", BIN_DIR)
    except EmbeddedPostgresError as error:
        return str(error)
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    return f"{version}, in {program.parent}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Yield the DSN of an embedded Postgres with a migrated database `pos_template` to clone."""
    from pos_server.postgres.embedded import EmbeddedPostgres
    from tests.databases import make_template
    from tests.support import open_directory

    data_dir = open_directory("pos-tests-")
    try:
        with EmbeddedPostgres(data_dir, bin_dir=BIN_DIR) as dsn:
            asyncio.run(make_template(dsn))
            yield dsn
    finally:
        shutil.rmtree(data_dir, ignore_errors=True)


@pytest_asyncio.fixture
async def empty_dsn(postgres: str) -> AsyncIterator[str]:
    """Yield the DSN of a database without a schema."""
    from tests.databases import database

    async with database(postgres, empty=True) as created:
        yield created


@pytest_asyncio.fixture
async def dsn(postgres: str) -> AsyncIterator[str]:
    """Yield the DSN of a migrated database for one test. Files can share one instead (tests/shared.py)."""
    from tests.databases import database

    async with database(postgres) as created:
        yield created


@pytest_asyncio.fixture
async def connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection under the server's role."""
    from pos_server.ledger.database import connect

    opened = await connect(dsn, timeout_s=10)
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def admin(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection as the owner, with rights that the server lacks."""
    from pos_server.ledger.database import connect

    opened = await connect(dsn, timeout_s=10, role=None)
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def shop(connection: asyncpg.Connection) -> Shop:
    """Create a merchant with a store and two terminals, and three wallets with 100.00 EUR and one device each."""
    from tests.support import build_shop

    return await build_shop(connection)


@pytest_asyncio.fixture
async def _loop_errors() -> AsyncIterator[None]:
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
    yield
    assert not errors, f"unhandled errors in the event loop: {errors}"


@pytest.fixture(autouse=True)
def _loop_errors_fail(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("asyncio"):
        request.getfixturevalue("_loop_errors")


@pytest_asyncio.fixture
async def server(dsn: str) -> AsyncIterator[RunningServer]:
    """Yield a real server on a free port, in this process."""
    from pos_server.server import serving
    from tests.support import KEYRING, settings

    async with serving(settings(revocation_check_s=0.2), KEYRING, dsn) as running:
        yield running
