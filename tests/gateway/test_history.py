"""Queries and histories over WebSockets."""

from typing import Any

import pytest

from pos_server.server import RunningServer, serving
from tests.shared import shared_database, shared_server
from tests.support import KEYRING, Shop, ask, logged_in, new_id, receive, scan_message, settings

pytestmark = pytest.mark.asyncio
dsn = shared_database()
server = shared_server()


def query_message(**fields: Any) -> dict[str, Any]:
    return {"type": "payment.query", "message_id": "query"} | fields


async def test_a_query_by_id_or_by_reference(server: RunningServer, shop: Shop) -> None:
    async with logged_in(server.url, shop.terminals[0]) as till, logged_in(server.url, shop.terminals[1]) as other:
        paid = await ask(till, scan_message(shop.wallets[0].code()))
        for socket in (till, other):
            for by in ("payment_id", "reference"):
                assert await ask(socket, query_message(**{by: paid[by]})) == paid | {"reply_to": "query"}
        unknown = await ask(till, query_message(payment_id=str(new_id())))
        assert (unknown["code"], unknown["retryable"], unknown["reply_to"]) == ("payment_unknown", False, "query")
        assert (await ask(till, query_message(reference="nothing")))["code"] == "payment_unknown"


async def test_a_query_by_reference_prefers_the_paid_payment_to_the_last_failed_one(
    server: RunningServer, shop: Shop
) -> None:
    async with logged_in(server.url, shop.terminals[0]) as till:
        for amount_minor in (99_999, 88_888):
            failed = await ask(till, scan_message(shop.wallets[0].code(), reference="o", amount_minor=amount_minor))
        assert (await ask(till, query_message(reference="o")))["payment_id"] == failed["payment_id"]
        paid = await ask(till, scan_message(shop.wallets[0].code(), reference="o"))
        await ask(till, scan_message(shop.wallets[0].code(), reference="o"))
        assert (await ask(till, query_message(reference="o")))["payment_id"] == paid["payment_id"]


async def test_recent_payments_are_those_of_the_till(server: RunningServer, shop: Shop) -> None:
    async with logged_in(server.url, shop.terminals[0]) as till, logged_in(server.url, shop.terminals[1]) as other:
        paid = [await ask(till, scan_message(shop.wallets[0].code())) for _ in range(3)]
        await ask(other, scan_message(shop.wallets[1].code()))
        answer = await ask(till, {"type": "payments.recent", "message_id": "r", "limit": 2})
    assert (answer["type"], answer["reply_to"]) == ("payments.list", "r")
    assert answer["payments"] == [result | {"reply_to": None} for result in (paid[2], paid[1])]


async def test_a_wallets_history_in_pages(server: RunningServer, shop: Shop) -> None:
    wallet = shop.wallets[0]
    async with logged_in(server.url, shop.terminals[0]) as till, logged_in(server.url, wallet) as phone:
        for _ in range(5):
            await ask(till, scan_message(wallet.code(), amount_minor=100))
            await receive(phone)
        await ask(till, scan_message(shop.wallets[1].code()))
        payment_ids, cursor = list[str](), None
        for expected in (2, 2, 2):
            fields = {} if cursor is None else {"cursor": cursor}
            page = await ask(phone, {"type": "history", "message_id": "h", "limit": 2} | fields)
            assert (page["type"], page["reply_to"], len(page["payments"])) == ("history.page", "h", expected)
            payment_ids += [payment["payment_id"] for payment in page["payments"]]
            cursor = page["next_cursor"]
        assert cursor is None
        assert len(set(payment_ids)) == 6
        assert page["payments"][-1]["purpose"] == "top_up", "the first top-up must be last"
        assert {payment["balance_minor"] for payment in page["payments"]} == {9_500}
        for bad in ("x", "1.2", "-", "99999999999999999999999.01a20f4a-65b6-77fa-90ee-62b24949fe08"):
            answer = await ask(phone, {"type": "history", "message_id": "h", "cursor": bad})
            assert (answer["code"], answer["field"]) == ("bad_field", "cursor")


async def test_a_query_limit_does_not_affect_payments(dsn: str, shop: Shop) -> None:
    async with (
        serving(settings(queries_per_s=0.001, queries_burst=3), KEYRING, dsn) as server,
        logged_in(server.url, shop.terminals[0]) as till,
    ):
        answers = [await ask(till, query_message(reference="x")) for _ in range(5)]
        assert [answer["code"] for answer in answers] == ["payment_unknown"] * 3 + ["too_many_queries"] * 2
        assert (answers[-1]["retryable"], answers[-1]["retry_after_s"]) == (True, 1)
        assert (await ask(till, scan_message(shop.wallets[0].code())))["status"] == "approved"
