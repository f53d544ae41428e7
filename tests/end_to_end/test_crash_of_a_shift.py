"""kill -9 of the server while it closes a shift: the till's repeat gets the complete report."""

import asyncio
import random
import signal

import pytest

from pos_client import TerminalClient
from pos_server.core.accounting.shifts import TotalKind
from tests.end_to_end.server_process import data_directory, pos_server, running_server
from tests.end_to_end.test_crash import credentials, free_port, seed_shop
from tests.support import MASTER_KEYS
from tests.tiers import short_and_long

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]

SALES = 5


@short_and_long("kills", 1, 4)
async def test_a_repeat_closes_the_shift_after_a_crash(kills: int) -> None:
    port, chance = free_port(), random.Random(20_261_124)
    async with data_directory() as data_dir:
        server = running_server("--data-dir", data_dir, port=port, POS_MASTER_KEYS=MASTER_KEYS)
        process = await server.__aenter__()
        shop = await seed_shop(data_dir)
        async with TerminalClient(credentials(shop.terminals[0], process.url)) as till:
            for kill in range(kills):
                shift = await till.open_shift("Alice", 1_000 * kill)
                wallets = shop.wallets[kill * SALES : (kill + 1) * SALES]
                for number, wallet in enumerate(wallets):
                    paid = await till.scan(code=wallet.code(), amount_minor=7, reference=f"{kill}-{number}")
                    assert paid.status == "approved"
                closing = asyncio.create_task(till.close_shift(shift.shift_id, 1_000 * kill, timeout_s=60))
                await asyncio.sleep(chance.uniform(0, 0.006))  # a random moment during the close
                assert await process.stop(signal.SIGKILL) == -signal.SIGKILL
                await server.__aexit__(None, None, None)
                server = running_server("--data-dir", data_dir, port=port, POS_MASTER_KEYS=MASTER_KEYS)
                process = await server.__aenter__()
                report = await closing
                sales = next(total for total in report.totals if total.kind == TotalKind.SALE)
                assert (report.report, sales.count, sales.amount_minor) == ("Z", SALES, SALES * 7)
                assert (report.cash_difference_minor, report.shift_number) == (0, kill + 1)
                assert (await till.shift_report(shift.shift_id)).text == report.text
        assert await process.stop() == 0
        await server.__aexit__(None, None, None)
        audit = await pos_server("audit", "--data-dir", data_dir)
        assert audit.status == 0, audit.out
