"""Shifts, statements and the balance of the role `merchant`; a key gives access only to its own merchant."""

from datetime import UTC, datetime
from typing import Any

import asyncpg
import httpx
import pytest

from pos_server.ledger.database import create_pool
from pos_server.ledger.reports import QueryTimeout, Reports
from pos_server.ledger.rollup import balances, roll_up
from pos_server.ledger.settlement import settle
from pos_server.server import RunningServer
from tests.api.clients import idempotent, problem
from tests.gateway.test_refund import refund_message
from tests.gateway.test_shifts import closing, opening
from tests.ledger.test_settlement import D1, D2, NOW, two_days
from tests.support import Shop, ask, logged_in, new_id, scan_message

pytestmark = pytest.mark.asyncio


def at_api(report: dict[str, Any]) -> dict[str, Any]:
    """Convert a `shift.report` to the API's resource: without the message's fields, and with times in RFC 3339."""
    shown = {name: value for name, value in report.items() if name not in ("type", "reply_to")}
    for name in ("opened_at", "closed_at", "made_at"):
        at_ms = shown.pop(f"{name}_ms")
        text = None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
        shown[name] = None if text is None else text.replace("+00:00", "Z")
    return shown


async def test_a_shift_equals_its_report_at_the_terminal(
    server: RunningServer, shop: Shop, api: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    async with logged_in(server.url, shop.terminals[0]) as till:
        opened = await ask(till, opening(opening_cash_minor=10_000))
        path = f"/v1/shifts/{opened['shift_id']}"
        sold = await ask(till, scan_message(shop.wallets[0].code(), amount_minor=900))
        await ask(till, refund_message(sold["payment_id"], 200))
        await ask(till, scan_message(shop.wallets[0].code(), amount_minor=5_000, purpose="top_up"))
        x_report = (await api.get(path)).json()
        closed = await ask(till, closing(opened, counted_cash_minor=14_990))
    async with logged_in(server.url, shop.terminals[0], language="zh") as till:
        query = {"type": "shift.query", "message_id": "q", "shift_id": opened["shift_id"]}
        in_chinese = await ask(till, query)
    assert (x_report["report"], x_report["closed_at"], x_report["net_sales_minor"]) == ("X", None, 700)
    z_report = await api.get(path)
    assert z_report.json() == at_api(closed)
    assert z_report.json()["cash_difference_minor"] == -10
    chinese = await api.get(path, headers={"Accept-Language": "zh"})
    assert (chinese.headers["content-language"], chinese.json()) == ("zh", at_api(in_chinese))
    assert chinese.json()["text"] != z_report.json()["text"]
    assert (
        problem(await stranger.get(path))
        == problem(await api.get(f"/v1/shifts/{new_id()}"))
        == (404, "not_found", None)
    )


async def test_shifts_are_listed_most_recently_opened_first(
    server: RunningServer, shop: Shop, api: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    shifts = []
    for terminal in (0, 1, 0):
        async with logged_in(server.url, shop.terminals[terminal]) as till:
            opened = await ask(till, opening(opening_cash_minor=100))
            await ask(till, closing(opened))
        shifts.insert(0, opened["shift_id"])
    for query, expected in (
        ({}, shifts),
        ({"terminal_number": shop.terminals[0].device.number}, [shifts[0], shifts[2]]),
        ({"terminal_number": shop.terminals[1].device.number}, [shifts[1]]),
        ({"terminal_number": 7_000}, []),
    ):
        found, cursor = [], None
        while True:
            page = (await api.get("/v1/shifts", params=query | {"limit": 1} | (cursor or {}))).json()
            found += page["items"]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
        assert [shift["shift_id"] for shift in found] == expected
    assert found == []
    newest = (await api.get("/v1/shifts")).json()["items"][0]
    shown = (await api.get(f"/v1/shifts/{shifts[0]}")).json()
    assert newest == {name: shown[name] for name in newest}
    assert (newest["shift_number"], newest["operator"], newest["counted_cash_minor"]) == (2, "Alice", None)
    assert (await stranger.get("/v1/shifts")).json() == {"items": [], "next_cursor": None}
    assert problem(await api.get("/v1/shifts", params={"cursor": "1.2"})) == (400, "bad_field", "/cursor")


async def test_statements_are_those_of_the_settlement(
    shop: Shop,
    api: httpx.AsyncClient,
    stranger: httpx.AsyncClient,
    connection: asyncpg.Connection,
    admin: asyncpg.Connection,
) -> None:
    assert (await api.get("/v1/statements")).json() == {"items": [], "next_cursor": None}
    await two_days(connection, shop, admin)
    made = {}
    for day in (D2, D1):
        settled = await settle(admin, day, NOW)
        made[day] = next(each for each in settled.statements if each.merchant_id == shop.merchant_id)
    newest = (await api.get(f"/v1/statements/{D1}")).json()
    figures = {
        name: getattr(made[D1], name) for name in newest if name not in ("business_date", "starts_at", "ends_at")
    }
    assert newest == figures | {
        "business_date": D1.isoformat(),
        "starts_at": f"{D1}T00:00:00.000Z",
        "ends_at": f"{D1 + (D1 - D2)}T00:00:00.000Z",
    }
    assert newest["sales_minor"] == 777
    page = (await api.get("/v1/statements", params={"limit": 1})).json()
    rest = (await api.get("/v1/statements", params={"limit": 1, "cursor": page["next_cursor"]})).json()
    assert (page["items"], rest["items"][0]["business_date"]) == ([newest], D2.isoformat())
    one = (await api.get("/v1/statements", params={"business_date": D2.isoformat()})).json()
    assert one["items"] == rest["items"]
    # The other merchant has sold nothing, so its days have not begun.
    assert (await stranger.get(f"/v1/statements/{D1}")).status_code == 404
    for path in ("/v1/statements/2020-01-01", "/v1/statements/2020-13-01", "/v1/statements/yesterday"):
        assert problem(await api.get(path)) == (404, "not_found", None)
    for query, pointer in (({"business_date": "2020-13-01"}, "/business_date"), ({"cursor": "2020-13-01"}, "/cursor")):
        assert problem(await api.get("/v1/statements", params=query)) == (400, "bad_field", pointer)


async def test_the_balance_is_exact_before_and_after_a_rollup(
    server: RunningServer, shop: Shop, api: httpx.AsyncClient, stranger: httpx.AsyncClient, admin: asyncpg.Connection
) -> None:
    await admin.execute("update merchant set fee_fixed_minor = 7")
    paid_minor = 0
    async with logged_in(server.url, shop.terminals[0]) as till:
        for _ in range(3):
            payment = await ask(till, scan_message(shop.wallets[0].code(), amount_minor=1_000))
            paid_minor += 993
            shown = (await api.get("/v1/balance")).json()
            assert shown == {"merchant_id": shop.merchant_id, "currency": "EUR", "balance_minor": paid_minor}
            await roll_up(admin)
            assert (await api.get("/v1/balance")).json() == shown
    refund = {"amount_minor": 500}
    await api.post(f"/v1/payments/{payment['payment_id']}/refunds", json=refund, headers=idempotent())
    held = {account.owner: account.balance_minor for account in await balances(admin)}
    assert (await api.get("/v1/balance")).json()["balance_minor"] == held["Corner Canteen"] == paid_minor - 500 + 3
    assert (await stranger.get("/v1/balance")).json()["balance_minor"] == 0


async def test_a_slow_report_times_out(dsn: str) -> None:
    pool = await create_pool(dsn, timeout_s=5, size_max=2)
    try:
        reports = Reports(pool, concurrent_max=1, timeout_s=0.05)
        with pytest.raises(QueryTimeout):
            async with reports.connection() as connection:
                await connection.execute("select pg_sleep(4)")
        # The timeout applies to the transaction only, not to the connection.
        assert await pool.fetchval("show statement_timeout") == "0"
        async with reports.connection() as connection:
            assert await connection.fetchval("select 1") == 1
    finally:
        pool.terminate()


async def test_a_timeout_asks_to_request_less(
    server: RunningServer, shop: Shop, api: httpx.AsyncClient, admin: asyncpg.Connection
) -> None:
    async with admin.transaction():
        # The report waits for a lock, as if it read too much.
        await admin.execute("lock table payment, transfer, settlement in access exclusive mode")
        refused = await api.get("/v1/statements")
    assert problem(refused) == (503, "takes_too_long", None)
    assert "Request less at once" in refused.json()["detail"]
