"""Old payments move into files whole, what they were stays provable, and whatever is wrong is found and named."""

import asyncio
import gzip
import hashlib
import json
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
from pos_server.ledger.audit import AuditReport, audit
from pos_server.ledger.database import connect, create_pool
from pos_server.ledger.rollup import balances, roll_up
from pos_server.ledger.seals import SealReport, check_seals, seal_days
from pos_server.ledger.settlement import settle
from pos_server.ledger.shifts import close_shift, find_shift, open_shift
from pos_server.ledger.sql import QUERIES
from tests.end_to_end.server_process import pos_server
from tests.ledger.archived import BEFORE, NOW, age, archive_old, make_old
from tests.ledger.test_audit import sell
from tests.ledger.test_payments import run_batch
from tests.support import Shop, new_id

pytestmark = pytest.mark.asyncio


async def seals(admin: asyncpg.Connection, folder: Path | None = None) -> SealReport:
    return await check_seals(admin, lambda seal: None, None, folder)


async def findings(admin: asyncpg.Connection) -> dict[str, list[str]]:
    return {finding.check: finding.offenders for finding in (await audit(admin)).findings}


async def well(admin: asyncpg.Connection, folder: Path) -> AuditReport:
    """The audit, which finds nothing; nor do the seals, with the archive and without it."""
    report = await audit(admin)
    assert report.findings == []
    for place in (None, folder):
        assert (await seals(admin, place)).problems == []
    return report


def units(folder: Path, number: int = 1) -> list[dict[str, Any]]:
    """The lines of a part after its header."""
    return lines(folder, number)[1:]


def lines(folder: Path, number: int = 1) -> list[dict[str, Any]]:
    with gzip.open(folder / f"payments-{number:06}.jsonl.gz", "rt") as part:
        return [json.loads(line) for line in part]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(folder: Path, contents: list[dict[str, Any]]) -> None:
    """Put other lines into the first part."""
    with gzip.open(folder / "payments-000001.jsonl.gz", "wt") as part:
        part.writelines(json.dumps(line) + "\n" for line in contents)


async def every_kind(connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection) -> dict[str, str]:
    """An old payment of every kind, settled and sealed; their ids by name."""
    ids = await sell(connection, shop)
    await make_old(admin)
    return ids


async def test_units_leave_whole_and_everything_still_fits(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    ids = await every_kind(connection, shop, admin)
    await run_batch(connection, shop.scan(0, amount_minor=50))
    counts = "select (select count(*) from payment), (select count(*) from refund), (select count(*) from transfer)"
    payments, refunds, transfers = await admin.fetchrow(counts)
    before = await balances(admin)
    (part,) = await archive_old(admin, tmp_path)
    # What is pending stays, and what is young.
    assert part == Part("payments-000001.jsonl.gz", payments - 2, refunds, 2, transfers - 1)
    assert tuple(await admin.fetchrow(counts)) == (2, 0, 1)
    assert await balances(admin) == before
    report = await well(admin, tmp_path)
    assert (report.payments, report.transfers, report.archived_payments) == (2, 1, payments - 2)

    found = {line["payment"]["id"]: line for line in units(tmp_path) if "payment" in line}
    assert len(found) == part.payments
    refunded = found[ids["refunded"]]
    assert {refund["id"] for refund in refunded["refunds"]} == {ids["refund"], ids["other_refund"]}
    assert [transfer["kind"] for transfer in refunded["transfers"]] == ["payment", "refund", "refund"]
    kinds = [transfer["kind"] for transfer in found[ids["canceled_with_fee"]]["transfers"]]
    assert sorted(kinds) == ["cancel", "fee", "fee_return", "payment"]
    assert [line["transfers"][0]["kind"] for line in units(tmp_path) if "payment" not in line] == ["settlement"] * 2


async def test_a_line_holds_every_column_that_is_not_null(
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


async def test_parts_are_bounded_and_chained_and_a_second_run_has_nothing_left(
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
        assert lines(tmp_path, number)[0] == {
            "format": "pos-archive",
            "version": 1,
            "part": number,
            "before": f"{BEFORE}T00:00:00+00:00",
            "previous_sha256": previous,
        }
        previous = hashlib.sha256((tmp_path / part.file).read_bytes()).hexdigest()
    recorded = await admin.fetch("select number, file, encode(sha256, 'hex') as sha256 from archive_part order by 1")
    assert recorded[-1]["sha256"] == previous
    assert [row["file"] for row in recorded] == files(tmp_path)
    await well(admin, tmp_path)
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
    await well(admin, tmp_path)


async def test_the_books_go_on_after_an_archive(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    await every_kind(connection, shop, admin)
    await archive_old(admin, tmp_path)
    last = await admin.fetchval("select max(last_id) from seal")
    await run_batch(connection, shop.scan(0, amount_minor=70))
    assert await roll_up(admin) == await admin.fetchval("select max(id) from transfer")
    await well(admin, tmp_path)
    await admin.execute("update transfer set created_at = $2 where id > $1", last, NOW - timedelta(days=1))
    settled = await settle(admin, NOW.date() - timedelta(days=1), NOW)
    assert [statement.sales_minor for statement in settled.statements] == [70, 0]
    tomorrow = NOW + timedelta(days=1)
    await seal_days(admin, tomorrow, "UTC", lambda seal: None)
    report = await well(admin, tmp_path)
    assert report.transfers == 2
    assert (await seals(admin)).transfers > report.transfers


async def test_what_it_refuses_says_what_to_do(
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


async def test_two_at_once_move_everything_once(
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
    await well(admin, tmp_path)


async def test_a_payment_with_a_transfer_that_is_not_sealed_stays(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    """Clocks of servers differ: a transfer may be a moment younger than its payment's last change."""
    sale, other = shop.scan(0), shop.scan(1)
    await run_batch(connection, sale, other)
    await make_old(admin)
    of_sale = "update transfer set created_at = $2 where source_id = $1"
    await admin.execute(of_sale, sale.payment_id, datetime(BEFORE.year, BEFORE.month, BEFORE.day, tzinfo=UTC))
    (part,) = await archive_old(admin, tmp_path)
    assert part.payments == 4
    assert [row["id"] for row in await admin.fetch("select id from payment")] == [sale.payment_id]


async def test_a_line_is_what_was_sealed(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    """The digest of a line is that of the row, in the SQL function and in the code that reads the parts."""
    await every_kind(connection, shop, admin)
    digests = {row["id"]: row["digest"] for row in await admin.fetch(QUERIES["transfer_digests"], 0, 10**6, None)}
    await archive_old(admin, tmp_path)
    found = [unit.digests for unit in read_units(tmp_path / "payments-000001.jsonl.gz")]
    assert {number: digest for unit in found for number, digest in unit.items()} == digests


# Damage.


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (
            "update archived_balance set balance_minor = balance_minor + 1 where account_id = <account>",
            {"balances": ["<wallet_0>"], "sum_is_zero": ["EUR"]},
        ),
        (
            "update archived_balance set balance_minor = balance_minor - 1 where account_id = <merchant>",
            {"rollup": ["<merchant>"], "sum_is_zero": ["EUR"]},
        ),
        ("delete from archived_name where id = '<paid>'", {"archive": ["payments"]}),
        ("delete from archived_refund where id = '<refund>'", {"archive": ["refunds"]}),
        ("update archive_part set settlements = settlements - 1", {"archive": ["settlements"]}),
        (
            "insert into payment (id, merchant_id, amount_minor, currency, status, version, changed_at, reference) "
            "values ('<paid>', 1, 0, 'EUR', 'canceled', 1, now(), 'another')",
            {"archived_once": ["<paid>"]},
        ),
        (
            "insert into payment (id, merchant_id, amount_minor, currency, status, version, changed_at, reference) "
            "select gen_random_uuid(), merchant_id, 0, 'EUR', 'canceled', 1, now(), reference from archived_name "
            "where id = '<paid>'",
            {"archived_once": ["<paid>"]},
        ),
        (
            "insert into refund values ('<refund>', '<paid>', 1, null, <wallet_0>, 1, 'EUR', now())",
            {"archived_once": ["<refund>"], "refunds_paid": ["<refund>"], "refunds_within": ["<paid>"]},
        ),
        (
            "delete from transfer where kind = 'settlement' and created_at >= now() - interval '1 day'",
            {"balances": [], "rollup": ["<merchant>", "<house>"], "settlements": ["<statement>"]},
        ),
    ],
)
async def test_the_audit_finds_damage(
    damage: str,
    expected: dict[str, list[str]],
    connection: asyncpg.Connection,
    shop: Shop,
    admin: asyncpg.Connection,
    tmp_path: Path,
) -> None:
    ids = await every_kind(connection, shop, admin)
    await archive_old(admin, tmp_path)
    # A young settlement, which stays.
    await run_batch(connection, shop.scan(0, amount_minor=70))
    await admin.execute("update transfer set created_at = $1 where kind = 'payment'", NOW - timedelta(days=1))
    yesterday = NOW.date() - timedelta(days=1)
    await settle(admin, yesterday, NOW)
    await roll_up(admin)
    await well(admin, tmp_path)
    number = shop.wallets[0].device.number
    ids["account"] = str(await admin.fetchval("select account_id from wallet where number = $1", number))
    ids["merchant"] = str(await admin.fetchval("select account_id from merchant where id = $1", shop.merchant_id))
    ids["house"] = str(await admin.fetchval("select id from account where name = 'settlement'"))
    statement = "select id::text from settlement where business_date = $1 and paid_out_minor > 0"
    ids["statement"] = await admin.fetchval(statement, yesterday)

    def filled(text: str) -> str:
        for name, value in ids.items():
            text = text.replace(f"<{name}>", value)
        return text

    await admin.execute(filled(damage))
    assert await findings(admin) == {
        check: sorted(map(filled, offenders)) for check, offenders in expected.items() if offenders
    }


async def test_a_live_row_that_is_deleted_after_an_archive_is_named(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    await every_kind(connection, shop, admin)
    await archive_old(admin, tmp_path)
    await run_batch(connection, shop.scan(0, amount_minor=70))
    await seal_days(admin, NOW + timedelta(days=1), "UTC", lambda seal: None)
    archived = await admin.fetchval("select sum(transfers) from archive_part")
    lost = await admin.fetchval("delete from transfer where kind = 'payment' returning id")
    assert (await seals(admin)).problems == [
        f"{archived + 1} sealed transfers are missing from the ledger, but {archived} are archived. "
        "Run this with --archive DIR, the folder of the archive, to name them"
    ]
    assert (await seals(admin, tmp_path)).problems == [f"transfer {lost} was removed"]


CHANGED = "payments-000001.jsonl.gz was changed: its SHA-256 differs from the recorded one"


async def test_a_changed_line_is_named(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    ids = await every_kind(connection, shop, admin)
    await archive_old(admin, tmp_path)
    contents = lines(tmp_path)
    at = next(index for index, line in enumerate(contents[1:], 1) if line["payment"]["id"] == ids["paid"])
    transfer = contents[at]["transfers"][0]
    for name, value in (("amount_minor", 1), ("created_at", "2020-01-01T00:00:00+00:00"), ("wallet_number", 5)):
        changed = {**contents[at], "transfers": [{**transfer, name: value}]}
        write(tmp_path, [*contents[:at], changed, *contents[at + 1 :]])
        assert (await seals(admin, tmp_path)).problems == [CHANGED, f"transfer {transfer['id']} was changed"]
    write(tmp_path, [*contents[:at], *contents[at + 1 :]])
    assert (await seals(admin, tmp_path)).problems == [CHANGED, f"transfer {transfer['id']} was removed"]
    # Whoever changes what is recorded of the part too is found by the seals all the same.
    await admin.execute(
        "update archive_part set sha256 = $1",
        hashlib.sha256((tmp_path / "payments-000001.jsonl.gz").read_bytes()).digest(),
    )
    assert (await seals(admin, tmp_path)).problems == [f"transfer {transfer['id']} was removed"]
    assert (await audit(admin)).ok, "the audit needs no files"


@pytest.mark.parametrize("damage", ["gone", "cut off", "no part", "no header", "odd ids"])
async def test_a_part_that_cannot_be_read_is_named(
    damage: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    await every_kind(connection, shop, admin)
    await archive_old(admin, tmp_path)
    path = tmp_path / "payments-000001.jsonl.gz"
    if damage == "gone":
        path.unlink()
    elif damage == "cut off":
        path.write_bytes(path.read_bytes()[:-20])
    elif damage == "no part":
        path.write_bytes(b"something else")
    elif damage == "no header":
        write(tmp_path, units(tmp_path))
    else:
        write(tmp_path, [lines(tmp_path)[0], {"transfers": [{"id": 2**70}]}])
    problems = (await seals(admin, tmp_path)).problems
    wanted = f"payments-000001.jsonl.gz {'is missing in' if damage == 'gone' else 'cannot be read: '}"
    assert wanted in "\n".join(problems)
    assert [problem for problem in problems if problem.startswith("transfer ") and problem.endswith("was removed")]
    assert (await audit(admin)).ok


async def test_a_name_that_was_removed_is_named_from_the_parts(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    ids = await every_kind(connection, shop, admin)
    await archive_old(admin, tmp_path)
    await admin.execute("delete from archived_name where id = $1::text::uuid", ids["paid"])
    await admin.execute("delete from archived_refund where id = $1::text::uuid", ids["refund"])
    of_file = "in payments-000001.jsonl.gz is not recorded as archived"
    assert (await seals(admin, tmp_path)).problems == [
        f"payment {ids['paid']} {of_file}",
        f"refund {ids['refund']} {of_file}",
    ]


async def test_a_transfer_that_came_back_is_named(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    await every_kind(connection, shop, admin)
    await admin.execute("create table kept as select * from transfer order by id limit 1")
    await archive_old(admin, tmp_path)
    await admin.execute("alter table transfer alter id drop identity; insert into transfer select * from kept")
    number = await admin.fetchval("select id from kept")
    assert (await seals(admin, tmp_path)).problems == [f"transfer {number} is in the archive and in the ledger"]
    assert not (await seals(admin)).ok


# The command.


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


async def test_shifts_keep_their_figures_when_their_payments_have_gone(
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
        # Closed, and killed before it was summed up.
        assert await close_shift(pool, shift_id, till, None, now_ms()) is None
        await archive_old(admin, tmp_path)
        await well(admin, tmp_path)
        shift = await find_shift(pool, till, shift_id, now_ms())
    assert shift is not None
    assert shift.totals == {TotalKind.SALE: Total(2, 2_000)}
    assert await admin.fetchval("select count(*) from payment") == 0
