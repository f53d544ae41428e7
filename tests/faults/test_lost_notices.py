"""A server dies between a commit and its notices: every wallet still has each notice once.

A wallet at the server that died receives it with its next `ready`, at the same server or another one. A wallet at
another server receives it when that server finds out, or with its next `ready`.
"""

import asyncio
import itertools
import json
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from pos_client import Backoff, Credentials, TerminalClient, WalletClient
from tests.end_to_end.server_process import ServerProcess, running_server
from tests.end_to_end.test_crash import credentials, free_port
from tests.support import MASTER_KEYS, TestDevice, build_shop, logged_in, receive, scan_message
from tests.tiers import short_and_long

pytestmark = pytest.mark.asyncio

DYING_SERVER = (sys.executable, "-m", "tests.faults.dying_server")
NOTICE_TIMEOUT_S = 30
# Ten codes of each per 30 s are enough for both tills.
WALLETS_PER_SERVER = 30
SALE_EVERY_S = 0.1


def variables(dsn: str, die_at: Path, alive_s: float = 0.2) -> dict[str, str]:
    return {
        "POS_DATABASE_URL": dsn,
        "POS_MASTER_KEYS": MASTER_KEYS,
        "POS_PEERS_ALIVE_S": str(alive_s),
        "DIE_AT": str(die_at),
    }


def order(die_at: Path) -> None:
    """Make the dying server die at its next commit."""
    die_at.touch()


def revoke(die_at: Path) -> None:
    die_at.unlink()


async def pay_and_die(server: ServerProcess, till: TestDevice, wallet: TestDevice, die_at: Path) -> str:
    """Send a scan to a server that dies after its commit. Returns the id of the payment."""
    message = scan_message(wallet.code(), amount_minor=1)
    async with logged_in(server.url, till) as socket:
        order(die_at)
        await socket.send(json.dumps(message))
        assert await server.process.wait() == -signal.SIGKILL
    revoke(die_at)
    return str(message["payment_id"])


@pytest.mark.parametrize("same_server", [True, False])
async def test_the_next_ready_brings_the_notice_of_a_server_that_died(
    same_server: bool, dsn: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    die_at, state_file = tmp_path / "die", tmp_path / "wallet.state"
    shop = await build_shop(connection)
    wallet, port = shop.wallets[0], free_port()
    received: list[str] = []

    async def until(url: str, payment_id: str) -> None:
        """Read notices in a new process of the wallet until that of a payment."""
        async with (
            asyncio.timeout(NOTICE_TIMEOUT_S),
            WalletClient(credentials(wallet, url), state_file=state_file) as w,
        ):
            while payment_id not in received:
                received.append(str((await w.notice()).payment_id))

    async with running_server(port=port, **variables(dsn, die_at, alive_s=2)) as other:
        async with running_server(program=DYING_SERVER, **variables(dsn, die_at, alive_s=2)) as dying:
            at = dying if same_server else other
            async with (
                logged_in(dying.url, shop.terminals[0]) as till,
                WalletClient(credentials(wallet, at.url), state_file=state_file) as phone,
            ):
                await phone.ready()
                await till.send(json.dumps(scan_message(wallet.code(), amount_minor=1)))
                first = str((await phone.notice()).payment_id)
                received.append(first)
            lost = await pay_and_die(dying, shop.terminals[0], wallet, die_at)
        # A later result must not move the mark of the wallet past the lost notice.
        async with logged_in(other.url, shop.terminals[1]) as till:
            later = scan_message(wallet.code(), amount_minor=1)
            await till.send(json.dumps(later))
            assert (await receive(till))["status"] == "approved"
        await until(other.url, str(later["payment_id"]))
    assert Counter(received[1:]) - Counter([first]) == Counter([lost, str(later["payment_id"])])


async def test_a_wallet_at_another_server_receives_the_notice_of_a_server_that_died(
    dsn: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    die_at = tmp_path / "die"
    shop = await build_shop(connection)
    async with (
        running_server(**variables(dsn, die_at)) as other,
        running_server(program=DYING_SERVER, **variables(dsn, die_at)) as dying,
        WalletClient(credentials(shop.wallets[0], other.url)) as phone,
    ):
        await phone.ready()
        lost = await pay_and_die(dying, shop.terminals[0], shop.wallets[0], die_at)
        async with asyncio.timeout(NOTICE_TIMEOUT_S):
            assert str((await phone.notice()).payment_id) == lost
        assert phone.unread == 0


class _Reader:
    """A wallet's application, which reads every notice."""

    def __init__(self, credentials: Credentials, state_file: Path) -> None:
        self._credentials = credentials
        self._state_file = state_file
        self.received: list[tuple[UUID, int]] = []
        self.has_news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def _read(self) -> None:
        backoff = Backoff(base_s=0.05, cap_s=0.5)
        async with WalletClient(self._credentials, state_file=self._state_file, backoff=backoff) as wallet:
            while True:
                notice = await wallet.notice()
                self.received.append((notice.payment_id, notice.version))
                self.has_news.set()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        self._task = asyncio.create_task(self._read())
        try:
            yield
        finally:
            self._task.cancel()
            await asyncio.wait([self._task])


@short_and_long("kills", 1, 16)
async def test_two_servers_and_many_kills_lose_no_notice_of_a_wallet(
    kills: int, dsn: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    die_at = tmp_path / "die"
    shop = await build_shop(connection, terminals=2, wallets=2 * WALLETS_PER_SERVER)
    ports = [free_port(), free_port()]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    wallets = [
        _Reader(credentials(device, urls[index % 2]), tmp_path / f"{index}.state")
        for index, device in enumerate(shop.wallets)
    ]
    backoff = Backoff(base_s=0.05, cap_s=0.5)
    stop = asyncio.Event()

    async def sell(till: TerminalClient, devices: list[TestDevice]) -> None:
        for number, device in enumerate(itertools.cycle(devices)):
            if stop.is_set():
                return
            await till.scan(code=device.code(), amount_minor=1, reference=f"{till.credentials.number}-{number}")
            await asyncio.sleep(SALE_EVERY_S)

    async with AsyncExitStack() as stack:
        for wallet in wallets:
            await stack.enter_async_context(wallet.reading())
        tills = [
            await stack.enter_async_context(TerminalClient(credentials(device, url), backoff=backoff))
            for device, url in zip(shop.terminals, urls, strict=True)
        ]
        async with running_server(port=ports[1], **variables(dsn, die_at)):
            sellers = [asyncio.create_task(sell(till, shop.wallets[index::2])) for index, till in enumerate(tills)]
            for _ in range(kills):
                async with running_server(port=ports[0], program=DYING_SERVER, **variables(dsn, die_at)) as dying:
                    await asyncio.sleep(random.uniform(0.2, 1))
                    order(die_at)
                    async with asyncio.timeout(NOTICE_TIMEOUT_S):
                        assert await dying.process.wait() == -signal.SIGKILL
                    revoke(die_at)
            async with running_server(port=ports[0], **variables(dsn, die_at)):
                stop.set()
                async with asyncio.timeout(NOTICE_TIMEOUT_S):
                    await asyncio.gather(*sellers)
                rows = await connection.fetch("select id, version, wallet_number from payment where purpose = 'sale'")
                expected = {device.device.number: Counter[tuple[UUID, int]]() for device in shop.wallets}
                for row in rows:
                    expected[row["wallet_number"]][UUID(int=row["id"].int), row["version"]] += 1
                async with asyncio.timeout(NOTICE_TIMEOUT_S):
                    for wallet, device in zip(wallets, shop.wallets, strict=True):
                        while Counter(wallet.received) < expected[device.device.number]:
                            wallet.has_news.clear()
                            await wallet.has_news.wait()
        for wallet, device in zip(wallets, shop.wallets, strict=True):
            assert Counter(wallet.received) == expected[device.device.number]
    assert len(rows) > kills
