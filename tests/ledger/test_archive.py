"""The archive: old payments move into files completely, and the ledger stays provable without them."""

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from pos_server.clock import now_ms
from pos_server.core.accounting.shifts import Total, TotalKind
from pos_server.core.payments.operations import CreateRefund
from pos_server.ledger.archive import NotArchivable, Part
from pos_server.ledger.archive_file import read_units
from pos_server.ledger.database import connect, create_pool
from pos_server.ledger.rollup import balances, roll_up
from pos_server.ledger.seals import seal_days
from pos_server.ledger.settlement import settle
from pos_server.ledger.shifts import close_shift, find_shift, open_shift
from pos_server.ledger.sql import QUERIES
from tests.end_to_end.server_process import pos_server
from tests.ledger.aging import follow_transfers
from tests.ledger.archived import (
    BEFORE,
    NOW,
    age,
    archive_old,
    assert_sound,
    every_kind,
    files,
    lines,
    make_old,
    seal_report,
    units,
)
from tests.ledger.test_payments import run_batch
from tests.support import Shop, new_id

pytestmark = pytest.mark.asyncio


async def test_units_are_archived_completely(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    ids = await every_kind(connection, shop, admin)
    await run_batch(connection, shop.scan(0, amount_minor=50))
    counts = "select (select count(*) from payment), (select count(*) from refund), (select count(*) from transfer)"
    payments, refunds, transfers = await admin.fetchrow(counts)
    before = await balances(admin)
    (part,) = await archive_old(admin, tmp_path)
    # Pending and recent payments stay.
    assert part == Part("payments-000001.jsonl.gz", payments - 2, refunds, 2, transfers - 1)
    assert tuple(await admin.fetchrow(counts)) == (2, 0, 1)
    assert await balances(admin) == before
    report = await assert_sound(admin, tmp_path)
    assert (report.payments, report.transfers, report.archived_payments) == (2, 1, payments - 2)

    found = {line["payment"]["id"]: line for line in units(tmp_path) if "payment" in line}
    assert len(found) == part.payments
    refunded = found[ids["refunded"]]
    assert {refund["id"] for refund in refunded["refunds"]} == {ids["refund"], ids["other_refund"]}
    assert [transfer["kind"] for transfer in refunded["transfers"]] == ["payment", "refund", "refund"]
    kinds = [transfer["kind"] for transfer in found[ids["canceled_with_fee"]]["transfers"]]
    assert sorted(kinds) == ["cancel", "fee", "fee_return", "payment"]
    assert [line["transfers"][0]["kind"] for line in units(tmp_path) if "payment" not in line] == ["settlement"] * 2


async def test_a_line_contains_every_column_that_is_not_null(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    ids = await every_kind(connection, shop, admin)
    rows = {
        table: {str(row["id"]): dict(row) for row in await admin.fetch(f"select * from {table}")}
        for table in ("payment", "refund", "transfer")
    }
    await archive_old(admin, tmp_path)
    for line in units(tmp_path):
        written = [("payment", line["payment"])] if "payment" in line else []
        written += [("refund", row) for row in line.get("refunds", [])]
        written += [("transfer", row) for row in line["transfers"]]
        for table, row in written:
            stored = rows[table].pop(str(row["id"]))
            assert row == {name: as_json(value) for name, value in stored.items() if value is not None}
    assert set(rows["payment"]) == {ids["pending"]}
    assert not rows["refund"]
    assert not rows["transfer"]


def as_json(value: object) -> object:
    if isinstance(value, datetime):
        text = value.isoformat()
        return text if "." not in text else text.replace("+00:00", "").rstrip("0") + "+00:00"
    return value.hex() if isinstance(value, bytes) else value if isinstance(value, int) else str(value)


async def test_parts_are_bounded_and_chained(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    await every_kind(connection, shop, admin)
    total = await admin.fetchval("select count(*) from payment where status <> 'pending'")
    parts = await archive_old(admin, tmp_path, part_payments_max=4)
    assert sum(part.payments for part in parts) == total
    assert {part.payments + part.settlements for part in parts[:-1]} == {4}
    previous = None
    for number, part in enumerate(parts, 1):
        assert part.file == f"payments-{number:06}.jsonl.gz"
        header = lines(tmp_path, number)[0]
        assert header == {
            "format": "pos-archive",
            "version": 2,
            "ledger": str(await admin.fetchval("select id from ledger")),
            "part": number,
            "before": f"{BEFORE}T00:00:00+00:00",
            "previous_sha256": previous,
        }
        previous = hashlib.sha256((tmp_path / part.file).read_bytes()).hexdigest()
    recorded = await admin.fetch("select number, file, encode(sha256, 'hex') as sha256 from archive_part order by 1")
    assert recorded[-1]["sha256"] == previous
    assert [row["file"] for row in recorded] == files(tmp_path)
    await assert_sound(admin, tmp_path)
    assert await archive_old(admin, tmp_path) == []
    assert len(files(tmp_path)) == len(parts)


async def test_a_refund_may_have_the_id_of_its_payment(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    sale = shop.scan()
    await run_batch(connection, sale, CreateRefund(sale.payment_id, sale.payment_id, shop.merchant_id, None, 100))
    await make_old(admin)
    (part,) = await archive_old(admin, tmp_path)
    assert (part.payments, part.refunds) == (4, 1)
    await assert_sound(admin, tmp_path)


async def test_the_ledger_continues_after_an_archive(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    await every_kind(connection, shop, admin)
    await archive_old(admin, tmp_path)
    last = await admin.fetchval("select max(last_id) from seal")
    await run_batch(connection, shop.scan(0, amount_minor=70))
    assert await roll_up(admin) == await admin.fetchval("select max(id) from transfer")
    await assert_sound(admin, tmp_path)
    await admin.execute("update transfer set created_at = $2 where id > $1", last, NOW - timedelta(days=1))
    await follow_transfers(admin)
    settled = await settle(admin, NOW.date() - timedelta(days=1), NOW)
    assert [statement.sales_minor for statement in settled.statements] == [70, 0]
    tomorrow = NOW + timedelta(days=1)
    await seal_days(admin, tomorrow, "UTC", lambda seal: None)
    report = await assert_sound(admin, tmp_path)
    assert report.transfers == 2
    assert (await seal_report(admin)).transfers > report.transfers


async def test_refusals_say_what_to_do(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    await run_batch(connection, shop.scan())
    await age(admin, days=5)

    async def refusal(before: Any = BEFORE) -> str:
        with pytest.raises(NotArchivable) as refused:
            await archive_old(admin, tmp_path, before=before)
        return str(refused.value)

    young = BEFORE + timedelta(days=1)
    assert await refusal(young) == (
        f"payments before {young} are too recent to archive: they must be 2 days old (POS_ARCHIVE_MIN_AGE_DAYS). "
        f"Use --before {BEFORE} or an earlier day"
    )
    assert f"is not settled. Run `pos-server settle --date {BEFORE}`, then archive again" in await refusal()
    await settle(admin, BEFORE, NOW)
    assert (
        await refusal() == f"some transfers before {BEFORE} are not sealed. Run `pos-server seal`, then archive again"
    )
    await seal_days(admin, NOW, "UTC", lambda seal: None)
    (tmp_path / "file").touch()
    with pytest.raises(NotArchivable, match=r"cannot write .*Its payments remain in the ledger"):
        await archive_old(admin, tmp_path / "file")
    assert await admin.fetchval("select count(*) from archive_part") == 0
    (part,) = await archive_old(admin, tmp_path)
    assert (part.payments, part.settlements) == (4, 0)


async def test_the_server_may_not_archive(connection: asyncpg.Connection, shop: Shop) -> None:
    for table in ("archived_name", "archived_refund", "archive_part", "archived_balance"):
        await connection.fetch(f"select * from {table}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(f"delete from {table}")


async def test_concurrent_runs_archive_everything_once(
    dsn: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    await every_kind(connection, shop, admin)
    total = await admin.fetchval("select count(*) from payment where status <> 'pending'")
    other = await connect(dsn, timeout_s=10, role=None)
    try:
        runs = await asyncio.gather(*(archive_old(owner, tmp_path, part_payments_max=5) for owner in (admin, other)))
    finally:
        await other.close()
    assert sum(part.payments for parts in runs for part in parts) == total
    await assert_sound(admin, tmp_path)


async def test_a_payment_with_an_unsealed_transfer_stays(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    """Servers' clocks differ, so a transfer may be slightly younger than its payment's last change."""
    sale, other = shop.scan(0), shop.scan(1)
    await run_batch(connection, sale, other)
    await make_old(admin)
    of_sale = "update transfer set created_at = $2 where source_id = $1"
    await admin.execute(of_sale, sale.payment_id, datetime(BEFORE.year, BEFORE.month, BEFORE.day, tzinfo=UTC))
    (part,) = await archive_old(admin, tmp_path)
    assert part.payments == 4
    assert [row["id"] for row in await admin.fetch("select id from payment")] == [sale.payment_id]


async def test_the_digest_of_a_line_is_the_sealed_one(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    """The SQL function and the code that reads the parts compute the same digest for a row and its line."""
    await every_kind(connection, shop, admin)
    digests = {row["id"]: row["digest"] for row in await admin.fetch(QUERIES["transfer_digests"], 0, 10**6, None)}
    await archive_old(admin, tmp_path)
    found = [unit.digests for unit in read_units(tmp_path / "payments-000001.jsonl.gz")]
    assert {number: digest for unit in found for number, digest in unit.items()} == digests


async def test_the_command(
    dsn: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    await every_kind(connection, shop, admin)
    known = {"POS_DATABASE_URL": dsn, "POS_ARCHIVE_MIN_AGE_DAYS": "1.5", "POS_REFUND_WINDOW_DAYS": "1"}
    total = await admin.fetchval("select count(*) from payment where status <> 'pending'")
    archiving = ("archive", "--before", str(BEFORE), "--out", tmp_path)
    done = await pos_server(*archiving, POS_ARCHIVE_PART_PAYMENTS_MAX="10", **known)
    assert (done.status, done.out.splitlines()[-1].split(",")[0]) == (0, f"archived in 2 parts: {total} payments"), done
    assert f"wrote {tmp_path}/payments-000002.jsonl.gz: " in done.err
    again = await pos_server(*archiving, **known)
    assert again.out == "archived in 0 parts: 0 payments, 0 refunds, 0 transfers\n"
    checked = await pos_server("audit", "--seals", "--archive", tmp_path, POS_DATABASE_URL=dsn)
    assert (checked.status, "seals ok" in checked.out) == (0, True), checked
    assert f"(and {total} payments in the archive)" in checked.out
    (tmp_path / "payments-000001.jsonl.gz").unlink()
    bad = await pos_server("audit", "--seals", "--archive", tmp_path, POS_DATABASE_URL=dsn)
    assert (bad.status, "payments-000001.jsonl.gz is missing" in bad.out) == (1, True)
    early = await pos_server(*archiving, POS_DATABASE_URL=dsn)
    assert (early.status, "must be 400 days old" in early.err) == (3, True)


async def test_shifts_keep_their_totals_after_their_payments_are_archived(
    dsn: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    shift_id, till = new_id(), shop.terminals[0].device.number
    async with await create_pool(dsn, timeout_s=10, size_max=1) as pool:
        await open_shift(pool, shift_id, till, "Alice", 0, now_ms())
        await run_batch(connection, shop.scan(0), shop.scan(1))
        await admin.execute(
            "alter table shift disable trigger shift_is_fixed; "
            "update shift set opened_at = opened_at - interval '5 days'; "
            "alter table shift enable trigger shift_is_fixed"
        )
        await make_old(admin)
        with pytest.raises(NotArchivable, match=f"terminal {till} has a shift that was opened before"):
            await archive_old(admin, tmp_path)
        # As if the server was killed after the close, before the totals were stored.
        assert await close_shift(pool, shift_id, till, None, now_ms()) is None
        await archive_old(admin, tmp_path)
        await assert_sound(admin, tmp_path)
        shift = await find_shift(pool, till, shift_id, now_ms())
    assert shift is not None
    assert shift.totals == {TotalKind.SALE: Total(2, 2_000)}
    assert await admin.fetchval("select count(*) from payment") == 0
