"""Lists of payments of the role `merchant`: order, filters, pages and the cost of a page."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from pos_server.ledger.sql import QUERIES
from tests.api.clients import idempotent, pay, problem
from tests.support import Shop, new_id

pytestmark = pytest.mark.asyncio


async def references(api: httpx.AsyncClient, limit: int = 100, **query: Any) -> list[str]:
    """Return the references on all pages of a list."""
    found: list[str] = []
    cursor = None
    while True:
        params = {"limit": limit} | query | ({} if cursor is None else {"cursor": cursor})
        page = await api.get("/v1/payments", params=params)
        assert page.status_code == 200, page.text
        assert len(page.json()["items"]) <= limit
        found += [payment["reference"] for payment in page.json()["items"]]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            return found


async def test_payments_are_listed_latest_first_and_filtered(
    shop: Shop, api: httpx.AsyncClient, stranger: httpx.AsyncClient, admin: asyncpg.Connection
) -> None:
    # The shop's own top-ups have no terminal, like all payments through the API.
    first = await references(api)
    assert len(first) == 3
    garden = (await api.post("/v1/stores", json={"name": "Garden"}, headers=idempotent())).json()["store_id"]
    body = {"store_id": garden, "name": "Bar"}
    bar = (await api.post("/v1/terminals", json=body, headers=idempotent())).json()["terminal_number"]
    hall = shop.terminals[1].device.number
    await pay(api, shop, reference="a")
    await pay(api, shop, reference="b", terminal_number=hall)
    await pay(api, shop, reference="c", terminal_number=bar)
    await pay(api, shop, reference="d", terminal_number=bar, code="hello")
    await pay(api, shop, reference="d", terminal_number=bar)
    await api.post("/v1/cancels", json={"reference": "e"})
    newest = ["e", "d", "d", "c", "b", "a"]
    for limit in (1, 2, 100):
        assert await references(api, limit) == [*newest, *first]
    for query, expected in (
        ({"store_id": garden}, ["d", "d", "c"]),
        ({"store_id": shop.store_id}, ["b", "a"]),
        ({"terminal_number": hall}, ["b"]),
        ({"terminal_number": hall, "store_id": garden}, []),
        ({"terminal_number": 7_000}, []),
        ({"status": "declined"}, ["d"]),
        ({"status": "declined", "terminal_number": bar}, ["d"]),
        ({"status": "declined", "terminal_number": hall}, []),
        ({"status": "declined", "store_id": garden}, ["d"]),
        ({"status": "declined", "store_id": shop.store_id}, []),
        ({"status": "canceled"}, ["e"]),
        ({"reference": "d"}, ["d", "d"]),
        ({"reference": "d", "status": "approved"}, ["d"]),
        ({"reference": "d", "terminal_number": hall}, []),
        ({"reference": "d", "store_id": garden}, ["d", "d"]),
        ({"reference": "d", "store_id": shop.store_id}, []),
        ({"reference": "nothing"}, []),
    ):
        for limit in (1, 100):
            assert await references(api, limit, **query) == expected, query
    # One second apart: `from` is inclusive, `to` is exclusive.
    start = datetime.now(UTC).replace(microsecond=0)
    for second, reference in enumerate(reversed(newest[1:])):
        await admin.execute(
            "update payment set changed_at = $2 where reference = $1 and status = 'approved'",
            reference,
            start + timedelta(seconds=second),
        )
    times = [f"{start + timedelta(seconds=second):%Y-%m-%dT%H:%M:%S}Z" for second in range(4)]
    between = {"from": times[1], "to": times[3], "status": "approved"}
    assert set(await references(api, **between)) == {"c", "b"}
    assert await references(api, reference="c", **{"from": times[2], "to": times[3]}) == ["c"]
    assert await references(stranger) == []
    for wrong, pointer in (
        ({"from": "yesterday"}, "/from"),
        ({"to": "2026-13-01T00:00:00Z"}, "/to"),
        ({"from_": times[0]}, "/from_"),
        ({"status": "lost"}, "/status"),
        ({"reference": ""}, "/reference"),
        ({"cursor": "7"}, "/cursor"),
        ({"cursor": "9" * 17 + f".{new_id()}"}, "/cursor"),
        ({"colour": "red"}, "/colour"),
    ):
        assert problem(await api.get("/v1/payments", params=wrong)) == (400, "bad_field", pointer)


async def test_pages_stay_consistent_while_payments_change(shop: Shop, api: httpx.AsyncClient) -> None:
    paid = [await pay(api, shop, reference=f"r{number}", amount_minor=10) for number in range(6)]
    page = (await api.get("/v1/payments", params={"limit": 2})).json()
    assert [payment["reference"] for payment in page["items"]] == ["r5", "r4"]
    # A listed and an unlisted payment move to the front, and a new payment is added.
    for number in (4, 1):
        await api.post(f"/v1/payments/{paid[number]['payment_id']}/cancel")
    await pay(api, shop, reference="r6", amount_minor=10)
    rest = await references(api, 2, cursor=page["next_cursor"])
    assert rest[:3] == ["r3", "r2", "r0"]
    assert await references(api, 2, **{"from": page["items"][0]["changed_at"]}) == ["r6", "r1", "r4", "r5"]


async def test_payments_with_equal_times_are_each_listed_once(
    shop: Shop, api: httpx.AsyncClient, admin: asyncpg.Connection
) -> None:
    for number in range(5):
        await pay(api, shop, reference=f"r{number}", amount_minor=10)
    await admin.execute(
        "update payment set changed_at = '2026-03-02 12:00:00.000123Z' where terminal_number is not null"
    )
    shown = await references(api, 2, terminal_number=shop.terminals[0].device.number)
    assert sorted(shown) == [f"r{number}" for number in range(5)]


@pytest.mark.parametrize(
    ("query", "status", "indexes"),
    [
        ("merchant_payments", None, {"payment_terminal", "payment_office"}),
        ("merchant_payments", "approved", {"payment_terminal", "payment_office"}),
        ("merchant_payments_not_approved", "declined", {"payment_not_approved"}),
        ("merchant_payments_not_approved", "canceled", {"payment_not_approved"}),
    ],
)
async def test_a_list_reads_one_page_per_terminal_by_its_index(
    query: str, status: str | None, indexes: set[str], admin: asyncpg.Connection, shop: Shop
) -> None:
    await admin.execute(
        "insert into payment (id, fingerprint, terminal_number, merchant_id, wallet_number, reference, amount_minor, "
        "currency, status, version, changed_at, approved_at) "
        "select gen_random_uuid(), 'x', $1 + n % 2, $2, 1000000001, 'old-' || n, 1, 'EUR', 'approved', 1, "
        "now() - n * interval '1 second', now() from generate_series(1, 20000) as n",
        shop.terminals[0].device.number,
        shop.merchant_id,
    )
    await admin.execute("analyze payment")
    await admin.execute("set plan_cache_mode = force_generic_plan")
    plan = json.loads(
        await admin.fetchval(
            f"explain (analyze, format json) {QUERIES[query]}", shop.merchant_id, None, None, status, *[None] * 4, 51
        )
    )
    read = list(rows_read(plan[0]["Plan"]))
    assert indexes <= {index for index, _ in read}
    assert max(rows for _, rows in read) < 100


def rows_read(node: dict[str, Any]) -> Any:
    """Return the index and the number of rows of each scan of payments."""
    if node.get("Relation Name") == "payment":
        yield node.get("Index Name"), node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
    for inner in node.get("Plans", ()):
        yield from rows_read(inner)
