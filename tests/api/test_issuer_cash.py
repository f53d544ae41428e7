"""Top-ups and withdrawals through the API: responses, transfers and notices."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest
import pytest_asyncio

from pos_server.core.rest.idempotency import derived_id
from pos_server.ledger import directory
from pos_server.ledger.audit import audit
from pos_server.server import RunningServer, serving
from tests.api.clients import idempotent, issuer_client, problem
from tests.support import KEYRING, Shop, ask, logged_in, new_id, receive, scan_message, settings

pytestmark = pytest.mark.asyncio
UNKNOWN_WALLET = 1_999_999_999


@pytest_asyncio.fixture
async def server(dsn: str) -> AsyncIterator[RunningServer]:
    async with serving(settings(top_up_minor_max=3_000, balance_minor_max=14_000), KEYRING, dsn) as running:
        yield running


@pytest_asyncio.fixture
async def api(server: RunningServer, admin: asyncpg.Connection) -> AsyncIterator[httpx.AsyncClient]:
    async with issuer_client(server, admin) as client:
        yield client


def body(shop: Shop, amount_minor: object = 1_000, **fields: object) -> dict[str, object]:
    number = shop.wallets[0].device.number
    return {"wallet_number": number, "merchant_id": shop.merchant_id, "amount_minor": amount_minor} | fields


@pytest.mark.parametrize(
    ("path", "purpose", "balance_minor", "notice_text", "text", "cancel_text"),
    [
        (
            "/v1/top-ups",
            "top_up",
            11_000,
            "You topped up 10.00 EUR at Corner Canteen.",
            "Topped up by 10.00 EUR. Take the cash.",
            "The top-up of 10.00 EUR was taken back. Return the cash.",
        ),
        (
            "/v1/withdrawals",
            "withdrawal",
            9_000,
            "You took out 10.00 EUR in cash at Corner Canteen.",
            "Pay out 10.00 EUR in cash.",
            "The payout of 10.00 EUR was taken back. Take the cash back.",
        ),
    ],
)
async def test_cash_moves_once_and_the_customer_is_notified(
    path: str,
    purpose: str,
    balance_minor: int,
    notice_text: str,
    text: str,
    cancel_text: str,
    server: RunningServer,
    shop: Shop,
    api: httpx.AsyncClient,
    admin: asyncpg.Connection,
) -> None:
    request_body = body(shop, reference="receipt-1")
    async with logged_in(server.url, shop.wallets[0]) as phone:
        made = await api.post(path, json=request_body, headers=idempotent("k"))
        notice = await receive(phone)
        again = await api.post(path, json=request_body, headers=idempotent("k"))
        reused = await api.post(path, json=request_body | {"amount_minor": 1}, headers=idempotent("k"))
        read = await api.get(f"{path}/{made.json()['payment_id']}")
        canceled = await api.post(f"{path}/{made.json()['payment_id']}/cancel")
        canceled_notice = await receive(phone)
        repeated = await api.post(f"{path}/{made.json()['payment_id']}/cancel")
    assert (made.status_code, again.status_code, read.status_code) == (201, 200, 200)
    assert made.json() == again.json() == read.json()
    assert made.json() | {"decided_at": ""} == {
        "payment_id": str(derived_id("issuer", "createTopUp" if purpose == "top_up" else "createWithdrawal", "k")),
        "purpose": purpose,
        "status": "approved",
        "decline_code": None,
        "text": text,
        "wallet_number": shop.wallets[0].device.number,
        "merchant_id": shop.merchant_id,
        "terminal_number": None,
        "reference": "receipt-1",
        "amount_minor": 1_000,
        "currency": "EUR",
        "version": 1,
        "decided_at": "",
    }
    assert (notice["type"], notice["purpose"], notice["balance_minor"], notice["text"]) == (
        "payment.result",
        purpose,
        balance_minor,
        notice_text,
    )
    assert (notice["merchant_name"], notice["store_name"]) == ("Corner Canteen", "")
    assert problem(reused) == (422, "idempotency_key_reused", None)
    assert (canceled.status_code, repeated.status_code, canceled.json()) == (200, 200, repeated.json())
    assert (canceled.json()["status"], canceled.json()["version"], canceled.json()["text"]) == (
        "canceled",
        2,
        cancel_text,
    )
    assert (canceled_notice["status"], canceled_notice["balance_minor"]) == ("canceled", 10_000)
    assert await admin.fetchval("select terminal_number from payment where reference = 'receipt-1'") is None
    assert (await audit(admin)).ok


async def test_the_default_reference_is_the_payment_id(shop: Shop, api: httpx.AsyncClient) -> None:
    made = (await api.post("/v1/top-ups", json=body(shop), headers=idempotent())).json()
    assert made["reference"] == made["payment_id"]
    assert UUID(made["payment_id"]).version == 8


async def test_rejected_requests(shop: Shop, api: httpx.AsyncClient, admin: asyncpg.Connection) -> None:
    for path, request_body, expected in (
        ("/v1/top-ups", body(shop, wallet_number=UNKNOWN_WALLET), (404, "wallet_unknown", None)),
        ("/v1/top-ups", body(shop, merchant_id=7_000), (404, "not_found", "/merchant_id")),
        ("/v1/top-ups", body(shop, 0), (400, "bad_field", "/amount_minor")),
        ("/v1/top-ups", body(shop, 1.0), (400, "bad_field", "/amount_minor")),
        ("/v1/top-ups", body(shop, wallet_number=2**70), (400, "bad_field", "/wallet_number")),
        ("/v1/top-ups", body(shop, reference=""), (400, "bad_field", "/reference")),
        ("/v1/top-ups", body(shop, purpose="withdrawal"), (400, "bad_field", "/purpose")),
        ("/v1/withdrawals", {}, (400, "bad_field", "/wallet_number")),
        ("/v1/withdrawals", [], (400, "bad_json", None)),
    ):
        assert problem(await api.post(path, json=request_body, headers=idempotent())) == expected, request_body
    assert problem(await api.post("/v1/top-ups", json=body(shop))) == (400, "idempotency_key_missing", None)
    assert await admin.fetchval("select count(*) from transfer where created_at > now() - interval '1 hour'") == 0


async def test_a_decline_is_stored_and_has_a_text(server: RunningServer, shop: Shop, api: httpx.AsyncClient) -> None:
    for _ in range(2):
        assert (await api.post("/v1/top-ups", json=body(shop, 2_000), headers=idempotent())).json()[
            "status"
        ] == "approved"
    async with logged_in(server.url, shop.wallets[0]) as phone:
        answers = [await api.post("/v1/top-ups", json=body(shop, 1), headers=idempotent("over")) for _ in range(2)]
        notice = await receive(phone)
    assert [answer.status_code for answer in answers] == [201, 200]
    assert answers[0].json() == answers[1].json()
    declined = answers[0].json()
    assert (declined["status"], declined["decline_code"]) == ("declined", "balance_limit")
    assert notice["decline_code"] == "balance_limit"
    assert declined["text"] == "The wallet cannot hold that much. Top up less."
    # A cancel of a declined payment changes nothing and is not an error.
    canceled = await api.post(f"/v1/top-ups/{declined['payment_id']}/cancel")
    assert (canceled.status_code, canceled.json()) == (200, declined)


@pytest.mark.parametrize(
    ("path", "fields", "sql", "code"),
    [
        ("/v1/top-ups", {"amount_minor": 3_001}, None, "amount_over_limit"),
        ("/v1/withdrawals", {"amount_minor": 10_001}, None, "insufficient_funds"),
        ("/v1/top-ups", {}, "update wallet set status = 'frozen'", "wallet_frozen"),
        ("/v1/withdrawals", {}, "update wallet set status = 'closed'", "wallet_closed"),
        ("/v1/top-ups", {}, "update merchant set status = 'inactive'", "merchant_inactive"),
        ("/v1/top-ups", {}, "update wallet set top_up_minor_max = 999", "amount_over_limit"),
    ],
)
async def test_decline_codes(
    path: str,
    fields: dict[str, Any],
    sql: str | None,
    code: str,
    shop: Shop,
    api: httpx.AsyncClient,
    admin: asyncpg.Connection,
) -> None:
    if sql is not None:
        await admin.execute(sql)
    made = await api.post(path, json=body(shop) | fields, headers=idempotent())
    assert (made.status_code, made.json()["status"], made.json()["decline_code"]) == (201, "declined", code)


async def test_a_merchant_of_another_currency_cannot_take_the_cash(
    shop: Shop, api: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    abroad = await directory.create_merchant(connection, "Kiosk", "JPY")
    made = await api.post("/v1/top-ups", json=body(shop, merchant_id=abroad), headers=idempotent())
    assert (made.json()["decline_code"], made.json()["currency"]) == ("currency_mismatch", "JPY")


async def test_a_spent_top_up_cannot_be_canceled(shop: Shop, api: httpx.AsyncClient, admin: asyncpg.Connection) -> None:
    top_up = (await api.post("/v1/top-ups", json=body(shop), headers=idempotent())).json()
    out = await api.post("/v1/withdrawals", json=body(shop, 10_001), headers=idempotent())
    assert out.json()["status"] == "approved"
    spent = await api.post(f"/v1/top-ups/{top_up['payment_id']}/cancel")
    assert problem(spent) == (409, "funds_spent", None)
    await admin.execute("update payment set approved_at = approved_at - interval '25 hours'")
    late = await api.post(f"/v1/withdrawals/{out.json()['payment_id']}/cancel")
    assert problem(late) == (409, "cancel_too_late", None)


async def test_unknown_payments_are_not_found_and_leave_nothing(
    server: RunningServer, shop: Shop, api: httpx.AsyncClient, admin: asyncpg.Connection
) -> None:
    top_up = (await api.post("/v1/top-ups", json=body(shop), headers=idempotent())).json()["payment_id"]
    async with logged_in(server.url, shop.terminals[0]) as till:
        sale = (await ask(till, scan_message(shop.wallets[1].code())))["payment_id"]
        tombstone = str(new_id())
        await ask(till, {"type": "payment.cancel", "message_id": "c", "payment_id": tombstone})
    before = await admin.fetchval("select count(*) from payment")
    for address in (
        f"/v1/withdrawals/{top_up}",
        f"/v1/top-ups/{sale}",
        f"/v1/withdrawals/{sale}",
        f"/v1/top-ups/{tombstone}",
        f"/v1/top-ups/{new_id()}",
    ):
        assert problem(await api.get(address)) == (404, "payment_unknown", None)
        assert problem(await api.post(f"{address}/cancel")) == (404, "payment_unknown", None)
    assert problem(await api.get("/v1/top-ups/x")) == (404, "not_found", None)
    assert await admin.fetchval("select count(*) from payment") == before
    assert await admin.fetchval("select status from payment where id = $1", UUID(sale)) == "approved"


async def test_a_terminals_top_up_is_canceled_and_the_terminal_is_notified(
    server: RunningServer, shop: Shop, api: httpx.AsyncClient, admin: asyncpg.Connection
) -> None:
    async with logged_in(server.url, shop.terminals[0]) as till:
        paid = await ask(till, scan_message(shop.wallets[0].code(), purpose="top_up"))
        read = (await api.get(f"/v1/top-ups/{paid['payment_id']}")).json()
        canceled = await api.post(f"/v1/top-ups/{paid['payment_id']}/cancel")
        notice = await receive(till)
    assert (read["status"], read["terminal_number"]) == ("approved", shop.terminals[0].device.number)
    assert canceled.json()["status"] == "canceled"
    assert (notice["payment_id"], notice["status"], notice["reply_to"]) == (paid["payment_id"], "canceled", None)
    assert (await audit(admin)).ok


async def test_an_archived_payment_is_gone(shop: Shop, api: httpx.AsyncClient, admin: asyncpg.Connection) -> None:
    archived = "insert into archived_name (merchant_id, id, status, reference) values ($1, $2, 'approved', $3)"
    for operation, path in (("createTopUp", "/v1/top-ups"), ("createWithdrawal", "/v1/withdrawals")):
        payment_id = derived_id("issuer", operation, "old")
        await admin.execute(archived, shop.merchant_id, payment_id, f"receipt-of-{operation}")
        for response in (
            await api.post(path, json=body(shop), headers=idempotent("old")),
            await api.get(f"{path}/{payment_id}"),
            await api.post(f"{path}/{payment_id}/cancel"),
        ):
            assert problem(response) == (410, "payment_archived", None)
    again = await api.post("/v1/top-ups", json=body(shop, reference="receipt-of-createTopUp"), headers=idempotent())
    assert again.json()["decline_code"] == "already_paid"
    assert await admin.fetchval("select count(*) from transfer where created_at > now() - interval '1 hour'") == 0
