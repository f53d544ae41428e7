"""Shifts over WebSockets: opening, contents, X- and Z-report, closing during payments."""

import asyncio
import json
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from websockets.asyncio.client import ClientConnection

from pos_server.core.accounting.receipt_layout import columns
from pos_server.ledger.audit import audit
from pos_server.server import RunningServer, serving
from tests.gateway.test_cancel import cancel_message
from tests.gateway.test_pin import ask_for_pin, confirm_message, set_pin
from tests.gateway.test_refund import refund_message
from tests.shared import shared_database, shared_server
from tests.support import (
    KEYRING,
    Shop,
    ask,
    authenticate,
    logged_in,
    new_id,
    raw_socket,
    receive,
    scan_message,
    settings,
)

pytestmark = pytest.mark.asyncio
dsn = shared_database()
server = shared_server(queries_per_s=1000, queries_burst=1000)


def opening(**fields: Any) -> dict[str, Any]:
    message = {"type": "shift.open", "message_id": "so", "shift_id": str(new_id()), "operator": "Alice"}
    return message | fields


def closing(shift: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"type": "shift.close", "message_id": "sc", "shift_id": shift["shift_id"], **fields}


def query(**fields: Any) -> dict[str, Any]:
    return {"type": "shift.query", "message_id": "sq", **fields}


def totals(report: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Return (count, amount) of each kind that occurred."""
    assert report["type"] == "shift.report", report
    return {total["kind"]: (total["count"], total["amount_minor"]) for total in report["totals"] if total["count"]}


async def test_a_shift_from_opening_to_z_report(server: RunningServer, shop: Shop, admin: asyncpg.Connection) -> None:
    wallet = shop.wallets[0]
    async with logged_in(server.url, shop.terminals[0]) as till, logged_in(server.url, wallet) as phone:
        await set_pin(phone)
        before = await ask(till, scan_message(wallet.code(), amount_minor=150))
        open_request = opening(opening_cash_minor=10_000)
        opened = await ask(till, open_request)
        assert (opened["report"], opened["shift_number"], opened["operator"]) == ("X", 1, "Alice")
        assert (opened["closed_at_ms"], totals(opened), opened["expected_cash_minor"]) == (None, {}, 10_000)

        sold = await ask(till, scan_message(wallet.code(), amount_minor=900))
        await ask(till, refund_message(sold["payment_id"], 200))
        await ask(till, refund_message(before["payment_id"], 50))
        taken_back = await ask(till, scan_message(wallet.code(), amount_minor=700))
        await ask(till, cancel_message(payment_id=taken_back["payment_id"]))
        assert (await ask(till, scan_message(wallet.code(), amount_minor=90_000)))["status"] == "declined"
        topped_up = await ask(till, scan_message(wallet.code(), amount_minor=5_000, purpose="top_up"))
        await ask(till, cancel_message(payment_id=topped_up["payment_id"]))
        await ask(till, scan_message(wallet.code(), amount_minor=2_000, purpose="top_up"))
        while (await receive(phone)).get("payment_id") != topped_up["payment_id"]:
            pass
        await receive(phone), await receive(phone)
        confirmation = await ask_for_pin(till, phone, wallet.code(), amount_minor=400, purpose="withdrawal")
        assert (await ask(till, closing(opened)))["code"] == "payment_pending"
        x_report = await ask(till, query())
        assert totals(x_report)["pending"] == (1, 400)
        await ask(phone, confirm_message(confirmation))
        await receive(till)

        closed = await ask(till, closing(opened, counted_cash_minor=11_500))
        assert (closed["report"], closed["shift_id"]) == ("Z", open_request["shift_id"])
        assert totals(closed) == {
            "sale": (2, 1_600),
            "sale_cancel": (1, 700),
            "refund": (2, 250),
            "top_up": (2, 7_000),
            "top_up_cancel": (1, 5_000),
            "withdrawal": (1, 400),
            "declined": (1, 90_000),
        }
        assert (closed["net_sales_minor"], closed["expected_cash_minor"]) == (650, 11_600)
        assert (closed["counted_cash_minor"], closed["cash_difference_minor"]) == (11_500, -100)

        # Later payments do not change a closed shift, and its report can be repeated.
        after = await ask(till, scan_message(wallet.code(), amount_minor=300))
        await ask(till, cancel_message(payment_id=after["payment_id"]))
        await ask(till, refund_message(sold["payment_id"], 100))
        assert await ask(till, query(message_id="sc", shift_id=open_request["shift_id"])) == closed
        assert await ask(till, closing(opened, counted_cash_minor=11_500)) == closed
        assert (await ask(till, query()))["code"] == "shift_unknown", "no shift is open"
        second = await ask(till, opening(operator="Bob"))
        assert (second["shift_number"], second["operator"]) == (2, "Bob")
    assert (await audit(admin)).ok


async def test_the_printed_report(server: RunningServer, shop: Shop) -> None:
    wallet = shop.wallets[0]
    async with logged_in(server.url, shop.terminals[0]) as till:
        shift = await ask(till, opening(operator="Alice", opening_cash_minor=10_000))
        await ask(till, scan_message(wallet.code(), amount_minor=900))
        await ask(till, scan_message(wallet.code(), amount_minor=2_000, purpose="top_up"))
        await ask(till, closing(shift, counted_cash_minor=12_000))
    async with logged_in(server.url, shop.terminals[0], language="zh-CN") as till:
        chinese = await ask(till, query(shift_id=shift["shift_id"]))
    async with logged_in(server.url, shop.terminals[0]) as till:
        report = await ask(till, query(shift_id=shift["shift_id"]))
    lines = report["text"].split("\n")
    dated = [line for line in lines if not line.startswith(("Opened", "Closed"))]
    assert "\n".join(dated) == (
        f"""\
              Corner Canteen
                Main hall
------------------------------------------
Z-REPORT 1                   Terminal {shop.terminals[0].device.number}
Operator                             Alice
Currency                               EUR
------------------------------------------
    1 Sales                           9.00
    0 Canceled sales                  0.00
    0 Refunds                         0.00
NET SALES                             9.00
------------------------------------------
Opening cash                        100.00
    1 Top-ups                        20.00
    0 Top-ups taken back              0.00
    0 Payouts                         0.00
    0 Payouts taken back              0.00
EXPECTED CASH                       120.00
Counted cash                        120.00
DIFFERENCE                            0.00
------------------------------------------
Not paid
    0 Declined                        0.00
    0 Expired                         0.00
    0 Canceled before paid            0.00
    0 Waiting for the PIN             0.00"""
    )
    assert len(lines) == len(dated) + 2
    assert "Z 报表 1" in chinese["text"]
    for line in (*lines, *chinese["text"].split("\n")):
        assert columns(line) <= 42, line


async def test_times_are_in_the_time_zone_of_the_shop(
    server: RunningServer, shop: Shop, admin: asyncpg.Connection
) -> None:
    await admin.execute("update merchant set time_zone = 'Asia/Tokyo' where id = $1", shop.merchant_id)
    async with logged_in(server.url, shop.terminals[0]) as till:
        shift = await ask(till, opening())
    opened_at = "select to_char(opened_at at time zone 'Asia/Tokyo', 'YYYY-MM-DD HH24:MI') from shift where id = $1"
    local = await admin.fetchval(opened_at, UUID(shift["shift_id"]))
    assert f"Opened{local:>36}" in shift["text"].split("\n")


async def test_a_shift_is_opened_once(server: RunningServer, shop: Shop) -> None:
    open_request = opening()
    async with logged_in(server.url, shop.terminals[0]) as till, logged_in(server.url, shop.terminals[1]) as other:
        first = await ask(till, open_request)
        repeat = await ask(till, open_request)
        assert (repeat["shift_number"], repeat["opened_at_ms"]) == (1, first["opened_at_ms"])
        assert (await ask(till, open_request | {"operator": "Mallory"}))["code"] == "id_reused"
        assert (await ask(till, open_request | {"opening_cash_minor": 1}))["code"] == "id_reused"
        assert (await ask(other, open_request))["code"] == "id_reused"
        error = await ask(till, opening())
        assert (error["code"], error["retryable"]) == ("shift_already_open", False)
        assert (await ask(other, query(shift_id=open_request["shift_id"])))["code"] == "shift_unknown"
        assert (await ask(other, closing(first)))["code"] == "shift_unknown"
        await ask(till, closing(first))
        assert (await ask(till, open_request))["report"] == "Z", "a late repeat must not open a shift"
        assert (await ask(till, query()))["code"] == "shift_unknown"
        assert (await ask(till, closing(first, counted_cash_minor=5)))["code"] == "id_reused"


async def test_ready_has_the_id_of_the_open_shift(server: RunningServer, shop: Shop) -> None:
    async with logged_in(server.url, shop.terminals[0]) as till:
        shift = await ask(till, opening())
    assert await shift_in_ready(server, shop) == shift["shift_id"]
    async with logged_in(server.url, shop.terminals[0]) as till:
        await ask(till, closing(shift))
    assert await shift_in_ready(server, shop) is None


async def shift_in_ready(server: RunningServer, shop: Shop) -> str | None:
    device = shop.terminals[0]
    async with raw_socket(server.url, device.device.kind) as socket:
        hello = await receive(socket)
        ready = await ask(socket, authenticate(device, hello["nonce"]))
        shift_id: str | None = ready["shift_id"]
        return shift_id


async def test_a_refund_counts_in_the_shift_of_the_till_that_makes_it(
    server: RunningServer, shop: Shop, admin: asyncpg.Connection
) -> None:
    wallet = shop.wallets[0]
    async with logged_in(server.url, shop.terminals[0]) as till, logged_in(server.url, shop.terminals[1]) as other:
        mine, theirs = await ask(till, opening()), await ask(other, opening())
        sold = await ask(till, scan_message(wallet.code(), amount_minor=900))
        topped_up = await ask(till, scan_message(wallet.code(), amount_minor=800, purpose="top_up"))
        await ask(other, refund_message(sold["payment_id"], 100))
        await receive(till)
        await ask(other, cancel_message(payment_id=topped_up["payment_id"]))
        await receive(till)
        z_mine, z_theirs = await ask(till, closing(mine)), await ask(other, closing(theirs))
    assert (totals(z_mine), z_mine["expected_cash_minor"]) == ({"sale": (1, 900), "top_up": (1, 800)}, 800)
    assert totals(z_theirs) == {"refund": (1, 100), "top_up_cancel": (1, 800)}
    assert z_theirs["expected_cash_minor"] == -800
    assert (await audit(admin)).ok


async def test_a_disabled_terminal_can_close_its_shift_but_not_open_one(
    server: RunningServer, shop: Shop, admin: asyncpg.Connection
) -> None:
    async with logged_in(server.url, shop.terminals[0]) as till:
        shift = await ask(till, opening())
        number = shop.terminals[0].device.number
        await admin.execute("update terminal set status = 'disabled' where number = $1", number)
        assert (await ask(till, closing(shift)))["report"] == "Z"
        assert (await ask(till, opening()))["code"] == "terminal_disabled"


async def test_bad_fields_are_rejected(server: RunningServer, shop: Shop) -> None:
    async with logged_in(server.url, shop.terminals[0]) as till:
        for fields, field in (
            ({"operator": ""}, "operator"),
            ({"operator": "x" * 41}, "operator"),
            ({"operator": "a\nb"}, "operator"),
            ({"opening_cash_minor": -1}, "opening_cash_minor"),
            ({"opening_cash_minor": 2**53}, "opening_cash_minor"),
            ({"shift_id": "seven"}, "shift_id"),
        ):
            answer = await ask(till, opening(**fields))
            assert (answer["code"], answer["field"]) == ("bad_field", field)


async def test_no_payment_is_missing_when_a_shift_closes_during_payments(
    dsn: str, shop: Shop, admin: asyncpg.Connection
) -> None:
    """Every payment is either in the report or after it. There are two servers and eight shifts."""
    limits = settings(queries_per_s=1000, queries_burst=1000)
    inside = outside = 0
    async with (
        serving(limits, KEYRING, dsn) as one,
        serving(limits, KEYRING, dsn) as two,
        logged_in(one.url, shop.terminals[0]) as till,
        logged_in(two.url, shop.terminals[1]) as other,
    ):
        for _ in range(8):
            shift = await ask(till, opening())
            scans = [scan_message(wallet.code(), amount_minor=1) for wallet in shop.wallets]
            scans += [scan_message("1234") for _ in range(3)]
            answers = await race(till, scans, closing(shift))
            results = [answer for answer in answers if answer["type"] == "payment.result"]
            (closed,) = (answer for answer in answers if answer["type"] == "shift.report")
            assert sorted(answer["status"] for answer in results) == ["approved"] * 3 + ["declined"] * 3
            counted = sum(count for count, _ in totals(closed).values())
            stamped = await admin.fetchval("select count(*) from payment where shift_id = $1", UUID(closed["shift_id"]))
            assert counted == stamped
            inside, outside = inside + counted, outside + len(scans) - counted
            await ask(other, cancel_message(payment_id=scans[0]["payment_id"]))
            await receive(till)
    assert (await audit(admin)).ok
    assert inside + outside == 8 * 6


async def race(socket: ClientConnection, scans: list[dict[str, Any]], last: dict[str, Any]) -> list[dict[str, Any]]:
    """Send all messages at once, the close in the middle. Returns the answers in order of arrival."""
    middle = len(scans) // 2
    for message in (*scans[:middle], last, *scans[middle:]):
        await socket.send(json.dumps(message))
    async with asyncio.timeout(20):
        return [json.loads(await socket.recv()) for _ in range(len(scans) + 1)]
