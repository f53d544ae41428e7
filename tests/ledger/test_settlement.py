"""Settlement of scripted days, compared with figures added up by hand."""

import csv
import io
import json
import re
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import asyncpg
import pytest

from pos_server.core.payments.fees import sale_fee
from pos_server.core.payments.operations import Cancel, CreateRefund
from pos_server.ledger import directory
from pos_server.ledger.audit import audit
from pos_server.ledger.database import connect
from pos_server.ledger.settlement import DayBeforeLedger, DayNotOver, settle
from tests.end_to_end.server_process import pos_server
from tests.ledger.aging import follow_transfers
from tests.ledger.test_payments import run_batch
from tests.support import EUR, Shop, new_id

pytestmark = pytest.mark.asyncio
NOW = datetime.now(UTC)
# These days have ended whenever and however long the tests run.
D2, D1 = NOW.date() - timedelta(days=3), NOW.date() - timedelta(days=2)


async def at(admin: asyncpg.Connection, when: datetime, after_id: int) -> int:
    """Set the time of the transfers after `after_id`, and of their payments; return the last id."""
    await admin.execute("update transfer set created_at = $1 where id > $2", when, after_id)
    await follow_transfers(admin)
    last_id: int = await admin.fetchval("select max(id) from transfer")
    return last_id


async def two_days(connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection) -> None:
    """Make three sales on D2, one of them canceled; a sale and a late refund on D1; a sale now. Fee 1.5% + 0.02."""
    await admin.execute("update merchant set fee_bps = 150, fee_fixed_minor = 2")
    last = await at(admin, datetime(D2.year, D2.month, D2.day, tzinfo=UTC) - timedelta(days=1), 0)
    sales = [shop.scan(wallet, amount_minor=amount) for wallet, amount in ((0, 1000), (1, 333), (2, 500))]
    terminal = shop.terminals[0].device.number
    await run_batch(connection, *sales)
    await run_batch(connection, Cancel(terminal, shop.merchant_id, EUR, sales[2].payment_id, None, new_id()))
    last = await at(admin, datetime(D2.year, D2.month, D2.day, 12, tzinfo=UTC), last)
    await run_batch(connection, shop.scan(0, amount_minor=777))
    await run_batch(connection, CreateRefund(new_id(), sales[0].payment_id, shop.merchant_id, terminal, 400))
    last = await at(admin, datetime(D1.year, D1.month, D1.day, 23, 59, 59, tzinfo=UTC), last)
    await run_batch(connection, shop.scan(1, amount_minor=50))


FEES_D2 = sale_fee(1000, 150, 2) + sale_fee(333, 150, 2) + sale_fee(500, 150, 2)
NET_D2 = 1000 + 333 + 500 - 500 - FEES_D2 + sale_fee(500, 150, 2)
NET_D1 = 777 - 400 - sale_fee(777, 150, 2) + sale_fee(1000, 150, 2) * 400 // 1000


async def test_two_scripted_days(connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection) -> None:
    await two_days(connection, shop, admin)
    settled = await settle(admin, D1, NOW)
    (statement,) = settled.statements
    assert (statement.opening_minor, statement.sales, statement.sales_minor) == (0, 1, 777)
    assert (statement.refunds, statement.refunds_minor, statement.cancels) == (1, 400, 0), "a late refund is of its day"
    assert (statement.net_minor, statement.paid_out_minor, statement.closing_minor) == (NET_D1, NET_D1, 0)
    (earlier,) = (await settle(admin, D2, NOW)).statements
    assert (earlier.sales, earlier.cancels_minor, earlier.fees_minor) == (3, 500, FEES_D2)
    assert (earlier.net_minor, earlier.paid_out_minor, earlier.closing_minor) == (NET_D2, NET_D2, 0)
    paid = "select sum(amount_minor) from transfer where kind = 'settlement'"
    assert await admin.fetchval(paid) == NET_D1 + NET_D2
    for day in (D1, D2):
        assert (await settle(admin, day, NOW)).created == 0, "safe to run twice"
    assert await admin.fetchval(paid) == NET_D1 + NET_D2
    report = await audit(admin)
    assert report.ok, report


async def test_a_negative_balance_is_carried_over(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection
) -> None:
    last = await at(admin, datetime(D2.year, D2.month, D2.day, tzinfo=UTC) - timedelta(days=1), 0)
    sale = shop.scan(0, amount_minor=1000)
    await run_batch(connection, sale)
    last = await at(admin, datetime(D2.year, D2.month, D2.day, 1, tzinfo=UTC), last)
    assert (await settle(admin, D2, NOW)).statements[0].paid_out_minor == 1000
    last = await admin.fetchval("select max(id) from transfer")
    await run_batch(connection, CreateRefund(new_id(), sale.payment_id, shop.merchant_id, None, 600))
    await at(admin, datetime(D1.year, D1.month, D1.day, 1, tzinfo=UTC), last)
    (statement,) = (await settle(admin, D1, NOW)).statements
    assert (statement.net_minor, statement.paid_out_minor, statement.closing_minor) == (-600, 0, -600)
    assert (await audit(admin)).ok


async def test_a_day_ends_at_the_merchants_cut_off_in_its_zone(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection
) -> None:
    await admin.execute("update merchant set time_zone = 'Asia/Shanghai', cut_off = '04:00'")
    last = await at(admin, datetime(D2.year, D2.month, D2.day, tzinfo=UTC) - timedelta(days=2), 0)
    # 04:00 in Shanghai is 20:00 UTC of the previous day.
    for wallet, (hour, minute) in enumerate(((19, 59), (20, 0))):
        await run_batch(connection, shop.scan(wallet, amount_minor=100 + wallet))
        last = await at(admin, datetime(D2.year, D2.month, D2.day, hour, minute, tzinfo=UTC), last)
    assert [s.sales_minor for s in (await settle(admin, D2, NOW)).statements] == [100]
    with pytest.raises(DayNotOver, match=r"has not ended for all merchants\. Settle it after"):
        await settle(admin, NOW.date() + timedelta(days=1), NOW)


async def test_a_killed_settlement_is_completed_by_the_next_run(
    dsn: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection
) -> None:
    await two_days(connection, shop, admin)
    await admin.execute(
        "create function die() returns trigger language plpgsql as $$ begin "
        "perform pg_terminate_backend(pg_backend_pid()); return new; end $$; "
        "create trigger die after insert on transfer for each row when (new.kind = 'settlement') execute function die()"
    )
    dying = await connect(dsn, timeout_s=10, role=None)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
        await settle(dying, D1, NOW)
    dying.terminate()
    assert await admin.fetchval("select count(*) from settlement") == 0
    await admin.execute("drop trigger die on transfer")
    assert [s.net_minor for s in (await settle(admin, D1, NOW)).statements] == [NET_D1]
    assert (await audit(admin)).ok


@pytest.mark.parametrize(
    ("damage", "check"),
    [
        (
            "update settlement set sales_minor = sales_minor + 1, net_minor = net_minor + 1, "
            "closing_minor = closing_minor + 1",
            "settlements",
        ),
        ("update settlement set opening_minor = 5, closing_minor = closing_minor + 5", "settlements"),
        ("delete from transfer where kind = 'settlement'", "settlements"),
        ("update transfer set amount_minor = 1 where kind = 'settlement'", "settlements"),
        ("update transfer set merchant_id = merchant_id + 1 where kind = 'settlement'", "settlements"),
        ("delete from settlement", "payouts"),
    ],
)
async def test_the_audit_detects_a_wrong_statement(
    damage: str, check: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection
) -> None:
    await two_days(connection, shop, admin)
    await settle(admin, D1, NOW)
    await admin.execute(damage)
    assert check in [finding.check for finding in (await audit(admin)).findings]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def test_the_command_and_its_files(
    dsn: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    await two_days(connection, shop, admin)
    first = await pos_server("settle", "--date", D1.isoformat(), "--out", tmp_path, POS_DATABASE_URL=dsn)
    assert first.status == 0, first.err
    assert "1 new statements" in first.out
    files = contents(tmp_path)
    assert set(files) == {f"settlement-{D1}.csv", f"settlement-{D1}.json"}
    rows = list(csv.reader(io.StringIO(files[f"settlement-{D1}.csv"].decode(), newline="")))
    names = rows[1][1:]
    assert [row[0] for row in rows] == ["H", "N", "S", "T", "C"]
    assert dict(zip(names, rows[2][1:], strict=True))["net_minor"] == str(NET_D1)
    before_control = files[f"settlement-{D1}.csv"].rpartition(b"C,")[0]
    assert rows[-1] == ["C", "1", sha256(before_control).hexdigest()]
    document = json.loads(files[f"settlement-{D1}.json"])
    assert document["totals"]["EUR"]["paid_out_minor"] == NET_D1
    canonical = {name: document[name] for name in ("statements", "totals")}
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert document["control"] == {"statements": 1, "sha256": sha256(text.encode()).hexdigest()}
    again = await pos_server("settle", "--date", D1.isoformat(), "--out", tmp_path, POS_DATABASE_URL=dsn)
    assert "0 new statements" in again.out
    assert contents(tmp_path) == files
    early = await pos_server(
        "settle", "--date", datetime.now(UTC).date().isoformat(), "--out", tmp_path, POS_DATABASE_URL=dsn
    )
    assert (early.status, "has not ended for all merchants" in early.err) == (3, True)


@pytest.mark.parametrize("folder", ["/dev/null", "/dev/null/below", "/proc/settlements", "broken link"])
async def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_settled(
    folder: str, dsn: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    if folder == "broken link":
        link = tmp_path / "link"
        link.symlink_to(tmp_path / "nowhere" / "deeper")
        folder = str(link)
    await two_days(connection, shop, admin)
    result = await pos_server("settle", "--date", D1.isoformat(), "--out", folder, POS_DATABASE_URL=dsn)
    assert result.status == 3
    assert re.fullmatch(rf"pos-server: cannot write to the folder {re.escape(folder)}: .+\n", result.err)
    assert await admin.fetchval("select count(*) from settlement") == 0


async def test_a_file_that_cannot_be_written_can_be_written_by_a_repeat(
    dsn: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    await two_days(connection, shop, admin)
    in_the_way = tmp_path / f"settlement-{D1}.json"
    in_the_way.mkdir()
    failed = await pos_server("settle", "--date", D1.isoformat(), "--out", tmp_path, POS_DATABASE_URL=dsn)
    assert (failed.status, failed.err.count("\n")) == (3, 1)
    assert "The day is settled: run the command again to write its files" in failed.err
    in_the_way.rmdir()
    again = await pos_server("settle", "--date", D1.isoformat(), "--out", tmp_path, POS_DATABASE_URL=dsn)
    assert again.status == 0
    assert in_the_way.is_file()


async def test_a_new_ledgers_first_night_is_no_error(
    dsn: str, connection: asyncpg.Connection, shop: Shop, tmp_path: Path
) -> None:
    await run_batch(connection, shop.scan(0, amount_minor=100))
    night = await pos_server("settle", "--out", tmp_path, POS_DATABASE_URL=dsn)
    assert (night.status, "nothing to settle" in night.err) == (0, True)
    typo = await pos_server("settle", "--date", "2006-11-30", "--out", tmp_path, POS_DATABASE_URL=dsn)
    assert (typo.status, "nothing to settle on 2006-11-30" in typo.err) == (3, True)


async def test_an_empty_day_has_empty_files(
    dsn: str, connection: asyncpg.Connection, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    result = await pos_server("settle", "--date", "2026-01-05", "--out", tmp_path, POS_DATABASE_URL=dsn)
    assert result.status == 0, result.err
    rows = list(csv.reader(io.StringIO((tmp_path / "settlement-2026-01-05.csv").read_text(), newline="")))
    assert [row[0] for row in rows] == ["H", "N", "C"]
    await directory.create_merchant(connection, "Quiet shop", EUR)
    assert (await settle(admin, date(2026, 1, 6), NOW)).statements == [], "its days begin with its first transfer"


async def test_a_quiet_day_has_a_statement(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection
) -> None:
    await run_batch(connection, shop.scan(0, amount_minor=100))
    await at(admin, datetime(D2.year, D2.month, D2.day, 12, tzinfo=UTC), 0)
    (statement,) = (await settle(admin, D1, NOW)).statements
    assert (statement.sales, statement.net_minor, statement.closing_minor) == (0, 0, 0)


async def test_a_move_of_the_days_end_pays_no_sale_twice(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection
) -> None:
    """Regression: from Honolulu at 23:00 to Kiritimati at 00:00, the next day ended before it started."""
    await admin.execute("update merchant set time_zone = 'Pacific/Honolulu', cut_off = '23:00'")
    await run_batch(connection, shop.scan(0, amount_minor=1000))
    start = datetime(D2.year, D2.month, D2.day, tzinfo=UTC) - timedelta(days=3)
    await at(admin, start, 0)
    await settle(admin, start.date() - timedelta(days=1), NOW)
    await admin.execute("update merchant set time_zone = 'Pacific/Kiritimati', cut_off = '00:00'")
    for day in range(3):
        await settle(admin, start.date() + timedelta(days=day), NOW)
    assert await admin.fetchval("select sum(paid_out_minor) from settlement") == 1000
    days = await admin.fetch("select starts_at, ends_at from settlement order by business_date")
    assert [day["ends_at"] for day in days[:-1]] == [day["starts_at"] for day in days[1:]]
    assert all(day["starts_at"] <= day["ends_at"] for day in days)
    with pytest.raises(asyncpg.CheckViolationError):
        await admin.execute("update settlement set ends_at = starts_at - interval '1 hour'")


async def test_a_first_transfer_in_a_skipped_hour_is_settled(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection
) -> None:
    """Regression: with the cut-off in the hour that daylight saving skips, the first sale belonged to no day."""
    await admin.execute("update merchant set time_zone = 'Europe/Berlin', cut_off = '02:30'")
    for minute in (0, 20, 40, 59):
        await run_batch(connection, shop.scan(0, amount_minor=100))
        # 2026-03-29: at 01:00 UTC the clocks go from 02:00 to 03:00
        await admin.execute(
            "update transfer set created_at = $1", datetime(2026, 3, 29, 1, minute, tzinfo=UTC) - timedelta(minutes=30)
        )
        await settle(admin, date(2026, 3, 30), NOW)
        assert await admin.fetchval("select sum(sales) from settlement") == 1
        await admin.execute("truncate settlement, transfer, payment")


async def test_a_day_before_the_ledger_is_refused_and_settles_nothing(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection
) -> None:
    """Regression: a mistyped year was taken, and the next run made 7,305 statements."""
    await two_days(connection, shop, admin)
    for _ in range(2):
        with pytest.raises(DayBeforeLedger, match="nothing to settle on 2006-11-30: the first business day is 20"):
            await settle(admin, date(2006, 11, 30), NOW)
        await settle(admin, D1, NOW)
    assert await admin.fetchval("select count(*) from settlement") == 2


async def test_a_new_merchant_changes_no_statements_of_earlier_days(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection
) -> None:
    await two_days(connection, shop, admin)
    before = await settle(admin, D1, NOW)
    await directory.create_merchant(connection, "Newcomer", EUR)
    assert (await settle(admin, D1, NOW)).statements == before.statements
    assert (await settle(admin, D2, NOW)).statements != []
