"""Idempotent creation over REST: a key creates one row, with any number of repeats, of servers, and of crashes.

CASES lists one endpoint per kind of row.
"""

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx
import pytest

from pos_server.cli import operator_acts
from pos_server.core.credentials.api_keys import Role
from tests.end_to_end.server_process import ServerProcess, running_server
from tests.support import MASTER_KEYS, Shop
from tests.tiers import LONG, short_and_long

pytestmark = pytest.mark.asyncio

REQUESTS_PER_KEY = 10
# Connections to one server; further requests wait.
CONNECTIONS = 100
TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Case:
    """A POST that creates a row of `table`. `body(shop, number)` differs for each `number`.

    `written_last` is the last table that its transaction writes to.
    """

    role: Role
    path: str
    table: str
    body: Callable[[Shop, int], dict[str, Any]]
    written_last: str = "idempotency_key"


CASES = {
    "createMerchant": Case(
        Role.ADMIN, "/v1/merchants", "merchant", lambda shop, number: {"name": f"Shop {number}", "currency": "EUR"}
    ),
    "createApiKey": Case(
        Role.ADMIN, "/v1/api-keys", "api_key", lambda shop, number: {"role": "issuer", "name": f"key {number}"}
    ),
    "createWallet": Case(
        Role.ISSUER, "/v1/wallets", "wallet", lambda shop, number: {"name": f"Guest {number}", "currency": "EUR"}
    ),
    "createTopUp": Case(
        Role.ISSUER,
        "/v1/top-ups",
        "payment",
        lambda shop, number: {
            "wallet_number": shop.wallets[number % len(shop.wallets)].device.number,
            "merchant_id": shop.merchant_id,
            "amount_minor": number + 1,
        },
        written_last="payment",
    ),
    "createStore": Case(Role.MERCHANT, "/v1/stores", "store", lambda shop, number: {"name": f"Store {number}"}),
}
# One endpoint with a row for its key, and one through the engine.
both_ways = pytest.mark.parametrize(
    "case", [CASES["createMerchant"], CASES["createTopUp"]], ids=["createMerchant", "createTopUp"]
)
all_cases = pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name, marks=() if name in ("createMerchant", "createTopUp") else LONG)
        for name, case in CASES.items()
    ],
)


@asynccontextmanager
async def unlimited_server(dsn: str) -> AsyncIterator[ServerProcess]:
    variables = {"POS_API_REQUESTS_PER_S": "1000000", "POS_API_REQUESTS_BURST": "1000000"}
    async with running_server(POS_DATABASE_URL=dsn, POS_MASTER_KEYS=MASTER_KEYS, **variables) as server:
        yield server


@asynccontextmanager
async def api_client(url: str, key: str) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=CONNECTIONS)
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=TIMEOUT_S) as client:
        yield client


async def key_of(case: Case, admin: asyncpg.Connection, shop: Shop) -> str:
    return await operator_acts.new_key(admin, case.role, shop.merchant_id if case.role is Role.MERCHANT else None, "x")


async def count(case: Case, admin: asyncpg.Connection) -> int:
    return int(await admin.fetchval(f"select count(*) from {case.table}"))


@short_and_long("keys", 10, 100)
@both_ways
async def test_ten_concurrent_requests_with_a_key_create_one_row(
    case: Case, keys: int, dsn: str, shop: Shop, admin: asyncpg.Connection
) -> None:
    key = await key_of(case, admin, shop)
    before = await count(case, admin)
    answers: dict[int, list[httpx.Response]] = {number: [] for number in range(keys)}

    async def create(client: httpx.AsyncClient, number: int) -> None:
        while True:
            try:
                response = await client.post(
                    case.path, json=case.body(shop, number), headers={"Idempotency-Key": f"key-{number}"}
                )
            except httpx.TransportError:
                continue  # the server closes idle connections
            if response.status_code in (200, 201):
                answers[number].append(response)
                return
            assert response.json()["code"] in ("in_progress", "busy"), response.text

    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(unlimited_server(dsn)) for _ in range(2)]
        clients = [await stack.enter_async_context(api_client(server.url, key)) for server in servers]
        async with asyncio.timeout(TIMEOUT_S):
            turns = zip(
                itertools.cycle(clients),
                (each // REQUESTS_PER_KEY for each in range(keys * REQUESTS_PER_KEY)),
                strict=False,
            )
            await asyncio.gather(*(create(client, number) for client, number in turns))
        assert all(server.process.returncode is None for server in servers)

    assert await count(case, admin) - before == keys
    for responses in answers.values():
        assert len(responses) == REQUESTS_PER_KEY
        assert len({response.text for response in responses}) == 1
        assert sum(response.status_code == 201 for response in responses) <= 1
    assert len({responses[0].text for responses in answers.values()}) == keys


@all_cases
async def test_the_next_server_repeats_a_lost_response(
    case: Case, dsn: str, shop: Shop, admin: asyncpg.Connection
) -> None:
    """kill -9 after the commit, before the client has the response."""
    key = await key_of(case, admin, shop)
    body, once = case.body(shop, 1), {"Idempotency-Key": "the-first"}
    before = await count(case, admin)
    lost = b""
    async with unlimited_server(dsn) as first:

        async def lose_the_response(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal lost
            host, _, port = first.url.removeprefix("http://").partition(":")
            upstream, to_server = await asyncio.open_connection(host, int(port))
            to_server.write(await reader.readuntil(b"}"))
            while not lost.endswith(b"}"):
                lost += await upstream.read(65_536)
            first.process.send_signal(signal.SIGKILL)
            await first.process.wait()
            to_server.close()
            writer.close()

        proxy = await asyncio.start_server(lose_the_response, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        async with proxy, api_client(url, key) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.post(case.path, json=body, headers=once)
    head, _, answer = lost.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 201 ")
    async with unlimited_server(dsn) as second, api_client(second.url, key) as client:
        repeat = await client.post(case.path, json=body, headers=once)
        other = await client.post(case.path, json=case.body(shop, 2), headers=once)
    assert (repeat.status_code, repeat.content) == (200, answer)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert await count(case, admin) - before == 1


@all_cases
async def test_a_repeat_after_a_crash_in_the_transaction_creates_one_row(
    case: Case, dsn: str, shop: Shop, admin: asyncpg.Connection
) -> None:
    """kill -9 in the transaction, after its main row is written, while it waits for a lock of the test."""
    key = await key_of(case, admin, shop)
    body, once = case.body(shop, 1), {"Idempotency-Key": "the-first"}
    before = await count(case, admin)
    async with unlimited_server(dsn) as first, api_client(first.url, key) as client, admin.transaction():
        await admin.execute(f"lock table {case.written_last} in share mode")
        request = asyncio.create_task(client.post(case.path, json=body, headers=once))
        async with asyncio.timeout(TIMEOUT_S):
            while not await admin.fetchval(
                "select count(*) from pg_locks where not granted and relation = $1::regclass", case.written_last
            ):
                assert not request.done()
        await first.stop(signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            await request
    async with unlimited_server(dsn) as second, api_client(second.url, key) as client:
        # The dead server's transaction ends when Postgres notices the disconnect.
        while (repeat := await client.post(case.path, json=body, headers=once)).status_code == 409:
            assert repeat.json()["code"] == "in_progress"
        second_repeat = await client.post(case.path, json=body, headers=once)
    # Postgres can finish the engine's single statement without its client; then the request is a repeat.
    assert repeat.status_code in ({201} if case.written_last == "idempotency_key" else {200, 201})
    assert (second_repeat.status_code, second_repeat.content) == (200, repeat.content)
    assert await count(case, admin) - before == 1
