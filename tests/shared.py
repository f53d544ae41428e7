"""Fixtures that all tests of a file share, instead of a database and a server for each test.

Write `dsn = shared_database()` in the file and, for a server in this process, `server = shared_server()`. Its tests
then see each other's rows, so each creates its own shop (fixture `shop`) and reads only the rows of that shop.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from pos_server.server import RunningServer, serving
from tests.databases import database
from tests.support import KEYRING, settings


def shared_database() -> Any:
    """Return the fixture `dsn`: one migrated database for the tests of a file."""

    @pytest_asyncio.fixture(scope="module")
    async def dsn(postgres: str) -> AsyncIterator[str]:
        async with database(postgres) as created:
            yield created

    return dsn


def shared_server(**overrides: object) -> Any:
    """Return the fixture `server`: one server on `dsn` for the tests of a file, with these settings."""
    limits = settings(**({"revocation_check_s": 0.2} | overrides))

    @pytest_asyncio.fixture(scope="module")
    async def server(dsn: str) -> AsyncIterator[RunningServer]:
        async with serving(limits, KEYRING, dsn) as running:
            yield running

    return server
