"""`/metrics`: access, and the metrics of real payments and of an unavailable database."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import asyncpg
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pos_server.server import RunningServer, serving
from tests.monitoring.observed import TOKEN, scrape, some_business
from tests.proxy import proxied
from tests.support import KEYRING, Shop, ask, logged_in, scan_message, settings

pytestmark = pytest.mark.asyncio

Values = dict[tuple[str, tuple[str, ...]], float]


@asynccontextmanager
async def scraped_server(dsn: str, **overrides: object) -> AsyncIterator[RunningServer]:
    async with serving(settings(**({"metrics_token": TOKEN} | overrides)), KEYRING, dsn) as server:
        yield server


async def values(server: RunningServer) -> Values:
    """Return the values by sample name and label values, in the order of the labels' names."""
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(await scrape(server.url))
        for sample in family.samples
    }


async def answer(server: RunningServer, authorization: str | bytes | None) -> tuple[int, str]:
    headers = {} if authorization is None else {"Authorization": authorization}
    async with httpx.AsyncClient() as http:
        response = await http.get(f"{server.url}/metrics", headers=headers)
    return response.status_code, response.text


async def test_a_scrape_needs_the_token(dsn: str) -> None:
    async with scraped_server(dsn) as server:
        for shown in (None, TOKEN, f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer", b"Bearer \xe9"):
            status, text = await answer(server, shown)
            assert (status, text) == (401, "The token is missing or wrong. Send POS_METRICS_TOKEN as a bearer token.\n")
        status, text = await answer(server, f"Bearer {TOKEN}")
        assert status == 200
        assert TOKEN not in text


async def test_without_a_configured_token_the_page_is_forbidden(server: RunningServer) -> None:
    text = "/metrics is disabled. Set POS_METRICS_TOKEN and send it as a bearer token.\n"
    assert await answer(server, f"Bearer {TOKEN}") == (403, text)


async def test_payments_work_with_metrics_switched_off(dsn: str, shop: Shop) -> None:
    async with scraped_server(dsn, metrics=False) as server:
        assert (await answer(server, f"Bearer {TOKEN}"))[0] == 404
        await some_business(server.url, shop)


async def test_payments_and_failures_are_counted(dsn: str, shop: Shop) -> None:
    async with scraped_server(dsn) as server:
        before = await values(server)
        await some_business(server.url, shop)
        after = await values(server)
    counted = {
        key: value - before[key]
        for key, value in after.items()
        if key[0] in ("pos_payments_total", "pos_operations_refused_total") and value != before[key]
    }
    assert counted == {
        ("pos_payments_total", ("", "approved")): 2,
        ("pos_payments_total", ("", "pending")): 1,
        ("pos_payments_total", ("", "canceled")): 1,
        ("pos_payments_total", ("code_used", "declined")): 1,
        ("pos_payments_total", ("code_invalid", "declined")): 1,
        ("pos_operations_refused_total", ("not_refundable",)): 1,
    }
    # Each payment was a separate batch, because the test waited for its result.
    operations = 9
    for name in ("pos_authorization_seconds", "pos_push_seconds", "pos_batch_operations"):
        assert after[f"{name}_count", ()] == operations
        assert after[f"{name}_sum", ()] > 0
    for stage in ("load", "decide", "apply", "publish"):
        assert after["pos_batch_stage_seconds_count", (stage,)] == operations


async def test_current_values(dsn: str, shop: Shop) -> None:
    async with (
        scraped_server(dsn) as server,
        logged_in(server.url, shop.terminals[0]),
        logged_in(server.url, shop.wallets[0]),
        logged_in(server.url, shop.wallets[1]),
    ):
        found = await values(server)
    assert (found["pos_connections", ("terminal",)], found["pos_connections", ("wallet",)]) == (1, 2)
    assert found["pos_queue_operations", ()] == 0
    assert found["pos_database_up", ()] == 1
    assert found["pos_build_info", (version("pos-server"),)] == 1
    assert found["process_resident_memory_bytes", ()] > 1_000_000
    assert found["process_cpu_seconds_total", ()] > 0


async def test_two_servers_in_one_process_count_separately(dsn: str, shop: Shop) -> None:
    async with scraped_server(dsn) as one, scraped_server(dsn) as two:
        async with logged_in(one.url, shop.terminals[0]) as till:
            await ask(till, scan_message(shop.wallets[0].code()))
        approved = ("pos_payments_total", ("", "approved"))
        assert ((await values(one))[approved], (await values(two))[approved]) == (1, 0)


async def test_an_unavailable_database_is_reported(dsn: str, shop: Shop) -> None:
    async with (
        proxied(dsn) as proxy,
        scraped_server(proxy.dsn, batch_attempts_max=2) as server,
        logged_in(server.url, shop.terminals[0]) as till,
    ):
        proxy.away = True
        await proxy.drop_all()
        assert (await ask(till, scan_message(shop.wallets[0].code())))["code"] == "busy"
        away = await values(server)
        proxy.away = False
        assert (await ask(till, scan_message(shop.wallets[0].code())))["status"] == "approved"
        back = await values(server)
    assert (away["pos_database_up", ()], back["pos_database_up", ()]) == (0, 1)
    assert away["pos_database_failures_total", ()] == 2
    assert away["pos_operations_refused_total", ("busy",)] == 1
    assert away["pos_batch_stage_seconds_count", ("load",)] == 0


async def test_full_queues_and_expired_operations_are_counted(dsn: str, shop: Shop) -> None:
    async with scraped_server(dsn, device_operations_max=1) as server:
        async with logged_in(server.url, shop.terminals[0]) as till:
            for _ in range(3):
                await till.send(scan_text(shop))
            answers = [await till.recv() for _ in range(3)]
        refused = (await values(server))["pos_operations_refused_total", ("busy",)]
    assert refused == sum('"busy"' in str(text) for text in answers) > 0


async def test_the_probe_timeout_limits_a_scrape(dsn: str, shop: Shop, admin: asyncpg.Connection) -> None:
    """All connections of the pool are in use: the probe times out, and all concurrent scrapes get a response."""
    async with scraped_server(dsn, database_pool_max=3, probe_timeout_s=0.1) as server:
        async with admin.transaction():
            await admin.execute("lock table wallet")
            # Each of these waits for the lock with a connection from the pool.
            waiting = [asyncio.create_task(login(server, shop, place)) for place in range(3)]
            while await admin.fetchval("select count(*) from pg_locks where not granted") < 3:
                pass
            scrapes = await asyncio.gather(*(values(server) for _ in range(3)))
        assert [found["pos_database_up", ()] for found in scrapes] == [0, 0, 0]
        await asyncio.gather(*waiting)
        assert (await values(server))["pos_database_up", ()] == 1


async def login(server: RunningServer, shop: Shop, wallet: int) -> None:
    async with logged_in(server.url, shop.wallets[wallet]):
        pass


def scan_text(shop: Shop) -> str:
    return json.dumps(scan_message(shop.wallets[0].code()))
