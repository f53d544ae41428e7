"""docs/archive.md: its example matches a real line, its numbers match the settings, its tables exist."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from pos_server.core.payments.operations import CreateRefund
from pos_server.ledger.archive_file import FORMAT, FORMAT_VERSION, part_name
from pos_server.settings import Settings
from tests.docs.documents import read
from tests.docs.world import DEFAULTS
from tests.ledger.archived import archive_old, make_old
from tests.ledger.test_payments import run_batch
from tests.support import Shop, new_id

DOCUMENT = read("archive.md")
TEXT = " ".join(DOCUMENT.text.split())


@pytest.mark.asyncio
async def test_the_example_has_the_shape_of_a_real_line(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    await admin.execute("update merchant set fee_bps = 150, fee_fixed_minor = 7")
    sale = shop.scan()
    refund = CreateRefund(new_id(), sale.payment_id, shop.merchant_id, shop.terminals[0].device.number, 300)
    await run_batch(connection, sale, refund)
    await make_old(admin)
    await archive_old(admin, tmp_path)
    header, *lines = gzip.decompress((tmp_path / part_name(1)).read_bytes()).decode().splitlines()
    stated_header, stated = map(json.loads, DOCUMENT.section("The files").fences("json"))
    assert stated_header.keys() == json.loads(header).keys()
    assert (stated_header["format"], stated_header["version"]) == (FORMAT, FORMAT_VERSION)
    (real,) = (line for line in map(json.loads, lines) if line.get("refunds"))
    assert stated.keys() == real.keys()
    for part in ("payment", "refunds", "transfers"):
        assert shape(stated[part]) == shape(real[part])
    assert [transfer["kind"] for transfer in real["transfers"]] == ["payment", "fee", "refund", "fee_return"]
    settlement = json.loads(lines[-1])
    assert settlement.keys() == {"transfers"}


def shape(part: Any) -> dict[str, type]:
    """Return names and types of a row, or of the first of several."""
    row = part[0] if isinstance(part, list) else part
    return {name: type(value) for name, value in row.items()}


def test_numbers_are_the_defaults() -> None:
    assert f"at least {DEFAULTS['archive_min_age_days']} days ago (`POS_ARCHIVE_MIN_AGE_DAYS`)" in TEXT
    assert f"at most {DEFAULTS['archive_part_payments_max']} payments (`POS_ARCHIVE_PART_PAYMENTS_MAX`)" in TEXT
    named = {name.removeprefix("POS_").lower() for name in re.findall(r"POS_[A-Z_]+", TEXT)}
    assert named <= set(Settings.model_fields)
    assert f"`{part_name(1)}`" in TEXT


@pytest.mark.asyncio
async def test_the_tables_that_remain_exist(admin: asyncpg.Connection) -> None:
    rows = DOCUMENT.section("What stays in the ledger").table("What", "Why", "Table")
    for name in {name for row in rows for name in row["Table"].split(", ")}:
        assert await admin.fetchval("select to_regclass($1)", name) is not None, name
