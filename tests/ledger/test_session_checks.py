"""A session with a wrong setting is closed before anything uses it, and the error names the setting."""

from typing import Any, cast

import asyncpg
import pytest

from pos_server.ledger.database import connect, create_pool, is_available, wait_until_available
from pos_server.ledger.failures import Phase, WrongSession, classify
from pos_server.ledger.session_checks import check_session
from tests.proxy import proxied
from tests.shared import shared_database

pytestmark = pytest.mark.asyncio

dsn = shared_database()

RIGHT = {
    "current_user": "pos_app",
    "is_superuser": "off",
    "session_replication_role": "origin",
    "synchronous_commit": "on",
    "fsync": "on",
    "client_min_messages": "warning",
    "transaction_isolation": "read committed",
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
}
# Setting of the database, its wrong value, and the setting that the error names.
DEFAULTS = [
    ("session_replication_role", "replica", "session_replication_role"),
    ("synchronous_commit", "off", "synchronous_commit"),
    ("synchronous_commit", "local", "synchronous_commit"),
    ("default_transaction_isolation", "repeatable read", "transaction_isolation"),
    ("datestyle", "German, DMY", "DateStyle"),
    ("standard_conforming_strings", "off", "standard_conforming_strings"),
]


class FakeConnection:
    """A session with these settings."""

    def __init__(self, settings: dict[str, str]) -> None:
        self.settings = settings

    async def fetch(self, query: str, names: list[str]) -> list[dict[str, str]]:
        return [{"name": name, "value": self.settings[name]} for name in names]


def session(**changes: str) -> asyncpg.Connection:
    fake: Any = FakeConnection(RIGHT | changes)
    return cast("asyncpg.Connection", fake)


@pytest.mark.parametrize("name", RIGHT)
async def test_each_setting_is_checked(name: str) -> None:
    await check_session(session(), "pos_app")
    with pytest.raises(
        WrongSession, match=rf"^{name} is wrong in sessions of the database and must be {RIGHT[name]}, "
    ):
        await check_session(session(**{name: "wrong"}), "pos_app")


@pytest.mark.parametrize("value", ["remote_apply", "remote_write"])
async def test_commits_may_wait_for_more_or_less_of_the_standby(value: str) -> None:
    await check_session(session(synchronous_commit=value), "pos_app")


async def test_the_owner_may_have_any_name_and_right() -> None:
    await check_session(session(current_user="admin", is_superuser="on"), None)
    with pytest.raises(WrongSession):
        await check_session(session(fsync="off"), None)


@pytest.mark.parametrize("role", ["pos_app", None], ids=["server", "owner"])
@pytest.mark.parametrize(("name", "value", "named"), DEFAULTS)
async def test_defaults_of_the_database(
    dsn: str, admin: asyncpg.Connection, name: str, value: str, named: str, role: str
) -> None:
    """An administrator has changed a default. The statement of the test itself runs in an older session."""
    database = await admin.fetchval("select current_database()")
    await admin.execute(f"alter database {database} set {name} = '{value}'")
    try:
        with pytest.raises(WrongSession, match=f"^{named} is {value} in sessions"):
            await connect(dsn, timeout_s=10, role=role)
    finally:
        await admin.execute(f"alter database {database} reset {name}")
    await (await connect(dsn, timeout_s=10, role=role)).close()


async def test_a_pooler_that_drops_the_role(dsn: str) -> None:
    """Regression: the server ran as the owner, who can change and delete transfers."""
    async with proxied(dsn) as proxy:
        proxy.dropped = {"role"}
        text = (
            "current_user is pos in sessions of the database and must be pos_app, or stored transfers could be "
            "changed. Correct it in postgresql.conf, in `alter role`, in `alter database`, or in the pooler"
        )
        for opened in (connect(proxy.dsn, timeout_s=10), create_pool(proxy.dsn, timeout_s=10, size_max=1)):
            with pytest.raises(WrongSession) as raised:
                await opened
            assert str(raised.value) == text


async def test_a_pooler_that_drops_the_rest(dsn: str, admin: asyncpg.Connection) -> None:
    database = await admin.fetchval("select current_database()")
    await admin.execute(f"alter database {database} set timezone = 'Asia/Tokyo'")
    try:
        await (await connect(dsn, timeout_s=10)).close()
        async with proxied(dsn) as proxy:
            proxy.dropped = {"timezone"}
            with pytest.raises(
                WrongSession, match=r"^TimeZone is Asia/Tokyo in sessions of the database and must be UTC"
            ):
                await wait_until_available(proxy.dsn, attempts=10, timeout_s=10, pause_s=60)
    finally:
        await admin.execute(f"alter database {database} reset timezone")


async def test_a_pool_never_hands_out_a_wrong_session(dsn: str) -> None:
    async with proxied(dsn) as proxy:
        pool = await create_pool(proxy.dsn, timeout_s=10, size_max=1)
        try:
            proxy.dropped = {"role"}
            await pool.expire_connections()
            with pytest.raises(WrongSession):
                await pool.execute("delete from transfer")
            assert not await is_available(pool, timeout_s=10)
            proxy.dropped = set()
            assert await pool.fetchval("select current_user") == "pos_app"
        finally:
            pool.terminate()


async def test_the_error_means_that_nothing_was_sent() -> None:
    failure = classify(WrongSession("fsync", "off", "on", "money could be lost"), Phase.WRITE)
    assert (failure.answer, failure.keeps_connection, failure.is_alarming) == ("busy", False, True)
