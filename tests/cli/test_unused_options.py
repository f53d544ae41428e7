"""Options without an effect are refused, and no command works on the schema of another version."""

from datetime import date
from pathlib import Path

import asyncpg
import pytest

from pos_server.cli.output_files import FolderUnusable, write_files
from pos_server.core.accounting.settlement import csv_text
from tests.end_to_end.server_process import pos_server

pytestmark = pytest.mark.asyncio


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
async def test_an_option_without_effect_is_refused(command: tuple[str, ...], named: str, tmp_path: Path) -> None:
    refused = await pos_server(*command, "--data-dir", tmp_path)
    assert (refused.status, refused.out, refused.err.count("\n")) == (2, "", 1), refused
    assert named in refused.err
    assert list(tmp_path.iterdir()) == [], "refused before a database is opened"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("insert into migration values (9999, '9999_newer.sql', '')", "which this version does not know"),
        ("delete from migration where number = (select max(number) from migration)", "Run `pos-server migrate` first"),
        ("drop table migration", "has no ledger. Run `pos-server migrate` first"),
    ],
)
async def test_the_audit_refuses_the_schema_of_another_version(
    change: str, expected: str, dsn: str, admin: asyncpg.Connection
) -> None:
    await admin.execute(change)
    refused = await pos_server("audit", POS_DATABASE_URL=dsn)
    assert (refused.status, refused.out) == (3, ""), refused
    assert expected in refused.err


async def test_a_settlement_file_of_another_ledger_stays(tmp_path: Path) -> None:
    day = date(2026, 11, 23).isoformat()
    name, content = f"settlement-{day}", csv_text(day, [])
    (tmp_path / f"{name}.json").write_text("of another ledger")
    with pytest.raises(FolderUnusable, match="exists with other content"):
        write_files(tmp_path, name, {"csv": content, "json": "{}"})
    assert [path.read_text() for path in tmp_path.iterdir()] == ["of another ledger"]
    (tmp_path / f"{name}.json").write_text("{}")
    assert write_files(tmp_path, name, {"csv": content, "json": "{}"}) == write_files(
        tmp_path, name, {"csv": content}
    ) + [tmp_path / f"{name}.json"]
