"""A restart under load: SIGTERM, a new server on the same port, and no till loses a result."""

import asyncio
import itertools
import json
import time
from contextlib import AsyncExitStack
from uuid import UUID

import pytest

from pos_client import Backoff, TerminalClient
from pos_server.ledger.database import connect
from tests.end_to_end.server_process import pos_server, running_server
from tests.end_to_end.test_crash import credentials, free_port
from tests.support import MASTER_KEYS, TestDevice, build_shop
from tests.tiers import short_and_long

pytestmark = pytest.mark.asyncio

TILLS = 100
SCANS_PER_S = 500
DRAIN_TIMEOUT_S = 10
# Enough wallets, because each has ten codes per 30 s.
WALLETS_PER_TILL = 6


@short_and_long("seconds", 1, 3)
async def test_a_restart_under_load_loses_no_result(seconds: int, dsn: str) -> None:
    connection = await connect(dsn, timeout_s=10)
    shop = await build_shop(connection, terminals=TILLS, wallets=TILLS * WALLETS_PER_TILL, balance_minor=100)
    await connection.close()
    outcomes: dict[UUID, str] = {}
    stop = asyncio.Event()
    clock = asyncio.get_running_loop().time

    async def sell(till: TerminalClient, wallets: list[TestDevice], start_s: float) -> None:
        for number, wallet in enumerate(itertools.cycle(wallets)):
            # Arrivals do not depend on the server: a delayed till works off its queue.
            await asyncio.sleep(start_s + number * TILLS / SCANS_PER_S - clock())
            if stop.is_set():
                return
            reference = f"{till.credentials.number}-{number}"
            result = await till.scan(code=wallet.code(), amount_minor=1, reference=reference)
            assert result.payment_id not in outcomes
            outcomes[result.payment_id] = result.decline_code or result.status

    port = free_port()
    variables = {
        "POS_DATABASE_URL": dsn,
        "POS_MASTER_KEYS": MASTER_KEYS,
        "POS_DRAIN_TIMEOUT_S": str(DRAIN_TIMEOUT_S),
        "POS_DRAIN_RECONNECT_WITHIN_S": "1",
    }
    async with AsyncExitStack() as stack:
        async with running_server(port=port, **variables) as first:
            tills = [
                await stack.enter_async_context(
                    TerminalClient(credentials(terminal, first.url), backoff=Backoff(base_s=0.1, cap_s=1))
                )
                for terminal in shop.terminals
            ]
            await asyncio.gather(*(till.ready() for till in tills))
            start_s = clock()
            sellers = [
                asyncio.create_task(sell(till, shop.wallets[index::TILLS], start_s + index / SCANS_PER_S))
                for index, till in enumerate(tills)
            ]
            await asyncio.sleep(seconds)
            before = len(outcomes)
            stopping_s = time.monotonic()
            assert await first.stop() == 0
            assert time.monotonic() - stopping_s < DRAIN_TIMEOUT_S
        async with running_server(port=port, **variables) as second:
            await asyncio.sleep(seconds)
            stop.set()
            async with asyncio.timeout(60):
                await asyncio.gather(*sellers)
            assert await second.stop() == 0

    assert before > SCANS_PER_S * seconds / 2
    assert len(outcomes) > before
    assert set(outcomes.values()) == {"approved"}
    report = json.loads((await pos_server("audit", "--json", POS_DATABASE_URL=dsn)).out)
    assert (report["audit"], report["payments"]) == ("ok", len(outcomes))
