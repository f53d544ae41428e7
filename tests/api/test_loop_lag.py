"""Reports and PIN hashing do not block the server's event loop.

The lag is measured in the server's process: the delay of a timer of its loop. Other programs on the machine increase it
occasionally, work on the loop increases it every time. So the best of a few rounds counts, and hashing one PIN takes
longer than the limit.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import httpx
import pytest

from pos_server.core.rest.catalogue import ENDPOINTS
from pos_server.core.rest.fields import Page
from pos_server.gateway.pin_hasher import PinHasher
from pos_server.server import serving
from tests.api.endpoint_requests import REQUESTS, built_world
from tests.gateway.test_pin import pin_message
from tests.gateway.test_shifts import opening, query
from tests.support import KEYRING, Shop, TestDevice, ask, logged_in, settings

LAG_S_MAX = 0.25
TICK_S = 0.005
# One per wallet.
ROUNDS = 3
READS = 40
# Hashing takes longer than the limit on any current machine.
COSTLY = {"pin_argon2_memory_kib": 65_536, "pin_argon2_passes": 24}
ROWS = 2_000


@asynccontextmanager
async def lag() -> AsyncIterator[list[float]]:
    """Measure the lags of the running loop's timers in seconds during the block."""
    lags: list[float] = []

    async def tick() -> None:
        while True:
            due_s = time.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            lags.append(time.monotonic() - due_s)

    ticking = asyncio.create_task(tick())
    try:
        yield lags
    finally:
        ticking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ticking


@pytest.mark.asyncio
@pytest.mark.long
async def test_reports_and_pins_do_not_block_the_loop(dsn: str, shop: Shop, admin: asyncpg.Connection) -> None:
    await admin.execute(
        "insert into api_key (key_hash, role, name) "
        "select sha256(n::text::bytea), 'issuer', 'one of many' from generate_series(1, $1) n",
        ROWS,
    )
    unhurried = {"api_requests_per_s": 1_000_000, "api_requests_burst": 1_000_000, "queries_burst": 1_000_000}
    limits = settings(**COSTLY, **unhurried)
    pins = PinHasher(limits.pin_hasher_limits(), KEYRING)
    began_s = time.monotonic()
    await pins.hash(1, "284917")
    pins.close()
    assert time.monotonic() - began_s > LAG_S_MAX, "a hash on the loop would not be noticed"

    worst_s = []
    async with serving(limits, KEYRING, dsn) as server, built_world(server, admin, shop) as world:
        lists = [operation for operation in ENDPOINTS if issubclass(operation.response, Page)]
        requests = [await REQUESTS[operation.name](world) for operation in lists]

        async def read(number: int) -> None:
            operation, what = lists[number % len(lists)], requests[number % len(lists)]
            client = world.by_role[operation.role]
            answer = await client.get(operation.path.format(**what.path), params=what.query | {"limit": 100})
            assert answer.status_code == httpx.codes.OK

        async def read_the_shift() -> None:
            async with logged_in(server.url, shop.terminals[0]) as till:
                await ask(till, opening())
                for _ in range(READS):
                    assert (await ask(till, query()))["report"] == "X"

        async def set_the_pin(wallet: TestDevice) -> None:
            async with logged_in(server.url, wallet) as phone:
                assert (await ask(phone, pin_message()))["type"] == "pin.changed"

        for wallet in shop.wallets[:ROUNDS]:
            async with lag() as lags:
                await asyncio.gather(*(read(number) for number in range(READS)), read_the_shift(), set_the_pin(wallet))
            worst_s.append(max(lags))
            if worst_s[-1] < LAG_S_MAX:
                break
    assert min(worst_s) < LAG_S_MAX, worst_s
