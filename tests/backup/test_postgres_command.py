"""`pos-server postgres`: programs of Postgres, run on the embedded Postgres."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.end_to_end.server_process import data_directory, pos_server
from tests.support import MASTER_KEYS

pytestmark = [pytest.mark.asyncio, pytest.mark.long]


@pytest_asyncio.fixture
async def data_dir() -> AsyncIterator[Path]:
    """Yield a data directory with a ledger, without a running Postgres."""
    async with data_directory() as directory:
        assert (await pos_server("migrate", "--data-dir", directory)).status == 0
        yield directory


async def psql(data_dir: Path, *arguments: str, **variables: str) -> tuple[int, str, str]:
    result = await pos_server("postgres", "--data-dir", data_dir, "psql", "--no-psqlrc", "-At", *arguments, **variables)
    return result.status, result.out, result.err


async def test_variables_of_the_shell_do_not_select_another_database(data_dir: Path) -> None:
    other_database = {"PGHOST": "db.invalid", "PGHOSTADDR": "192.0.2.1", "PGDATABASE": "other", "PGSERVICE": "other"}
    query = "select current_user, current_database(), count(*) > 0 from migration"
    assert await psql(data_dir, "-c", query, **other_database) == (0, "pos|pos|t\n", "")
    assert not (data_dir / "postgres" / "postmaster.pid").exists(), "Postgres must be stopped after the command"


async def test_the_program_does_not_inherit_our_secrets(data_dir: Path) -> None:
    secret = {"POS_MASTER_KEYS": MASTER_KEYS, "EDITOR": "shown"}
    status, out, _ = await psql(data_dir, "-c", r"\! echo $EDITOR $POS_MASTER_KEYS", **secret)
    assert (status, out) == (0, "shown\n")


async def test_the_exit_status_is_that_of_the_program(data_dir: Path) -> None:
    status, out, err = await psql(data_dir, "-v", "ON_ERROR_STOP=1", "-f", "/nonexistent")
    assert (status, out) == (1, "")
    assert "/nonexistent" in err


async def test_errors_are_one_line_and_create_nothing(data_dir: Path) -> None:
    async def error(*arguments: str | Path, **variables: str) -> str:
        result = await pos_server("postgres", *arguments, **variables)
        assert (result.status, result.out, result.err.count("\n")) == (3, "", 1)
        return result.err

    nowhere = data_dir / "nowhere"
    assert f"there is no ledger in {nowhere}" in await error("--data-dir", nowhere, "psql")
    assert not nowhere.exists()
    assert f"{data_dir} already contains a ledger" in await error("--new", "--data-dir", data_dir, "psql")
    assert "does not contain pg_nothing" in await error("--data-dir", data_dir, "pg_nothing")
    assert "does not contain ../bin/psql" in await error("--data-dir", data_dir, "../bin/psql")
    with_url = await error("psql", POS_DATABASE_URL="postgresql://pos:hunter2@127.0.0.1/pos")
    assert 'psql --dbname="$POS_DATABASE_URL"' in with_url
    assert "hunter2" not in with_url
