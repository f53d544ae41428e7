"""Two merchants use the same payment ids, orders and refund ids at the same time, over WebSockets, with one wallet."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from websockets.asyncio.client import ClientConnection

from pos_server.ledger.audit import audit
from pos_server.server import RunningServer
from tests.gateway.test_pin import PIN, confirm_message, set_pin
from tests.shared import shared_database, shared_server
from tests.support import Shop, ask, build_shop, logged_in, new_id, receive, scan_message

pytestmark = pytest.mark.asyncio
dsn = shared_database()
# The PIN is required for 5.00 EUR and more.
server = shared_server(pin_free_minor_max=499)


def same(code: str, amount_minor: int, ids: dict[str, str]) -> dict[str, Any]:
    return scan_message(code, amount_minor=amount_minor, **ids)


def new_ids() -> dict[str, str]:
    payment_id = str(new_id())
    return {"payment_id": payment_id, "reference": f"order-{payment_id}"}


@asynccontextmanager
async def at_both_tills(
    server: RunningServer, shop: Shop, other: Shop
) -> AsyncIterator[tuple[ClientConnection, ClientConnection, ClientConnection]]:
    """Yield the sockets of a till of each merchant, and of the wallet."""
    async with (
        logged_in(server.url, shop.terminals[0]) as till,
        logged_in(server.url, other.terminals[0]) as stranger,
        logged_in(server.url, shop.wallets[0]) as phone,
    ):
        yield till, stranger, phone


async def test_tills_reach_the_payments_of_their_merchant_only(
    server: RunningServer, shop: Shop, connection: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    other = await build_shop(connection, wallets=0)
    ids, refund_id = new_ids(), str(new_id())
    async with logged_in(server.url, shop.terminals[0]) as till, logged_in(server.url, other.terminals[0]) as stranger:
        amounts = {till: 300, stranger: 400}
        for socket, amount_minor in amounts.items():
            paid = await ask(socket, same(shop.wallets[0].code(), amount_minor, ids))
            assert (paid["status"], paid["amount_minor"]) == ("approved", amount_minor)
        for socket, amount_minor in amounts.items():
            for name, value in ids.items():
                found = await ask(socket, {"type": "payment.query", "message_id": "q", name: value})
                assert (found["amount_minor"], found["payment_id"]) == (amount_minor, ids["payment_id"])
            refund = {"type": "refund.create", "message_id": "r", "refund_id": refund_id, "amount_minor": amount_minor}
            refunded = await ask(socket, refund | {"payment_id": ids["payment_id"]})
            assert (refunded["type"], refunded["refunded_minor"]) == ("refund.result", amount_minor)
        ids = new_ids()
        canceled = await ask(stranger, {"type": "payment.cancel", "message_id": "c", "payment_id": ids["payment_id"]})
        assert canceled["status"] == "canceled"
        assert (await ask(till, same(shop.wallets[0].code(), 100, ids)))["status"] == "approved"
        late = await ask(stranger, same(shop.wallets[0].code(), 100, ids))
        assert late["decline_code"] == "canceled"
    assert (await audit(admin)).ok


async def test_a_wallet_answers_each_of_two_payments_with_one_id(
    server: RunningServer, shop: Shop, connection: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    other = await build_shop(connection, wallets=0)
    wallet, ids = shop.wallets[0], new_ids()
    async with at_both_tills(server, shop, other) as (till, stranger, phone):
        await set_pin(phone)
        requests = []
        for socket, amount_minor in ((till, 600), (stranger, 700)):
            assert (await ask(socket, same(wallet.code(), amount_minor, ids)))["type"] == "payment.pending"
            requests.append(await receive(phone))
        assert [request["merchant_id"] for request in requests] == [shop.merchant_id, other.merchant_id]
        assert len({request["payment_id"] for request in requests}) == 1
        # A device that connects now is asked for both.
        async with logged_in(server.url, wallet) as again:
            asked = [await receive(again) for _ in range(2)]
        assert sorted(request["amount_minor"] for request in asked) == [600, 700]
    async with at_both_tills(server, shop, other) as (till, stranger, phone):
        for _ in range(2):
            await receive(phone)
        first, second = requests
        for message in (
            confirm_message(first),
            {"type": "payment.reject", "message_id": "no", "payment_id": ids["payment_id"]},
        ):
            ambiguous = await ask(phone, message)
            assert (ambiguous["code"], ambiguous["field"]) == ("bad_field", "merchant_id")
        confirm = confirm_message(second, merchant_id=other.merchant_id)
        wrong = await ask(phone, confirm | {"pin": "860317"})
        assert (wrong["pin_tries_left"], wrong["merchant_id"], wrong["version"]) == (2, other.merchant_id, 2)
        paid = await ask(phone, confirm | {"version": 2})
        assert (paid["status"], paid["merchant_id"], paid["amount_minor"]) == ("approved", other.merchant_id, 700)
        assert (await receive(stranger))["status"] == "approved"
        query = {"type": "payment.query", "message_id": "q", "payment_id": ids["payment_id"]}
        assert (await ask(till, query))["type"] == "payment.pending"
        reject = {"type": "payment.reject", "message_id": "no", "payment_id": ids["payment_id"]}
        rejected = await ask(phone, reject | {"merchant_id": shop.merchant_id})
        assert (rejected["decline_code"], rejected["merchant_id"]) == ("customer_rejected", shop.merchant_id)
        assert (await receive(till))["decline_code"] == "customer_rejected"
        unknown = await ask(phone, reject | {"merchant_id": 2**53 - 1})
        assert unknown["code"] == "payment_unknown"
    assert (await audit(admin)).ok


async def test_an_older_wallet_names_no_merchant(server: RunningServer, shop: Shop) -> None:
    wallet = shop.wallets[0]
    async with logged_in(server.url, shop.terminals[0]) as till, logged_in(server.url, wallet) as phone:
        await set_pin(phone)
        await ask(till, scan_message(wallet.code()))
        paid = await ask(phone, confirm_message(await receive(phone), PIN))
        assert (paid["status"], paid["merchant_id"]) == ("approved", shop.merchant_id)
        unknown = {"message_id": "u", "payment_id": str(new_id())}
        for message in ({"type": "payment.confirm", "version": 1, "pin": PIN}, {"type": "payment.reject"}):
            assert (await ask(phone, message | unknown))["code"] == "payment_unknown"


async def test_pages_of_the_history_may_end_between_two_payments_with_one_id(
    server: RunningServer, shop: Shop, connection: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    other = await build_shop(connection, wallets=0)
    wallet, ids = shop.wallets[0], new_ids()
    async with at_both_tills(server, shop, other) as (till, stranger, phone):
        for socket in (till, stranger):
            await ask(socket, same(wallet.code(), 100, ids))
            await receive(phone)
        await admin.execute(
            "update payment set changed_at = date_trunc('second', now()) where id = $1::text::uuid", ids["payment_id"]
        )
        history = {"type": "history", "message_id": "h", "limit": 1}
        merchants, page = [], await ask(phone, history)
        while page["payments"]:
            merchants += [payment["merchant_id"] for payment in page["payments"]]
            last_cursor, cursor = page["next_cursor"], page["next_cursor"]
            if cursor is None:
                break
            page = await ask(phone, history | {"cursor": last_cursor})
        assert merchants[:2] == [other.merchant_id, shop.merchant_id]
        assert len(merchants) == 3
        # A cursor of an older server has no merchant.
        old = (await ask(phone, history))["next_cursor"].rpartition(".")[0]
        page = await ask(phone, history | {"cursor": old})
        assert page["payments"][0]["purpose"] == "top_up"
