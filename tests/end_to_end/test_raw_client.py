"""The documents suffice: `raw_client.py`, which was written from them alone, works with a real server."""

import ast
import asyncio
import json
import os
import sys
from pathlib import Path

import asyncpg
import pytest

from pos_server.core.credentials.activation import ACTIVATION_BYTES, activation_code
from pos_server.ledger import directory
from pos_server.server import RunningServer
from tests.support import Shop

RAW_CLIENT = Path(__file__).with_name("raw_client.py")


@pytest.mark.asyncio
async def test_the_raw_client_can_use_every_feature(
    server: RunningServer, shop: Shop, connection: asyncpg.Connection
) -> None:
    codes = []
    for device in (shop.terminals[0].device, shop.wallets[0].device):
        codes.append(activation_code(os.urandom(ACTIVATION_BYTES)))
        await directory.issue_activation(connection, device, codes[-1], ttl_s=60)
    process = await asyncio.create_subprocess_exec(
        sys.executable, RAW_CLIENT, server.url, *codes, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    results = json.loads(out)
    assert (results["approved"]["status"], results["approved"]["amount_minor"]) == ("approved", 420)
    assert results["notice"]["balance_minor"] == 10_000 - 420
    assert results["notice"]["payment_id"] == results["already_paid_by"] == results["approved"]["payment_id"]
    assert (results["repeat_equal"], results["used"], results["forged"]) == (True, "code_used", "code_invalid")
    assert (results["pin"]["status"], results["pin"]["balance_minor"]) == ("approved", 10_000 - 2 * 420)
    assert (results["rejected"], results["recovered"]) == ("customer_rejected", "approved")
    assert results["refund"] == {
        "refunded_minor": 120,
        "over": "refund_exceeds_remaining",
        "balance_minor": 10_000 - 3 * 420 + 120,
    }
    assert results["cancel"] == {"late": "canceled", "balance_minor": 10_000 - 2 * 420 + 120}
    assert results["recent"] == results["history"] == ["declined", "canceled", "approved"]
    statuses = await connection.fetch(
        "select status, count(*) from payment where wallet_number is not null and purpose = 'sale' group by 1"
    )
    # Plus the wallet's first top-up.
    assert results["payments"] == sum(row["count"] for row in statuses) + 1
    assert {row["status"]: row["count"] for row in statuses} == {"approved": 2, "canceled": 1, "declined": 4}


def test_the_raw_client_imports_no_code_of_the_project() -> None:
    tree = ast.parse(RAW_CLIENT.read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    roots = {name.partition(".")[0] for name in imported}
    assert roots <= sys.stdlib_module_names | {"websockets"}
