"""A folder may hold files of another ledger, of a copy, or of an interrupted run: only the last are replaced."""

from pathlib import Path

import asyncpg
import pytest

from pos_server.ledger.archive import NotArchivable
from pos_server.ledger.audit import audit
from pos_server.ledger.database import connect
from tests.databases import database
from tests.end_to_end.server_process import pos_server
from tests.ledger.archived import BEFORE, archive_old, every_kind, lines, seal_report, write_part
from tests.support import Shop, build_shop

pytestmark = pytest.mark.asyncio


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def test_the_files_of_another_ledger_are_not_replaced(
    postgres: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    """Regression: the second ledger replaced the first one's file, whose payments were then nowhere."""
    await every_kind(connection, shop, admin)
    await archive_old(admin, tmp_path)
    before = contents(tmp_path)
    async with database(postgres) as other_dsn:
        other, other_app = await connect(other_dsn, timeout_s=10, role=None), await connect(other_dsn, timeout_s=10)
        try:
            await every_kind(other_app, await build_shop(other), other)
            payments = await other.fetchval("select count(*) from payment")
            with pytest.raises(
                NotArchivable, match=r"payments-000001.jsonl.gz exists, and this ledger has not written"
            ):
                await archive_old(other, tmp_path)
            assert await other.fetchval("select count(*) from payment") == payments
            assert (await audit(other)).ok
        finally:
            await other.close()
            await other_app.close()
    assert contents(tmp_path) == before


async def test_a_restored_copy_does_not_replace_the_files_of_the_original(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    await every_kind(connection, shop, admin)
    # As if restored from a backup that is older than the archive: the same ledger, which does not know the file.
    transaction = admin.transaction()
    await transaction.start()
    with pytest.raises(asyncpg.PostgresError):
        await archive_old(admin, tmp_path)  # its vacuum, after the part is recorded
    await transaction.rollback()
    assert await admin.fetchval("select count(*) from archive_part") == 0
    before = contents(tmp_path)
    assert list(before) == ["payments-000001.jsonl.gz"]
    with pytest.raises(NotArchivable, match="a copy of this one"):
        await archive_old(admin, tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("obstacle", ["text", "version 1", "folder", "broken link"])
async def test_anything_else_in_the_way_is_refused(
    obstacle: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    await every_kind(connection, shop, admin)
    path = tmp_path / "payments-000001.jsonl.gz"
    match obstacle:
        case "text":
            path.write_text("minutes of a meeting")
        case "version 1":
            write_part(tmp_path, [{"format": "pos-archive", "version": 1, "part": 1}])
        case "folder":
            path.mkdir()
        case _:
            path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(NotArchivable, match="exists, and this ledger has not written it"):
        await archive_old(admin, tmp_path)
    assert await admin.fetchval("select count(*) from archive_part") == 0


async def test_a_refusal_is_one_line(
    dsn: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    await every_kind(connection, shop, admin)
    (tmp_path / "payments-000001.jsonl.gz").write_text("x")
    limits = {"POS_ARCHIVE_MIN_AGE_DAYS": "2", "POS_REFUND_WINDOW_DAYS": "1", "POS_CANCEL_WINDOW_S": "60"}
    refused = await pos_server(
        "archive", "--before", BEFORE.isoformat(), "--out", tmp_path, POS_DATABASE_URL=dsn, **limits
    )
    assert (refused.status, refused.err.count("\n")) == (3, 1), refused.err


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (
            "update archived_balance b set balance_minor = balance_minor + case when account_id = w.low then 10000 "
            "else -10000 end from (select min(account_id) as low, max(account_id) as high from wallet) as w "
            "where account_id in (w.low, w.high)",
            "has an archived balance of",
        ),
        ("update archived_name set reference = null where status = 'approved'", "is recorded with another reference"),
        (
            "update archived_name set reference = 'x' || id where status = 'approved'",
            "is recorded with another reference",
        ),
        ("update archived_name set status = 'canceled' where status = 'approved'", "is recorded as canceled, not as"),
        ("update archived_name set merchant_id = merchant_id + 1", "is not recorded as archived"),
        ("update archived_refund set merchant_id = merchant_id + 1", "is not recorded as archived"),
        ("delete from archived_balance where account_id = (select min(account_id) from wallet)", "an archived balance"),
    ],
)
async def test_what_is_kept_of_archived_payments_is_compared_with_the_files(
    damage: str, problem: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    await every_kind(connection, shop, admin)
    await archive_old(admin, tmp_path)
    assert (await seal_report(admin, tmp_path)).problems == []
    await admin.execute(damage)
    assert any(problem in found for found in (await seal_report(admin, tmp_path)).problems)


async def test_a_file_of_another_ledger_is_named(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    await every_kind(connection, shop, admin)
    await archive_old(admin, tmp_path)
    header, *rest = lines(tmp_path)
    write_part(tmp_path, [{**header, "ledger": "00000000-0000-4000-8000-000000000000"}, *rest])
    assert "payments-000001.jsonl.gz belongs to another ledger" in (await seal_report(admin, tmp_path)).problems


@pytest.mark.parametrize("option", [("--expect", "00"), ("--archive", ".")])
async def test_a_check_that_was_asked_for_and_did_not_run_is_an_error(option: tuple[str, str], dsn: str) -> None:
    result = await pos_server("audit", *option, POS_DATABASE_URL=dsn)
    assert (result.status, result.err) == (3, f"pos-server: {option[0]} checks nothing without --seals. Add --seals\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("insert into migration (number, name, checksum) values (9999, '9999_newer.sql', 'x')", "Use a newer version"),
        ("delete from migration where number = (select max(number) from migration)", "pos-server migrate` first"),
    ],
)
async def test_the_audit_refuses_a_ledger_of_another_version(
    change: str, message: str, dsn: str, admin: asyncpg.Connection
) -> None:
    await admin.execute(change)
    result = await pos_server("audit", POS_DATABASE_URL=dsn)
    assert (result.status, result.out, message in result.err) == (3, "", True), result.err
