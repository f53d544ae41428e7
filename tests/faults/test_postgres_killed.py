"""The embedded Postgres dies under a running server: it is started again, or the server exits."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from pos_client import TerminalClient
from pos_client.errors import ClientError
from tests.end_to_end.server_process import ServerProcess, data_directory, pos_server, running_server
from tests.end_to_end.test_crash import credentials, seed_shop
from tests.support import MASTER_KEYS, Shop
from tests.tiers import short_and_long

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]

WITHIN_S = 60
KEYS = {"POS_MASTER_KEYS": MASTER_KEYS}


def kill_postmaster(data_dir: Path) -> None:
    pid = int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)


async def pay(server: ServerProcess, shop: Shop, turn: int) -> None:
    """Make a payment that is approved in the end, whatever happens to the database meanwhile."""
    wallet = shop.wallets[turn % len(shop.wallets)]
    async with asyncio.timeout(WITHIN_S), TerminalClient(credentials(shop.terminals[0], server.url)) as till:
        while True:
            try:
                result = await till.scan(code=wallet.code(), amount_minor=100, reference=f"order-{turn}")
            except ClientError:
                continue
            if result.status == "approved" or result.decline_code == "already_paid":
                return


@short_and_long("kills", short=2, long=15)
async def test_payments_go_on_after_the_postmaster_was_killed(kills: int) -> None:
    """Regression: nobody started it again, so the server lived on without a payment."""
    async with data_directory() as data_dir:
        async with running_server("--data-dir", data_dir, **KEYS) as server:
            shop = await seed_shop(data_dir)
            await pay(server, shop, 0)
            for turn in range(kills):
                kill_postmaster(data_dir)
                await pay(server, shop, turn + 1)
            assert server.log.count("postgres_restarted") == kills
            assert "Traceback" not in server.log
            assert await server.stop() == 0
        audit = await pos_server("audit", "--data-dir", data_dir)
        assert (audit.status, audit.out.startswith("audit ok: ")) == (0, True), audit.out
        query = "select count(*), count(distinct reference) from payment where status = 'approved' and purpose = 'sale'"
        paid = await pos_server("postgres", "--data-dir", data_dir, "psql", "--tuples-only", "-c", query)
        assert paid.out.split() == [str(kills + 1), "|", str(kills + 1)]


async def test_a_postgres_that_cannot_start_again_ends_the_server() -> None:
    """A supervisor such as systemd then restarts it, or tells a person."""
    async with data_directory() as data_dir, running_server("--data-dir", data_dir, **KEYS) as server:
        shop = await seed_shop(data_dir)
        await pay(server, shop, 0)
        control = data_dir / "postgres" / "global" / "pg_control"
        control.rename(control.with_suffix(".lost"))
        kill_postmaster(data_dir)
        async with asyncio.timeout(WITHIN_S):
            assert await server.process.wait() == 3
        assert "\npos-server: Postgres exited with code" in server.log
        assert "Traceback" not in server.log
