"""A database is used only if its version is supported."""

import asyncpg
import pytest

from pos_server.ledger import database
from pos_server.ledger.database import SERVER_VERSION_MIN, DatabaseUnavailable, wait_until_available
from tests.shared import shared_database

pytestmark = pytest.mark.asyncio

dsn = shared_database()


async def test_an_older_postgres_is_refused_at_once(
    dsn: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are no programs of an unsupported version to run, so the tested version is made one."""
    version = connection.get_server_version().major
    assert version >= SERVER_VERSION_MIN
    monkeypatch.setattr(database, "SERVER_VERSION_MIN", version)
    await wait_until_available(dsn, attempts=1, timeout_s=10, pause_s=0)
    monkeypatch.setattr(database, "SERVER_VERSION_MIN", version + 1)
    with pytest.raises(DatabaseUnavailable, match=rf"it runs PostgreSQL {version}; {version + 1} or newer is required"):
        await wait_until_available(dsn, attempts=10, timeout_s=10, pause_s=60)
