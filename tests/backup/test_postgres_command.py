"""`pos-server postgres`: a Postgres program on the embedded one, for any socket path and any user."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.end_to_end.server_process import data_directory, pos_server
from tests.support import MASTER_KEYS

pytestmark = [pytest.mark.asyncio, pytest.mark.long]


@pytest_asyncio.fixture
async def data_dir() -> AsyncIterator[Path]:
    """A data directory with a ledger in it, which nothing runs on."""
    async with data_directory() as directory:
        assert (await pos_server("migrate", "--data-dir", directory)).status == 0
        yield directory


async def psql(data_dir: Path, *arguments: str, **variables: str) -> tuple[int, str, str]:
    ended = await pos_server("postgres", "--data-dir", data_dir, "psql", "--no-psqlrc", "-At", *arguments, **variables)
    return ended.status, ended.out, ended.err


async def test_it_connects_to_the_ledger_whatever_the_shell_means(data_dir: Path) -> None:
    elsewhere = {"PGHOST": "db.invalid", "PGHOSTADDR": "192.0.2.1", "PGDATABASE": "other", "PGSERVICE": "other"}
    query = "select current_user, current_database(), count(*) > 0 from migration"
    assert await psql(data_dir, "-c", query, **elsewhere) == (0, "pos|pos|t\n", "")
    assert not (data_dir / "postgres" / "postmaster.pid").exists(), "it was started for this, and stopped"


async def test_the_program_gets_no_secret_of_ours(data_dir: Path) -> None:
    secret = {"POS_MASTER_KEYS": MASTER_KEYS, "EDITOR": "shown"}
    status, out, _ = await psql(data_dir, "-c", r"\! echo $EDITOR $POS_MASTER_KEYS", **secret)
    assert (status, out) == (0, "shown\n")


async def test_its_exit_status_is_that_of_the_program(data_dir: Path) -> None:
    status, out, err = await psql(data_dir, "-v", "ON_ERROR_STOP=1", "-f", "/nonexistent")
    assert (status, out) == (1, "")
    assert "/nonexistent" in err


async def test_what_is_not_there_is_a_clear_error_and_makes_nothing(data_dir: Path) -> None:
    async def refused(*arguments: str | Path, **variables: str) -> str:
        ended = await pos_server("postgres", *arguments, **variables)
        assert (ended.status, ended.out, ended.err.count("\n")) == (3, "", 1)
        return ended.err

    nowhere = data_dir / "nowhere"
    assert f"there is no ledger in {nowhere}" in await refused("--data-dir", nowhere, "psql")
    assert not nowhere.exists()
    assert f"{data_dir} already contains a ledger" in await refused("--new", "--data-dir", data_dir, "psql")
    assert "does not contain pg_nothing" in await refused("--data-dir", data_dir, "pg_nothing")
    assert "does not contain ../bin/psql" in await refused("--data-dir", data_dir, "../bin/psql")
    with_url = await refused("psql", POS_DATABASE_URL="postgresql://pos:hunter2@127.0.0.1/pos")
    assert 'psql --dbname="$POS_DATABASE_URL"' in with_url
    assert "hunter2" not in with_url
