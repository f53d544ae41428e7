"""Fixtures that all tests of a file share, where a test would otherwise get a database and a server of its own.

In the file: `dsn = shared_database()` and, for a server in this process, `server = shared_server()`. Its tests then
find each other's rows: they make a shop of their own (the fixture `shop` does) and look at its rows only.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from pos_server.server import RunningServer, serving
from tests.databases import database
from tests.support import KEYRING, settings


def shared_database() -> Any:
    """The fixture `dsn`: one migrated database for the tests of a file."""

    @pytest_asyncio.fixture(scope="module")
    async def dsn(postgres: str) -> AsyncIterator[str]:
        async with database(postgres) as made:
            yield made

    return dsn


def shared_server(**overrides: object) -> Any:
    """The fixture `server`: one server on `dsn` for the tests of a file, with these settings."""
    limits = settings(**({"revocation_check_s": 0.2} | overrides))

    @pytest_asyncio.fixture(scope="module")
    async def server(dsn: str) -> AsyncIterator[RunningServer]:
        async with serving(limits, KEYRING, dsn) as running:
            yield running

    return server
