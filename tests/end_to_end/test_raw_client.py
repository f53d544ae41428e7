"""The documents are enough: `raw_client.py` was written from them alone and shares no code with the server."""

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
async def test_it_does_all_that_a_till_and_a_wallet_can(
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
    seen = json.loads(out)
    assert (seen["approved"]["status"], seen["approved"]["amount_minor"]) == ("approved", 420)
    assert seen["notice"]["balance_minor"] == 10_000 - 420
    assert seen["notice"]["payment_id"] == seen["already_paid_by"] == seen["approved"]["payment_id"]
    assert (seen["repeat_equal"], seen["used"], seen["forged"]) == (True, "code_used", "code_invalid")
    assert (seen["pin"]["status"], seen["pin"]["balance_minor"]) == ("approved", 10_000 - 2 * 420)
    assert (seen["rejected"], seen["found"]) == ("customer_rejected", "approved")
    assert seen["refund"] == {
        "refunded_minor": 120,
        "over": "refund_exceeds_remaining",
        "balance_minor": 10_000 - 3 * 420 + 120,
    }
    assert seen["cancel"] == {"late": "canceled", "balance_minor": 10_000 - 2 * 420 + 120}
    assert seen["recent"] == seen["history"] == ["declined", "canceled", "approved"]
    statuses = await connection.fetch(
        "select status, count(*) from payment where wallet_number is not null and purpose = 'sale' group by 1"
    )
    # And the money that the wallet began with.
    assert seen["payments"] == sum(row["count"] for row in statuses) + 1
    assert {row["status"]: row["count"] for row in statuses} == {"approved": 2, "canceled": 1, "declined": 4}


def test_it_shares_no_code_with_the_project() -> None:
    tree = ast.parse(RAW_CLIENT.read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    roots = {name.partition(".")[0] for name in imported}
    assert roots <= sys.stdlib_module_names | {"websockets"}
