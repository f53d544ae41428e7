"""The archive's folder: a file of another ledger, or of a restored copy, is never replaced."""

import re
from pathlib import Path

import asyncpg
import pytest

from pos_server.ledger.archive import NotArchivable
from pos_server.ledger.sql import QUERIES
from tests.end_to_end.server_process import pos_server
from tests.ledger.archived import BEFORE, archive_old, assert_sound, every_kind, files, lines
from tests.support import Shop

pytestmark = pytest.mark.asyncio
FIRST = "payments-000001.jsonl.gz"


async def forget_archive(admin: asyncpg.Connection) -> None:
    """Restore the state of the ledger before its archive, as from a backup."""
    for table in ("payment", "refund", "transfer"):
        await admin.execute(
            f"insert into {table} overriding system value select * from kept_{table} on conflict do nothing"
        )
    await admin.execute(
        "delete from archive_part; delete from archived_name; delete from archived_refund; "
        "delete from archived_balance; update ledger set published_sha256 = null"
    )


async def keep_rows(admin: asyncpg.Connection) -> None:
    for table in ("payment", "refund", "transfer"):
        await admin.execute(f"create table kept_{table} as select * from {table}")


async def counts(admin: asyncpg.Connection) -> list[int]:
    return [await admin.fetchval(f"select count(*) from {table}") for table in ("payment", "refund", "transfer")]


@pytest.mark.parametrize("other", ["another ledger", "a restored copy", "not a part", "a link", "a folder", "empty"])
async def test_a_file_of_another_is_refused_before_anything_is_deleted(
    other: str, dsn: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    await every_kind(connection, shop, admin)
    path, expected = tmp_path / FIRST, "it is not an archive part"
    if other in ("another ledger", "a restored copy"):
        await keep_rows(admin)
        await archive_old(admin, tmp_path, part_payments_max=3)
        for later in files(tmp_path)[1:]:
            (tmp_path / later).unlink()
        await forget_archive(admin)
        expected = "it belongs to a copy of this one"
        if other == "another ledger":
            first = await admin.fetchval("select id from ledger")
            await admin.execute("update ledger set id = gen_random_uuid()")
            expected = f"it belongs to another ledger ({first})"
    elif other == "a link":
        path.symlink_to(tmp_path / "elsewhere")
        expected = "it is not a regular file"
    elif other == "a folder":
        path.mkdir()
        expected = "it is not a regular file"
    else:
        path.write_bytes(b"" if other == "empty" else b"something else")
    before, content = await counts(admin), path.read_bytes() if path.is_file() else None
    with pytest.raises(NotArchivable, match=re.escape(expected)):
        await archive_old(admin, tmp_path)
    archiving = ("archive", "--before", str(BEFORE), "--out", tmp_path)
    refused = await pos_server(
        *archiving, POS_DATABASE_URL=dsn, POS_ARCHIVE_MIN_AGE_DAYS="1.5", POS_REFUND_WINDOW_DAYS="1"
    )
    assert (refused.status, refused.err.count("\n")) == (3, 1), refused
    assert expected in refused.err
    assert await counts(admin) == before
    assert files(tmp_path) == [FIRST]
    assert (path.read_bytes() if path.is_file() else None) == content
    await archive_old(admin, tmp_path / "own")
    await assert_sound(admin, tmp_path / "own")


async def test_an_unrecorded_file_of_this_ledger_is_set_aside(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    """A run was killed before the commit, and the next one makes smaller parts."""
    await every_kind(connection, shop, admin)
    await admin.execute(
        "create function fail() returns trigger language plpgsql as $$ begin raise 'killed'; end $$; "
        "create trigger fail before insert on archive_part for each row execute function fail()"
    )
    with pytest.raises(asyncpg.RaiseError):
        await archive_old(admin, tmp_path)
    unrecorded = (tmp_path / FIRST).read_bytes()
    (tmp_path / f"{FIRST}.0a0a0a0a.partial").write_bytes(b"left from a killed run")
    await admin.execute("drop trigger fail on archive_part")
    await archive_old(admin, tmp_path, part_payments_max=4)
    aside = [name for name in files(tmp_path) if name.endswith(".unrecorded")]
    assert [(tmp_path / name).read_bytes() for name in aside] == [unrecorded]
    assert not [name for name in files(tmp_path) if name.endswith(".partial")]
    await assert_sound(admin, tmp_path)


async def test_the_header_names_the_ledger(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    await every_kind(connection, shop, admin)
    await archive_old(admin, tmp_path)
    ledger = await admin.fetchrow(QUERIES["ledger_identity"])
    assert ledger is not None
    assert lines(tmp_path)[0]["ledger"] == str(ledger["id"])
