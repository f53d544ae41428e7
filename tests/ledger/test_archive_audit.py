"""The content of the archive's files is compared with what the ledger keeps of it; each difference is named."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.ledger.archived import archive_old, assert_sound, every_kind, lines, seal_report, write_part
from tests.support import Shop

pytestmark = pytest.mark.asyncio
FIRST = "payments-000001.jsonl.gz"


async def damaged(admin: asyncpg.Connection, folder: Path, contents: list[dict[str, Any]]) -> list[str]:
    """Write a changed first part, record its hash as an intruder would, and return the problems found."""
    write_part(folder, contents)
    digest = hashlib.sha256((folder / FIRST).read_bytes()).digest()
    await admin.execute("update archive_part set sha256 = $1 where number = 1", digest)
    return (await seal_report(admin, folder)).problems


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (
            "update archived_balance set balance_minor = balance_minor + case account_id "
            "when <account> then 500 else -500 end where account_id in (<account>, <other_account>); "
            "update wallet set balance_minor = balance_minor + case account_id "
            "when <account> then 500 else -500 end where account_id in (<account>, <other_account>)",
            ["account <account> has an archived balance of ", "account <other_account> has an archived balance of "],
        ),
        (
            "delete from archived_balance where account_id = <account>",
            ["account <account> has an archived balance of 0; the parts sum to "],
        ),
        (
            "update archived_name set reference = null where id = '<paid>'",
            [f"payment <paid> in {FIRST} is recorded with another reference"],
        ),
        (
            "update archived_name set reference = 'other' where id = '<paid>'",
            [f"payment <paid> in {FIRST} is recorded with another reference"],
        ),
        (
            "update archived_name set status = 'canceled' where id = '<paid>'",
            [f"payment <paid> in {FIRST} is recorded as canceled, not as approved"],
        ),
        (
            "update archived_name set merchant_id = 77 where id = '<paid>'",
            [
                "payment <paid> of merchant 77 is recorded as archived but is in no file",
                f"payment <paid> in {FIRST} is not recorded as archived",
            ],
        ),
        (
            "insert into archived_name (merchant_id, id, status) values (1, '<new>', 'declined')",
            ["payment <new> of merchant 1 is recorded as archived but is in no file"],
        ),
        (
            "insert into archived_refund (id, merchant_id) values ('<new>', 1)",
            ["refund <new> is recorded as archived but is in no file"],
        ),
        (
            "update archive_part set payments = payments + 1",
            [f"{FIRST} has "],
        ),
    ],
)
async def test_a_changed_row_is_named(
    damage: str,
    expected: list[str],
    connection: asyncpg.Connection,
    shop: Shop,
    admin: asyncpg.Connection,
    tmp_path: Path,
) -> None:
    values = await every_kind(connection, shop, admin)
    await archive_old(admin, tmp_path)
    await assert_sound(admin, tmp_path)
    values["new"] = "00000000-0000-7000-8000-000000000001"
    accounts = await admin.fetch("select account_id from wallet order by number limit 2")
    values["account"], values["other_account"] = (str(row["account_id"]) for row in accounts)

    def filled(text: str) -> str:
        for name, value in values.items():
            text = text.replace(f"<{name}>", value)
        return text

    await admin.execute(filled(damage))
    problems = (await seal_report(admin, tmp_path)).problems
    assert len(problems) == len(expected), problems
    for sentence in expected:
        assert any(problem.startswith(filled(sentence)) for problem in problems), problems


@pytest.mark.parametrize("field", ["amount_minor", "status", "reference", "merchant_id", "refunded_minor"])
async def test_a_changed_payment_in_a_file_with_a_new_hash_is_named(
    field: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    ids = await every_kind(connection, shop, admin)
    await archive_old(admin, tmp_path)
    contents = lines(tmp_path)
    payment = next(line["payment"] for line in contents[1:] if line["payment"]["id"] == ids["paid"])
    payment[field] = {"status": "canceled", "reference": "other"}.get(field, 77)
    problems = await damaged(admin, tmp_path, contents)
    assert problems
    assert all(ids["paid"] in problem for problem in problems), problems


@pytest.mark.parametrize(
    "damage",
    ["repeated line", "removed line", "added line", "other order", "other ledger", "cut off", "swapped", "gone"],
)
async def test_a_changed_file_with_a_new_hash_is_named(
    damage: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    ids = await every_kind(connection, shop, admin)
    await archive_old(admin, tmp_path, part_payments_max=1000 if damage not in ("swapped", "gone") else 8)
    contents = lines(tmp_path)
    at = next(number for number, line in enumerate(contents) if line.get("payment", {}).get("id") == ids["paid"])
    new_id = "00000000-0000-7000-8000-000000000001"
    new = {"payment": {**contents[at]["payment"], "id": new_id}, "transfers": []}
    paid = f"payment {ids['paid']} of merchant {shop.merchant_id}"
    changed = {
        "repeated line": [*contents, contents[at]],
        "removed line": [*contents[:at], *contents[at + 1 :]],
        "added line": [*contents, new],
        "other order": [contents[0] | {"part": 2}, *contents[1:]],
        "other ledger": [contents[0] | {"ledger": new_id}, *contents[1:]],
    }.get(damage, contents)
    if damage == "swapped":
        shutil.copy(tmp_path / "payments-000002.jsonl.gz", tmp_path / FIRST)
        problems = (await seal_report(admin, tmp_path)).problems
    elif damage == "gone":
        (tmp_path / FIRST).unlink()
        problems = (await seal_report(admin, tmp_path)).problems
    else:
        problems = await damaged(admin, tmp_path, changed)
        if damage == "cut off":
            (tmp_path / FIRST).write_bytes((tmp_path / FIRST).read_bytes()[:-20])
            problems = (await seal_report(admin, tmp_path)).problems
    expected = {
        "repeated line": f"{paid} is in the archive twice",
        "removed line": f"{paid} is recorded as archived but is in no file",
        "added line": f"payment {new_id} in {FIRST} is not recorded as archived",
        "other order": f"{FIRST} has the part 2 in its header instead of 1",
        "other ledger": f"{FIRST} belongs to another ledger",
        "cut off": f"{FIRST} cannot be read: ",
        "swapped": f"{FIRST} has the part 2 in its header instead of 1",
        "gone": f"{FIRST} is missing in ",
    }[damage]
    assert any(problem.startswith(expected) for problem in problems), problems
