"""`POST /v1/top-ups`, `/v1/withdrawals` and `/v1/cancels`: what a back office may do with cash, and who else hears."""

from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest
import pytest_asyncio

from pos_server import operator_desk
from pos_server.core.api_keys import Scope
from pos_server.ledger import directory
from pos_server.ledger.audit import audit
from pos_server.server import RunningServer, serving
from tests.support import EUR, KEYRING, Town, ask, logged_in, new_id, receive, scan_message, settings

pytestmark = pytest.mark.asyncio
UNKNOWN_WALLET = 1_999_999_999


@pytest_asyncio.fixture
async def server(dsn: str) -> AsyncIterator[RunningServer]:
    async with serving(settings(top_up_minor_max=3_000, balance_minor_max=14_000), KEYRING, dsn) as running:
        yield running


@pytest_asyncio.fixture
async def http(server: RunningServer, town: Town, admin: asyncpg.Connection) -> AsyncIterator[httpx.AsyncClient]:
    """The merchant's back office."""
    key = await operator_desk.new_key(admin, town.merchant_id, "back office", [Scope.CASH])
    async with httpx.AsyncClient(base_url=server.url, headers={"Authorization": f"Bearer {key}"}) as client:
        yield client


def body(town: Town, amount_minor: object = 1_000, **fields: object) -> dict[str, object]:
    number = town.wallets[0].device.number
    return {"payment_id": str(new_id()), "wallet_number": number, "amount_minor": amount_minor} | fields


@pytest.mark.parametrize(
    ("path", "purpose", "balance_minor", "text"),
    [
        ("/v1/top-ups", "top_up", 11_000, "You topped up 10.00 EUR at Corner Canteen."),
        ("/v1/withdrawals", "withdrawal", 9_000, "You took out 10.00 EUR in cash at Corner Canteen."),
    ],
)
async def test_cash_moves_once_and_the_customer_hears(
    path: str,
    purpose: str,
    balance_minor: int,
    text: str,
    server: RunningServer,
    town: Town,
    http: httpx.AsyncClient,
    admin: asyncpg.Connection,
) -> None:
    wish = body(town, reference="receipt-1")
    async with logged_in(server.url, town.wallets[0]) as phone:
        made = await http.post(path, json=wish)
        told = await receive(phone)
        again = await http.post(path, json=wish)
        reused = await http.post(path, json=wish | {"amount_minor": 1})
        taken_back = await http.post("/v1/cancels", json={"payment_id": wish["payment_id"]})
        heard = await receive(phone)
        repeated = await http.post("/v1/cancels", json={"payment_id": wish["payment_id"]})
    assert (made.status_code, again.status_code) == (201, 200)
    assert made.json() == again.json()
    assert made.json() | {"decided_at_ms": 0} == {
        "payment_id": wish["payment_id"],
        "purpose": purpose,
        "status": "approved",
        "wallet_number": town.wallets[0].device.number,
        "reference": "receipt-1",
        "amount_minor": 1_000,
        "currency": "EUR",
        "version": 1,
        "decided_at_ms": 0,
    }
    assert (told["type"], told["purpose"], told["balance_minor"], told["text"]) == (
        "payment.result",
        purpose,
        balance_minor,
        text,
    )
    assert (told["merchant_name"], told["store_name"]) == ("Corner Canteen", "")
    assert (reused.status_code, reused.json()["code"]) == (409, "id_reused")
    assert (taken_back.status_code, repeated.status_code) == (201, 200)
    assert (taken_back.json()["status"], taken_back.json()["version"]) == ("canceled", 2)
    assert taken_back.json() == repeated.json()
    assert (heard["status"], heard["balance_minor"]) == ("canceled", 10_000)
    assert await admin.fetchval("select terminal_number from payment where reference = 'receipt-1'") is None
    assert (await audit(admin)).ok


async def test_what_is_refused(town: Town, http: httpx.AsyncClient, admin: asyncpg.Connection) -> None:
    for path, wish, status, code in (
        ("/v1/top-ups", body(town, 3_001), 409, "amount_over_limit"),
        ("/v1/top-ups", body(town, 3_000, wallet_number=UNKNOWN_WALLET), 404, "wallet_unknown"),
        ("/v1/withdrawals", body(town, 10_001), 409, "insufficient_funds"),
        ("/v1/top-ups", body(town, 0), 400, "bad_field"),
        ("/v1/top-ups", body(town, 1.0), 400, "bad_field"),
        ("/v1/top-ups", body(town, wallet_number=2**70), 400, "bad_field"),
        ("/v1/top-ups", body(town, reference=""), 400, "bad_field"),
        ("/v1/top-ups", body(town, purpose="withdrawal"), 400, "bad_field"),
        ("/v1/withdrawals", {}, 400, "bad_field"),
        ("/v1/withdrawals", [], 400, "bad_json"),
        ("/v1/cancels", {"payment_id": "x"}, 400, "bad_field"),
    ):
        response = await http.post(path, json=wish)
        assert (response.status_code, response.json()["code"]) == (status, code), wish
        assert response.headers["content-type"] == "application/problem+json"
    assert await admin.fetchval("select count(*) from transfer where created_at > now() - interval '1 hour'") == 0


async def test_a_decline_is_stored_and_told_in_words(
    server: RunningServer, town: Town, http: httpx.AsyncClient
) -> None:
    for _ in range(2):
        assert (await http.post("/v1/top-ups", json=body(town, 2_000))).status_code == 201
    over = body(town, 1)
    async with logged_in(server.url, town.wallets[0]) as phone:
        answers = [await http.post("/v1/top-ups", json=over) for _ in range(2)]
        told = await receive(phone)
    assert [answer.status_code for answer in answers] == [409, 409]
    assert answers[0].json() == answers[1].json()
    assert answers[0].json()["code"] == told["decline_code"] == "balance_limit"
    assert answers[0].json()["detail"] == "The wallet cannot hold that much. Top up less."


async def test_a_tills_sale_is_canceled_and_the_till_hears(
    server: RunningServer, town: Town, http: httpx.AsyncClient, admin: asyncpg.Connection
) -> None:
    async with logged_in(server.url, town.terminals[0]) as till:
        paid = await ask(till, scan_message(town.wallets[0].code()))
        response = await http.post("/v1/cancels", json={"payment_id": paid["payment_id"]})
        heard = await receive(till)
    assert (response.status_code, response.json()["status"]) == (201, "canceled")
    assert (heard["payment_id"], heard["status"], heard["reply_to"]) == (paid["payment_id"], "canceled", None)
    assert (await audit(admin)).ok


async def test_spent_money_and_what_never_was(
    server: RunningServer, town: Town, http: httpx.AsyncClient, admin: asyncpg.Connection
) -> None:
    top_up = body(town, 1_000)
    await http.post("/v1/top-ups", json=top_up)
    assert (await http.post("/v1/withdrawals", json=body(town, 10_001))).status_code == 201
    spent = await http.post("/v1/cancels", json={"payment_id": top_up["payment_id"]})
    assert (spent.status_code, spent.json()["code"]) == (409, "funds_spent")
    late = body(town, 5)
    tombstone = await http.post("/v1/cancels", json={"payment_id": late["payment_id"]})
    assert (tombstone.status_code, tombstone.json()["amount_minor"]) == (201, None)
    declined = await http.post("/v1/top-ups", json=late)
    assert (declined.status_code, declined.json()["code"]) == (409, "canceled")
    # A till may have canceled it, too.
    late = body(town, 5)
    async with logged_in(server.url, town.terminals[0]) as till:
        await ask(till, {"type": "payment.cancel", "message_id": "c", "payment_id": late["payment_id"]})
        declined = await http.post("/v1/top-ups", json=late)
    assert (declined.status_code, declined.json()["code"]) == (409, "canceled")
    assert (await audit(admin)).ok


async def test_other_merchants_and_keys_without_the_scope(
    server: RunningServer,
    town: Town,
    http: httpx.AsyncClient,
    connection: asyncpg.Connection,
    admin: asyncpg.Connection,
) -> None:
    ours = body(town)
    await http.post("/v1/top-ups", json=ours)
    stranger = await directory.create_merchant(connection, "Other shop", EUR)
    theirs = await operator_desk.new_key(admin, stranger, "theirs", [Scope.CASH])
    powerless = await operator_desk.new_key(admin, town.merchant_id, "refunds", [Scope.REFUNDS])
    for key, path, wish, status, code in (
        (theirs, "/v1/cancels", {"payment_id": ours["payment_id"]}, 409, "id_reused"),
        (theirs, "/v1/top-ups", ours, 409, "id_reused"),
        (powerless, "/v1/top-ups", body(town), 403, "scope_missing"),
        (powerless, "/v1/withdrawals", body(town), 403, "scope_missing"),
        (powerless, "/v1/cancels", {"payment_id": ours["payment_id"]}, 403, "scope_missing"),
        ("pos_x", "/v1/top-ups", body(town), 401, "unauthorized"),
    ):
        response = await http.post(path, json=wish, headers={"Authorization": f"Bearer {key}"})
        assert (response.status_code, response.json()["code"]) == (status, code)


async def test_an_archived_payment_is_gone(town: Town, http: httpx.AsyncClient, admin: asyncpg.Connection) -> None:
    wish = body(town, 1_000)
    archived = "insert into archived_name (merchant_id, id, status, reference) values ($1, $2, 'approved', $3)"
    await admin.execute(archived, town.merchant_id, wish["payment_id"], "receipt-of-old")
    for path, asked in (
        ("/v1/top-ups", wish),
        ("/v1/withdrawals", wish),
        ("/v1/cancels", {"payment_id": wish["payment_id"]}),
    ):
        response = await http.post(path, json=asked)
        assert (response.status_code, response.json()["code"]) == (410, "payment_archived")
        assert response.headers["content-type"] == "application/problem+json"
    again = await http.post("/v1/top-ups", json=body(town, 1_000, reference="receipt-of-old"))
    assert (again.status_code, again.json()["code"]) == (409, "already_paid")
    assert await admin.fetchval("select count(*) from transfer where created_at > now() - interval '1 hour'") == 0
