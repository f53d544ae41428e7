"""Options without an effect are refused, and no command works on the schema of another version."""

from pathlib import Path

import asyncpg
import pytest

from pos_server.cli.command import EXIT_USAGE
from tests.cli.conftest import RunHere
from tests.end_to_end.server_process import pos_server
from tests.ledger.archived import files


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (("audit", "--expect", "00"), "--expect"),
        (("audit", "--archive", "somewhere"), "--archive"),
        (("audit", "--json", "--expect", ""), "--expect"),
        (("keys", "list", "--role", "admin"), "--role"),
        (("keys", "list", "7"), "an id"),
        (("keys", "revoke", "7", "--merchant", "1"), "--merchant"),
        (("keys", "revoke", "7", "--name", "till"), "--name"),
        (("keys", "create", "7", "--role", "admin"), "an id"),
    ],
)
def test_an_option_without_effect_is_refused(
    command: tuple[str, ...], named: str, tmp_path: Path, run_here: RunHere
) -> None:
    refused = run_here(*command, "--data-dir", tmp_path)
    assert (refused.status, refused.out, refused.err.count("\n")) == (EXIT_USAGE, "", 1), refused
    assert named in refused.err
    assert files(tmp_path) == [], "refused before a database is opened"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("insert into migration values (9999, '9999_newer.sql', '')", "which this version does not know"),
        ("delete from migration where number = (select max(number) from migration)", "pos-server migrate` first"),
        ("drop table migration", "the database has no ledger. Run `"),
    ],
)
@pytest.mark.asyncio
async def test_the_audit_refuses_the_schema_of_another_version(
    change: str, expected: str, dsn: str, admin: asyncpg.Connection
) -> None:
    await admin.execute(change)
    refused = await pos_server("audit", POS_DATABASE_URL=dsn)
    assert (refused.status, refused.out) == (3, ""), refused
    assert expected in refused.err


@pytest.mark.asyncio
async def test_a_data_directory_beside_a_database_url_is_refused(dsn: str, tmp_path: Path) -> None:
    """The audit of a restored copy must not check the original instead."""
    refused = await pos_server("audit", "--data-dir", tmp_path, POS_DATABASE_URL=dsn)
    assert (refused.status, refused.out) == (2, ""), refused
    assert "--data-dir has no effect" in refused.err
