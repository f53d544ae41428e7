"""The archive: damage to its files, its records or the ledger is detected and named."""

import hashlib
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from pos_server.ledger.audit import audit
from pos_server.ledger.rollup import roll_up
from pos_server.ledger.seals import seal_days
from pos_server.ledger.settlement import settle
from tests.ledger.aging import follow_transfers
from tests.ledger.archived import (
    NOW,
    archive_old,
    assert_sound,
    every_kind,
    findings,
    lines,
    seal_report,
    units,
    write_part,
)
from tests.ledger.test_payments import run_batch
from tests.support import Shop

pytestmark = pytest.mark.asyncio


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
async def test_the_audit_detects_damage(
    damage: str,
    expected: dict[str, list[str]],
    connection: asyncpg.Connection,
    shop: Shop,
    admin: asyncpg.Connection,
    tmp_path: Path,
) -> None:
    ids = await every_kind(connection, shop, admin)
    await archive_old(admin, tmp_path)
    # A recent settlement, which is not archived.
    await run_batch(connection, shop.scan(0, amount_minor=70))
    await admin.execute("update transfer set created_at = $1 where kind = 'payment'", NOW - timedelta(days=1))
    await follow_transfers(admin)
    yesterday = NOW.date() - timedelta(days=1)
    await settle(admin, yesterday, NOW)
    await roll_up(admin)
    await assert_sound(admin, tmp_path)
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


async def test_a_deleted_live_row_is_named(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    await every_kind(connection, shop, admin)
    await archive_old(admin, tmp_path)
    await run_batch(connection, shop.scan(0, amount_minor=70))
    await seal_days(admin, NOW + timedelta(days=1), "UTC", lambda seal: None)
    archived = await admin.fetchval("select sum(transfers) from archive_part")
    lost = await admin.fetchval("delete from transfer where kind = 'payment' returning id")
    assert (await seal_report(admin)).problems == [
        f"{archived + 1} sealed transfers are missing from the ledger, but {archived} are archived. "
        "Run this with --archive DIR, the folder of the archive, to name them"
    ]
    assert (await seal_report(admin, tmp_path)).problems == [f"transfer {lost} was removed"]


CHANGED = "payments-000001.jsonl.gz was changed: its SHA-256 differs from the recorded one"


async def seal_problems(admin: asyncpg.Connection, folder: Path) -> list[str]:
    """Return what hashes and seals show; test_archive_audit.py has what the contents show."""
    problems = (await seal_report(admin, folder)).problems
    return [problem for problem in problems if problem == CHANGED or problem.startswith("transfer ")]


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
        write_part(tmp_path, [*contents[:at], changed, *contents[at + 1 :]])
        assert await seal_problems(admin, tmp_path) == [CHANGED, f"transfer {transfer['id']} was changed"]
    write_part(tmp_path, [*contents[:at], *contents[at + 1 :]])
    assert await seal_problems(admin, tmp_path) == [CHANGED, f"transfer {transfer['id']} was removed"]
    # If the part's recorded hash is changed too, the seals still detect the change.
    await admin.execute(
        "update archive_part set sha256 = $1",
        hashlib.sha256((tmp_path / "payments-000001.jsonl.gz").read_bytes()).digest(),
    )
    assert await seal_problems(admin, tmp_path) == [f"transfer {transfer['id']} was removed"]
    assert (await audit(admin)).ok, "the audit needs no files"


@pytest.mark.parametrize("damage", ["gone", "cut off", "no part", "no header", "odd ids"])
async def test_an_unreadable_part_is_named(
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
        write_part(tmp_path, units(tmp_path))
    else:
        write_part(tmp_path, [lines(tmp_path)[0], {"transfers": [{"id": 2**70}]}])
    problems = (await seal_report(admin, tmp_path)).problems
    wanted = f"payments-000001.jsonl.gz {'is missing in' if damage == 'gone' else 'cannot be read: '}"
    assert wanted in "\n".join(problems)
    assert [problem for problem in problems if problem.startswith("transfer ") and problem.endswith("was removed")]
    assert (await audit(admin)).ok


async def test_a_removed_id_is_named_from_the_parts(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    ids = await every_kind(connection, shop, admin)
    await archive_old(admin, tmp_path)
    await admin.execute("delete from archived_name where id = $1::text::uuid", ids["paid"])
    await admin.execute("delete from archived_refund where id = $1::text::uuid", ids["refund"])
    of_file = "in payments-000001.jsonl.gz is not recorded as archived"
    assert (await seal_report(admin, tmp_path)).problems == [
        f"payment {ids['paid']} {of_file}",
        f"refund {ids['refund']} {of_file}",
    ]


async def test_a_restored_transfer_is_named(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    await every_kind(connection, shop, admin)
    await admin.execute("create table kept as select * from transfer order by id limit 1")
    await archive_old(admin, tmp_path)
    await admin.execute("alter table transfer alter id drop identity; insert into transfer select * from kept")
    number = await admin.fetchval("select id from kept")
    assert (await seal_report(admin, tmp_path)).problems == [f"transfer {number} is in the archive and in the ledger"]
    assert not (await seal_report(admin)).ok
