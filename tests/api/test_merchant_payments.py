"""What keys of the role `merchant` may do with payments; each sees only its own merchant."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from pos_server.ledger.audit import audit
from pos_server.ledger.sql import QUERIES
from pos_server.server import RunningServer, serving
from tests.api.back_office import back_office, once, told
from tests.gateway.test_pin import confirm_message, set_pin
from tests.gateway.test_shifts import opening
from tests.support import KEYRING, Shop, ask, forged, logged_in, new_id, receive, scan_message, settings

pytestmark = pytest.mark.asyncio


def wish(shop: Shop, **fields: Any) -> dict[str, Any]:
    """A payment of 10.00 EUR with a fresh code, unless told otherwise."""
    body = {
        "terminal_number": shop.terminals[0].device.number,
        "code": shop.wallets[0].code(),
        "amount_minor": 1_000,
        "reference": f"order-{new_id()}",
    }
    return body | fields


async def pay(api: httpx.AsyncClient, shop: Shop, **fields: Any) -> dict[str, Any]:
    response = await api.post("/v1/payments", json=wish(shop, **fields), headers=once())
    assert response.status_code == 201, response.text
    payment: dict[str, Any] = response.json()
    return payment


async def test_a_scanned_code_pays_once_and_everybody_hears(
    server: RunningServer, shop: Shop, api: httpx.AsyncClient, stranger: httpx.AsyncClient, admin: asyncpg.Connection
) -> None:
    body = wish(shop, reference="order-1")
    async with logged_in(server.url, shop.terminals[0]) as till, logged_in(server.url, shop.wallets[0]) as phone:
        made = await api.post("/v1/payments", json=body, headers=once("p"))
        at_till, on_phone = await receive(till), await receive(phone)
    again = await api.post("/v1/payments", json=body, headers=once("p"))
    assert (made.status_code, again.status_code, again.json()) == (201, 200, made.json())
    payment = made.json()
    assert payment | {"payment_id": "", "changed_at": "", "approved_at": ""} == {
        "payment_id": "",
        "version": 1,
        "terminal_number": body["terminal_number"],
        "reference": "order-1",
        "purpose": "sale",
        "amount_minor": 1_000,
        "currency": "EUR",
        "status": "approved",
        "decline_code": None,
        "retryable": False,
        "next_step": None,
        "text": "Paid 10.00 EUR.",
        "paid_by": None,
        "refunded_minor": 0,
        "refundable_minor": 1_000,
        "fee_minor": 0,
        "shift_id": None,
        "changed_at": "",
        "approved_at": "",
        "expires_at": None,
    }
    assert (at_till["payment_id"], at_till["reply_to"], at_till["status"]) == (payment["payment_id"], None, "approved")
    assert (on_phone["payment_id"], on_phone["balance_minor"]) == (payment["payment_id"], 9_000)
    path = f"/v1/payments/{payment['payment_id']}"
    assert (await api.get(path)).json() == payment
    chinese = await api.get(path, headers={"Accept-Language": "fr, zh-CN;q=0.8, en;q=0.5"})
    assert (chinese.headers["content-language"], chinese.json()["text"]) == ("zh", "已收款 10.00 EUR。")
    reused = await api.post("/v1/payments", json=body | {"amount_minor": 1}, headers=once("p"))
    assert told(reused) == (422, "idempotency_key_reused", None)
    missing = await stranger.get(path), await stranger.get(f"/v1/payments/{new_id()}")
    assert told(missing[0]) == told(missing[1]) == (404, "payment_unknown", None)
    assert (await audit(admin)).ok


async def test_a_decline_is_a_payment_too(shop: Shop, api: httpx.AsyncClient) -> None:
    first = await pay(api, shop, amount_minor=10_001)
    assert (first["status"], first["decline_code"], first["next_step"]) == (
        "declined",
        "insufficient_funds",
        "other_payment",
    )
    no_code = await pay(api, shop, code="hello")
    assert (no_code["decline_code"], no_code["retryable"]) == ("code_malformed", True)
    paid = await pay(api, shop, reference="order-1")
    twice = await pay(api, shop, reference="order-1")
    assert (twice["decline_code"], twice["paid_by"]) == ("already_paid", paid["payment_id"])


async def test_what_needs_the_pin_is_pending_until_the_customer_confirms(
    server: RunningServer, shop: Shop, api: httpx.AsyncClient
) -> None:
    async with logged_in(server.url, shop.wallets[0]) as phone:
        await set_pin(phone)
        body = wish(shop, entry="typed")
        pending = await api.post("/v1/payments", json=body, headers=once("p"))
        asked = await receive(phone)
        path = f"/v1/payments/{pending.json()['payment_id']}"
        waits = await api.get(path)
        await ask(phone, confirm_message(asked))
        repeated = await api.post("/v1/payments", json=body, headers=once("p"))
    assert (pending.status_code, pending.json()["status"]) == (202, "pending")
    assert pending.json()["expires_at"] > pending.json()["changed_at"]
    assert (waits.status_code, waits.json()) == (200, pending.json())
    # A repeat says what it is now.
    assert (repeated.status_code, repeated.json()["status"], repeated.json()["version"]) == (200, "approved", 2)
    assert repeated.json() == (await api.get(path)).json()


async def test_cash_moves_by_a_code_and_a_spent_top_up_stays(
    shop: Shop, api: httpx.AsyncClient, admin: asyncpg.Connection
) -> None:
    top_up = await pay(api, shop, purpose="top_up", amount_minor=2_000)
    assert (top_up["status"], top_up["purpose"], top_up["refundable_minor"]) == ("approved", "top_up", 0)
    # Cash that goes out needs the PIN, however little it is.
    withdrawal = await api.post("/v1/payments", json=wish(shop, purpose="withdrawal"), headers=once())
    assert (withdrawal.status_code, withdrawal.json()["status"]) == (202, "pending")
    assert (await api.post(f"/v1/payments/{withdrawal.json()['payment_id']}/cancel")).json()["status"] == "canceled"
    await pay(api, shop, amount_minor=11_000)
    spent = await api.post(f"/v1/payments/{top_up['payment_id']}/cancel")
    assert told(spent) == (409, "funds_spent", None)
    refused = await api.post(f"/v1/payments/{top_up['payment_id']}/refunds", json={"amount_minor": 1}, headers=once())
    assert told(refused) == (409, "not_refundable", None)
    assert (await audit(admin)).ok


async def test_a_payment_counts_in_the_open_shift_of_its_terminal(
    server: RunningServer, shop: Shop, api: httpx.AsyncClient
) -> None:
    async with logged_in(server.url, shop.terminals[0]) as till:
        opened = await ask(till, opening())
    payment = await pay(api, shop)
    assert payment["shift_id"] == opened["shift_id"]
    shift = (await api.get(f"/v1/shifts/{opened['shift_id']}")).json()
    assert shift["net_sales_minor"] == 1_000
    # A refund by the API is of no till, and so of no shift.
    path = f"/v1/payments/{payment['payment_id']}/refunds"
    refund = await api.post(path, json={"amount_minor": 100}, headers=once())
    assert refund.json()["shift_id"] is None
    assert (await api.get(f"/v1/shifts/{opened['shift_id']}")).json()["net_sales_minor"] == 1_000


async def test_bad_bodies_and_other_terminals(shop: Shop, api: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    for fields, pointer in (
        ({"amount_minor": 0}, "/amount_minor"),
        ({"amount_minor": 1.0}, "/amount_minor"),
        ({"amount_minor": True}, "/amount_minor"),
        ({"reference": ""}, "/reference"),
        ({"code": "1" * 300}, "/code"),
        ({"entry": "shouted"}, "/entry"),
        ({"purpose": "gift"}, "/purpose"),
        ({"currency": "EUR"}, "/currency"),
    ):
        refused = await api.post("/v1/payments", json=wish(shop, **fields), headers=once())
        assert told(refused) == (400, "bad_field", pointer), fields
    theirs = await stranger.post("/v1/payments", json=wish(shop), headers=once())
    nobodys = await api.post("/v1/payments", json=wish(shop, terminal_number=7_000), headers=once())
    assert told(theirs) == told(nobodys) == (404, "not_found", "/terminal_number")


async def test_forged_codes_block_the_terminal_whichever_way_they_come(
    dsn: str, shop: Shop, admin: asyncpg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    code = forged(shop.wallets[0].code())
    async with (
        serving(settings(bad_codes_max=2), KEYRING, dsn) as server,
        back_office(server.url, admin, shop.merchant_id) as api,
        logged_in(server.url, shop.terminals[0]) as till,
    ):
        assert (await ask(till, scan_message(code)))["decline_code"] == "code_invalid"
        assert (await pay(api, shop, code=code))["decline_code"] == "code_invalid"
        assert (await receive(till))["decline_code"] == "code_invalid"
        blocked = await api.post("/v1/payments", json=wish(shop), headers=once())
        assert told(blocked) == (429, "too_many_bad_codes", None)
        assert 0 < int(blocked.headers["retry-after"]) <= 60
        assert (await ask(till, scan_message(shop.wallets[0].code())))["code"] == "too_many_bad_codes"
        other = shop.terminals[1].device.number
        assert (await pay(api, shop, terminal_number=other))["status"] == "approved"
        # Neither a log nor a problem says a code.
        refused = await api.post("/v1/payments", json=wish(shop, code=[code]), headers=once())
    logged = capsys.readouterr()
    assert "api_request" in logged.out + logged.err
    assert code not in logged.out + logged.err + refused.text


async def test_what_is_refused_at_the_api_is_not_told_the_till(
    server: RunningServer, shop: Shop, api: httpx.AsyncClient
) -> None:
    body = wish(shop)
    await api.post("/v1/payments", json=body, headers=once("p"))
    async with logged_in(server.url, shop.terminals[0]) as till:
        await api.post("/v1/payments", json=body | {"amount_minor": 1}, headers=once("p"))
        answer = await ask(till, scan_message(shop.wallets[0].code()))
    assert (answer["type"], answer["status"]) == ("payment.result", "approved")


async def test_a_payment_is_canceled_by_its_id(
    server: RunningServer,
    shop: Shop,
    api: httpx.AsyncClient,
    stranger: httpx.AsyncClient,
    admin: asyncpg.Connection,
) -> None:
    async with logged_in(server.url, shop.terminals[0]) as till:
        payment_id = (await ask(till, scan_message(shop.wallets[0].code())))["payment_id"]
        path = f"/v1/payments/{payment_id}/cancel"
        assert told(await stranger.post(path)) == (404, "payment_unknown", None)
        canceled = await api.post(path)
        heard = await receive(till)
    again = await api.post(path)
    assert (canceled.status_code, canceled.json()["status"], canceled.json()["version"]) == (200, "canceled", 2)
    assert (again.status_code, again.json()) == (200, canceled.json())
    assert (heard["payment_id"], heard["status"], heard["reply_to"]) == (payment_id, "canceled", None)
    # An id of nobody leaves no tombstone.
    unknown = new_id()
    assert told(await api.post(f"/v1/payments/{unknown}/cancel")) == (404, "payment_unknown", None)
    assert await admin.fetchval("select count(*) from payment where id = $1", unknown) == 0
    refunded = await pay(api, shop)
    path = f"/v1/payments/{refunded['payment_id']}"
    await api.post(f"{path}/refunds", json={"amount_minor": 1}, headers=once())
    assert told(await api.post(f"{path}/cancel")) == (409, "already_refunded", None)
    assert (await audit(admin)).ok


async def test_an_order_is_canceled_by_its_reference_before_it_arrives_too(
    shop: Shop, api: httpx.AsyncClient, stranger: httpx.AsyncClient, admin: asyncpg.Connection
) -> None:
    paid = await pay(api, shop, reference="order-1")
    # Another merchant's order of the same number is another order.
    theirs = await stranger.post("/v1/cancels", json={"reference": "order-1"})
    assert (theirs.status_code, theirs.json()["amount_minor"]) == (200, None)
    canceled = await api.post("/v1/cancels", json={"reference": "order-1"})
    assert (canceled.json()["payment_id"], canceled.json()["status"]) == (paid["payment_id"], "canceled")
    tombstones = await asyncio.gather(*(api.post("/v1/cancels", json={"reference": "order-2"}) for _ in range(5)))
    assert len({response.text for response in tombstones}) == 1
    assert (tombstones[0].status_code, tombstones[0].json()["amount_minor"]) == (200, None)
    late = await pay(api, shop, reference="order-2")
    assert (late["status"], late["decline_code"]) == ("declined", "canceled")
    assert told(await api.post("/v1/cancels", json={})) == (400, "bad_field", "/reference")
    by_id = {"payment_id": paid["payment_id"]}
    assert told(await api.post("/v1/cancels", json=by_id | {"reference": "x"})) == (400, "bad_field", "/payment_id")
    assert (await audit(admin)).ok


async def test_a_refund_is_made_once_and_everybody_hears(
    server: RunningServer, shop: Shop, api: httpx.AsyncClient, admin: asyncpg.Connection
) -> None:
    payment = await pay(api, shop)
    path = f"/v1/payments/{payment['payment_id']}/refunds"
    async with logged_in(server.url, shop.terminals[0]) as till, logged_in(server.url, shop.wallets[0]) as phone:
        made = await api.post(path, json={"amount_minor": 300}, headers=once("r"))
        at_till, on_phone = await receive(till), await receive(phone)
        again = await api.post(path, json={"amount_minor": 300}, headers=once("r"))
    assert (made.status_code, again.status_code, again.json()) == (201, 200, made.json())
    refund = made.json()
    assert refund | {"refund_id": "", "created_at": ""} == {
        "refund_id": "",
        "payment_id": payment["payment_id"],
        "terminal_number": None,
        "amount_minor": 300,
        "currency": "EUR",
        "shift_id": None,
        "created_at": "",
    }
    assert (at_till["type"], at_till["reply_to"], at_till["refund_id"]) == ("refund.result", None, refund["refund_id"])
    assert (on_phone["type"], on_phone["balance_minor"]) == ("refund.result", 9_300)
    second = await api.post(path, json={"amount_minor": 200}, headers=once())
    page = (await api.get(path, params={"limit": 1})).json()
    rest = (await api.get(path, params={"limit": 1, "cursor": page["next_cursor"]})).json()
    assert [*page["items"], *rest["items"]] == [refund, second.json()]
    assert rest["next_cursor"] is None
    shown = (await api.get(f"/v1/payments/{payment['payment_id']}")).json()
    assert (shown["refunded_minor"], shown["refundable_minor"], shown["version"]) == (500, 500, 3)
    assert shown["text"] == "Paid 10.00 EUR, of which 5.00 EUR was refunded."
    assert (await audit(admin)).ok


async def test_refunds_that_are_refused(
    shop: Shop, api: httpx.AsyncClient, stranger: httpx.AsyncClient, admin: asyncpg.Connection
) -> None:
    payment, other = await pay(api, shop), await pay(api, shop)
    declined = await pay(api, shop, code="hello")
    path = f"/v1/payments/{payment['payment_id']}/refunds"
    await api.post(path, json={"amount_minor": 300}, headers=once("r"))
    for where, body, key, expected in (
        (path, {"amount_minor": 1}, "r", (422, "idempotency_key_reused", None)),
        (
            f"/v1/payments/{other['payment_id']}/refunds",
            {"amount_minor": 300},
            "r",
            (422, "idempotency_key_reused", None),
        ),
        (path, {"amount_minor": 701}, "s", (409, "refund_exceeds_remaining", None)),
        (f"/v1/payments/{declined['payment_id']}/refunds", {"amount_minor": 1}, "s", (409, "not_refundable", None)),
        (f"/v1/payments/{new_id()}/refunds", {"amount_minor": 1}, "s", (404, "payment_unknown", None)),
        ("/v1/payments/x/refunds", {"amount_minor": 1}, "s", (404, "not_found", None)),
        (path, {"amount_minor": 0}, "s", (400, "bad_field", "/amount_minor")),
        (path, {"amount_minor": 1.0}, "s", (400, "bad_field", "/amount_minor")),
        (path, {"amount_minor": 1, "extra": 1}, "s", (400, "bad_field", "/extra")),
        (path, {}, "s", (400, "bad_field", "/amount_minor")),
        (path, [], "s", (400, "bad_json", None)),
    ):
        assert told(await api.post(where, json=body, headers=once(key))) == expected
    theirs = await stranger.post(path, json={"amount_minor": 1}, headers=once())
    assert told(theirs) == (404, "payment_unknown", None)
    assert told(await stranger.get(path)) == (404, "payment_unknown", None)
    huge = await api.post(path, content=b" " * 5000, headers=once() | {"Content-Type": "application/json"})
    assert told(huge) == (413, "body_too_large", None)
    assert await admin.fetchval("select sum(refunded_minor)::bigint from payment where purpose = 'sale'") == 300


async def test_what_is_archived_is_gone(shop: Shop, api: httpx.AsyncClient, admin: asyncpg.Connection) -> None:
    old, body = new_id(), wish(shop)
    made = await api.post("/v1/payments", json=body, headers=once("p"))
    archived = "insert into archived_name (merchant_id, id, status, reference) values ($1, $2, 'approved', $3)"
    await admin.execute(archived, shop.merchant_id, old, "order-of-old")
    gone = (410, "payment_archived", None)
    assert told(await api.get(f"/v1/payments/{old}")) == gone
    assert told(await api.post(f"/v1/payments/{old}/cancel")) == gone
    assert told(await api.post(f"/v1/payments/{old}/refunds", json={"amount_minor": 1}, headers=once())) == gone
    assert told(await api.get(f"/v1/payments/{old}/refunds")) == gone
    assert told(await api.post("/v1/cancels", json={"reference": "order-of-old"})) == gone
    assert (await pay(api, shop, reference="order-of-old"))["decline_code"] == "already_paid"
    await admin.execute(archived, shop.merchant_id, made.json()["payment_id"], None)
    assert told(await api.post("/v1/payments", json=body, headers=once("p"))) == gone
    # An archived refund's key stays used.
    payment = await pay(api, shop)
    path = f"/v1/payments/{payment['payment_id']}/refunds"
    refund = await api.post(path, json={"amount_minor": 1}, headers=once("r"))
    await admin.execute("insert into archived_refund (id) values ($1)", refund.json()["refund_id"])
    other = await pay(api, shop)
    reused = await api.post(f"/v1/payments/{other['payment_id']}/refunds", json={"amount_minor": 1}, headers=once("r"))
    assert told(reused) == (422, "idempotency_key_reused", None)


async def references(api: httpx.AsyncClient, limit: int = 100, **query: Any) -> list[str]:
    """The references of all pages of a list."""
    found: list[str] = []
    cursor = None
    while True:
        asked = {"limit": limit} | query | ({} if cursor is None else {"cursor": cursor})
        page = await api.get("/v1/payments", params=asked)
        assert page.status_code == 200, page.text
        assert len(page.json()["items"]) <= limit
        found += [payment["reference"] for payment in page.json()["items"]]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            return found


async def test_payments_are_listed_latest_first_and_filtered(
    shop: Shop, api: httpx.AsyncClient, stranger: httpx.AsyncClient, admin: asyncpg.Connection
) -> None:
    # The shop's own top-ups have no terminal, as what the API does.
    first = await references(api)
    assert len(first) == 3
    garden = (await api.post("/v1/stores", json={"name": "Garden"}, headers=once())).json()["store_id"]
    body = {"store_id": garden, "name": "Bar"}
    bar = (await api.post("/v1/terminals", json=body, headers=once())).json()["terminal_number"]
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
    # A second later, each: `from` is included, `to` is not.
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
        assert told(await api.get("/v1/payments", params=wrong)) == (400, "bad_field", pointer)


async def test_pages_stay_right_while_payments_change(shop: Shop, api: httpx.AsyncClient) -> None:
    paid = [await pay(api, shop, reference=f"r{number}", amount_minor=10) for number in range(6)]
    page = (await api.get("/v1/payments", params={"limit": 2})).json()
    assert [payment["reference"] for payment in page["items"]] == ["r5", "r4"]
    # One that was seen and one that was not move to the front, and a new one comes.
    for number in (4, 1):
        await api.post(f"/v1/payments/{paid[number]['payment_id']}/cancel")
    await pay(api, shop, reference="r6", amount_minor=10)
    rest = await references(api, 2, cursor=page["next_cursor"])
    assert rest[:3] == ["r3", "r2", "r0"]
    assert await references(api, 2, **{"from": page["items"][0]["changed_at"]}) == ["r6", "r1", "r4", "r5"]


async def test_payments_of_one_moment_are_each_shown_once(
    shop: Shop, api: httpx.AsyncClient, admin: asyncpg.Connection
) -> None:
    for number in range(5):
        await pay(api, shop, reference=f"r{number}", amount_minor=10)
    await admin.execute(
        "update payment set changed_at = '2026-03-02 12:00:00.000123Z' where terminal_number is not null"
    )
    shown = await references(api, 2, terminal_number=shop.terminals[0].device.number)
    assert sorted(shown) == [f"r{number}" for number in range(5)]


async def test_a_list_reads_a_page_of_each_terminal_by_its_index(admin: asyncpg.Connection, shop: Shop) -> None:
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
            f"explain (analyze, format json) {QUERIES['merchant_payments']}",
            shop.merchant_id,
            *[None] * 7,
            51,
        )
    )
    read = list(rows_read(plan[0]["Plan"]))
    assert {"payment_terminal", "payment_office"} <= {index for index, _ in read}
    assert max(rows for _, rows in read) < 100


def rows_read(node: dict[str, Any]) -> Any:
    """The index and the rows of each scan of payments."""
    if node.get("Relation Name") == "payment":
        yield node.get("Index Name"), node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
    for inner in node.get("Plans", ()):
        yield from rows_read(inner)
