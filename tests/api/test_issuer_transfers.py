"""A wallet's transfers: newest first, each with the balance after it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio

from pos_server.server import RunningServer
from tests.api.clients import idempotent, issuer_client, problem
from tests.ledger.archived import archive_old, make_old
from tests.support import Shop, ask, logged_in, new_id, scan_message

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def api(server: RunningServer, admin: asyncpg.Connection) -> AsyncIterator[httpx.AsyncClient]:
    async with issuer_client(server, admin) as client:
        yield client


def path(shop: Shop, rest: str = "/transfers") -> str:
    return f"/v1/wallets/{shop.wallets[0].device.number}{rest}"


async def statement(api: httpx.AsyncClient, shop: Shop, **query: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await api.get(path(shop), params=query)).json()["items"]
    return items


def moves(items: list[dict[str, Any]]) -> list[tuple[str, int, int]]:
    return [(item["kind"], item["amount_minor"], item["balance_minor"]) for item in items]


async def busy_day(server: RunningServer, api: httpx.AsyncClient, shop: Shop) -> dict[str, str]:
    """Make every kind of transfer for the first wallet, and some for another; return ids by name."""
    cash = {"wallet_number": shop.wallets[0].device.number, "merchant_id": shop.merchant_id}
    async with logged_in(server.url, shop.terminals[0]) as till:

        async def done(message: dict[str, Any]) -> str:
            answer = await ask(till, message)
            assert answer["type"] in ("payment.result", "refund.result"), answer
            payment_id: str = answer["payment_id"]
            return payment_id

        sale = await done(scan_message(shop.wallets[0].code(), amount_minor=2_000))
        await done(scan_message(shop.wallets[1].code(), amount_minor=7_000))
        taken_back = await done(scan_message(shop.wallets[0].code(), amount_minor=300))
        top_up = (await api.post("/v1/top-ups", json=cash | {"amount_minor": 5_000}, headers=idempotent())).json()
        await done({"type": "payment.cancel", "message_id": "c", "payment_id": taken_back})
        out = (await api.post("/v1/withdrawals", json=cash | {"amount_minor": 40}, headers=idempotent())).json()
        for amount_minor in (150, 250):
            refund = {"type": "refund.create", "message_id": "r", "refund_id": str(new_id()), "payment_id": sale}
            await done(refund | {"amount_minor": amount_minor})
        await ask(till, scan_message(shop.wallets[0].code(), amount_minor=1_000_000))
        await api.post(f"/v1/withdrawals/{out['payment_id']}/cancel")
    return {"sale": sale, "taken_back": taken_back, "top_up": top_up["payment_id"], "out": out["payment_id"]}


DAY = [
    ("cancel", 40, 13_400),
    ("refund", 250, 13_360),
    ("refund", 150, 13_110),
    ("withdrawal", -40, 12_960),
    ("cancel", 300, 13_000),
    ("top_up", 5_000, 12_700),
    ("payment", -300, 7_700),
    ("payment", -2_000, 8_000),
    ("top_up", 10_000, 10_000),
]


async def test_transfers_are_listed_with_the_balance_after_each(
    server: RunningServer, api: httpx.AsyncClient, shop: Shop, admin: asyncpg.Connection
) -> None:
    await admin.execute("update merchant set fee_bps = 100")
    ids = await busy_day(server, api, shop)
    items = await statement(api, shop)
    assert moves(items) == DAY
    assert (await api.get(path(shop, ""))).json()["balance_minor"] == 13_400
    names = [ids["out"], ids["sale"], ids["sale"], ids["out"], ids["taken_back"], ids["top_up"], ids["taken_back"]]
    assert [item["payment_id"] for item in items[:-1]] == [*names, ids["sale"]]
    merchant, house = "Corner Canteen", "house"
    assert [item["counterpart"] for item in items] == [
        house,
        merchant,
        merchant,
        house,
        merchant,
        house,
        merchant,
        merchant,
        house,
    ]
    assert {item["merchant_id"] for item in items} == {shop.merchant_id}
    assert [item["created_at"] for item in items] == sorted((item["created_at"] for item in items), reverse=True)
    assert all(item["created_at"].endswith("Z") and item["transfer_id"] for item in items)


async def test_pages_do_not_shift_when_transfers_are_added(
    server: RunningServer, api: httpx.AsyncClient, shop: Shop
) -> None:
    await busy_day(server, api, shop)
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    first = True
    while first or cursor is not None:
        page = (await api.get(path(shop), params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        items += page["items"]
        cursor, first = page["next_cursor"], False
        async with logged_in(server.url, shop.terminals[0]) as till:
            assert (await ask(till, scan_message(shop.wallets[0].code(), amount_minor=1)))["status"] == "approved"
    assert moves(items) == DAY
    assert moves(await statement(api, shop, limit=1)) == [("payment", -1, 13_395)]
    assert problem(await api.get(path(shop), params={"cursor": "x"})) == (400, "bad_field", "/cursor")


async def test_a_refund_with_the_id_of_a_payment_is_one_transfer(
    server: RunningServer, api: httpx.AsyncClient, shop: Shop
) -> None:
    """Refund ids and payment ids are independent of each other."""
    async with logged_in(server.url, shop.terminals[0]) as till:
        sale = (await ask(till, scan_message(shop.wallets[0].code())))["payment_id"]
        refund = {"type": "refund.create", "message_id": "r", "refund_id": sale, "payment_id": sale, "amount_minor": 1}
        assert (await ask(till, refund))["type"] == "refund.result"
    assert moves(await statement(api, shop))[:2] == [("refund", 1, 9_001), ("payment", -1_000, 9_000)]


async def test_a_new_wallet_has_none(api: httpx.AsyncClient, shop: Shop) -> None:
    made = (await api.post("/v1/wallets", json={"name": "Ada", "currency": "EUR"}, headers=idempotent())).json()
    page = (await api.get(f"/v1/wallets/{made['wallet_number']}/transfers")).json()
    assert page == {"items": [], "next_cursor": None}


async def test_archived_transfers_are_one_item_at_the_end(
    server: RunningServer, api: httpx.AsyncClient, shop: Shop, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    await busy_day(server, api, shop)
    await make_old(admin)
    async with logged_in(server.url, shop.terminals[0]) as till:
        assert (await ask(till, scan_message(shop.wallets[0].code(), amount_minor=400)))["status"] == "approved"
    before = moves(await statement(api, shop))
    assert before == [("payment", -400, 13_000), *DAY]
    await archive_old(admin, tmp_path)
    items = await statement(api, shop)
    assert moves(items) == [("payment", -400, 13_000), ("archived", 13_400, 13_400)]
    last = {name: value for name, value in items[-1].items() if value is not None}
    assert last == {"kind": "archived", "amount_minor": 13_400, "balance_minor": 13_400}
    page = (await api.get(path(shop), params={"limit": 1})).json()
    rest = (await api.get(path(shop), params={"limit": 1, "cursor": page["next_cursor"]})).json()
    assert (moves(rest["items"]), rest["next_cursor"]) == ([("archived", 13_400, 13_400)], None)
