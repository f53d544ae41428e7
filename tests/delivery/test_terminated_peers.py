"""Postgres ends the connection between two servers under load: notices still arrive, from both servers."""

import asyncio
import json

import asyncpg
import pytest

from pos_server.server import RunningServer, serving
from tests.support import KEYRING, TestDevice, build_shop, logged_in, receive, scan_message, settings
from tests.tiers import short_and_long

pytestmark = pytest.mark.asyncio

# The advisory lock that every server holds on its connection to the others: "pos-peer" as two halves.
_HALVES = int.from_bytes(b"pos-"), int.from_bytes(b"peer")
_PEERS = """
select pid from pg_locks where locktype = 'advisory' and classid = $1::bigint::oid and objid = $2::bigint::oid
    and database = (select oid from pg_database where datname = current_database())
"""
# As many codes as a wallet makes in a step of 30 s.
SALES = 10


async def sell(server: RunningServer, till: TestDevice, wallet: TestDevice) -> set[str]:
    """Make the sales of a round, all at once. Returns the ids of the payments."""
    scans = [scan_message(wallet.code(), amount_minor=1) for _ in range(SALES)]
    async with logged_in(server.url, till) as socket:
        for scan in scans:
            await socket.send(json.dumps(scan))
        results = [await receive(socket) for _ in scans]
    assert {result["status"] for result in results} == {"approved"}
    return {result["payment_id"] for result in results}


async def read(server: RunningServer, wallet: TestDevice, is_online: asyncio.Event) -> set[str]:
    """Return the ids of the payments that a wallet is notified of, once it has those of a round."""
    received = set[str]()
    async with logged_in(server.url, wallet) as phone:
        is_online.set()
        while len(received) < SALES:
            received.add((await receive(phone))["payment_id"])
    return received


@short_and_long("rounds", 4, 40)
async def test_terminated_connections_between_servers_lose_no_notice(
    rounds: int, dsn: str, connection: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    shop = await build_shop(connection, wallets=2 * (rounds + 1))
    wallets = iter(shop.wallets)
    limits = settings(peers_alive_s=0.2)
    async with serving(limits, KEYRING, dsn) as one, serving(limits, KEYRING, dsn) as two:
        directions = ((one, two, shop.terminals[0]), (two, one, shop.terminals[1]))
        # The last round is calm: what has failed for good shows there.
        for here, there, till in (*directions * rounds, *directions):
            wallet, is_online = next(wallets), asyncio.Event()
            reading = asyncio.create_task(read(there, wallet, is_online))
            await is_online.wait()
            selling = asyncio.create_task(sell(here, till, wallet))
            while not selling.done() and wallet not in shop.wallets[-2:]:
                for row in await admin.fetch(_PEERS, *_HALVES):
                    await admin.execute("select pg_terminate_backend($1)", row["pid"])
            assert await reading == await selling
