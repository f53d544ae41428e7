"""kill -9 of the server during payments: every scan has one outcome at its till, which matches the ledger."""

import asyncio
import itertools
import json
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from pos_client import Credentials, TerminalClient
from pos_server.ledger.database import connect
from pos_server.postgres.embedded import EmbeddedPostgres
from tests.end_to_end.server_process import data_directory, pos_server, running_server
from tests.support import MASTER_KEYS, Shop, TestDevice, build_shop
from tests.tested_postgres import BIN_DIR
from tests.tiers import short_and_long

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]

TILLS = 6
# Enough wallets, because each has ten codes per 30 s.
WALLETS_PER_TILL = 12


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def credentials(device: TestDevice, url: str) -> Credentials:
    return Credentials(
        server=url,
        kind=device.device.kind,
        number=device.device.number,
        slot=device.device.slot,
        kid=device.kid,
        device_key=device.key,
        currency="EUR",
        name="under test",
    )


async def seed_shop(data_dir: Path) -> Shop:
    """Create a shop in the ledger of the running server."""
    postgres = EmbeddedPostgres(data_dir, bin_dir=BIN_DIR)
    dsn = await asyncio.to_thread(postgres.start)
    try:
        connection = await connect(dsn, timeout_s=10)
        try:
            return await build_shop(connection, terminals=TILLS, wallets=TILLS * WALLETS_PER_TILL)
        finally:
            await connection.close()
    finally:
        await asyncio.to_thread(postgres.stop)


@short_and_long("kills", 1, 4)
async def test_every_scan_ends_in_one_outcome_across_kills(kills: int) -> None:
    port = free_port()
    results: list[tuple[str, str]] = []
    stop = asyncio.Event()

    async def sell(till: TerminalClient, wallets: Sequence[TestDevice]) -> None:
        for number, wallet in enumerate(itertools.cycle(wallets)):
            if stop.is_set():
                return
            reference = f"{till.credentials.number}-{number}"
            result = await till.scan(code=wallet.code(), amount_minor=1, reference=reference, timeout_s=60)
            results.append((str(result.payment_id), result.decline_code or result.status))

    async with data_directory() as data_dir:
        shop: Shop | None = None
        sellers: list[asyncio.Task[None]] = []
        clients: list[TerminalClient] = []
        try:
            for kill in range(kills + 1):
                async with running_server("--data-dir", data_dir, port=port, POS_MASTER_KEYS=MASTER_KEYS) as server:
                    if shop is None:
                        shop = await seed_shop(data_dir)
                        for index, terminal in enumerate(shop.terminals):
                            client = TerminalClient(credentials(terminal, server.url))
                            clients.append(await client.__aenter__())
                            sellers.append(asyncio.create_task(sell(client, shop.wallets[index::TILLS])))
                    before = len(results)
                    async with asyncio.timeout(60):
                        while len(results) < before + 25:
                            done, _ = await asyncio.wait(sellers, timeout=0.01)
                            for seller in done:
                                seller.result()
                    if kill < kills:
                        assert await server.stop(signal.SIGKILL) == -signal.SIGKILL
                    else:
                        stop.set()
                        async with asyncio.timeout(60):
                            await asyncio.gather(*sellers)
                        assert await server.stop() == 0
        finally:
            for seller in sellers:
                seller.cancel()
            for client in clients:
                await client.__aexit__(None, None, None)

        audit = await pos_server("audit", "--json", "--data-dir", data_dir)
        assert audit.status == 0, audit.out
        report = json.loads(audit.out)
        # The tills' results match the ledger: no payment is lost or duplicated.
        assert len({payment_id for payment_id, _ in results}) == len(results) == report["payments"]
        assert {outcome for _, outcome in results} == {"approved"}
        assert report["transfers"] - TILLS * WALLETS_PER_TILL == len(results)
