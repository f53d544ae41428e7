"""Cancels over WebSockets."""

from typing import Any
from uuid import UUID

import asyncpg
import pytest

from pos_server.core.credentials.device_keys import DeviceId, DeviceKind
from pos_server.ledger import directory
from pos_server.ledger.audit import audit
from pos_server.server import RunningServer, serving
from tests.gateway.test_pin import confirm_message, pin_message
from tests.shared import shared_database, shared_server
from tests.support import EUR, KEYRING, Shop, activated, ask, logged_in, new_id, receive, scan_message, settings

pytestmark = pytest.mark.asyncio
dsn = shared_database()
server = shared_server()


def cancel_message(**fields: Any) -> dict[str, Any]:
    return {"type": "payment.cancel", "message_id": "cancel"} | fields


async def kinds_of(admin: asyncpg.Connection, payment_id: str) -> list[str]:
    """Return the kinds of a payment's transfers."""
    rows = await admin.fetch("select kind from transfer where source_id = $1 order by kind", UUID(payment_id))
    return [row["kind"] for row in rows]


async def test_a_cancel_of_a_paid_order_returns_the_money(
    server: RunningServer, shop: Shop, admin: asyncpg.Connection
) -> None:
    wallet = shop.wallets[0]
    async with logged_in(server.url, shop.terminals[0]) as till, logged_in(server.url, wallet) as phone:
        scan = scan_message(wallet.code())
        paid = await ask(till, scan)
        await receive(phone)
        cancel = cancel_message(payment_id=paid["payment_id"])
        canceled = await ask(till, cancel)
        assert (canceled["status"], canceled["version"], canceled["reply_to"]) == ("canceled", 2, "cancel")
        assert canceled["text"] == "Canceled. 10.00 EUR went back to the customer."
        notice = await receive(phone)
        assert (notice["status"], notice["balance_minor"]) == ("canceled", 10_000)
        assert notice["text"] == "Corner Canteen canceled the payment. 10.00 EUR came back."

        assert await ask(till, cancel) == canceled, "a retry gets the same answer"
        assert await ask(till, cancel_message(reference=paid["reference"])) == canceled
        rescan = await ask(till, scan)
        assert (rescan["status"], rescan["version"]) == ("canceled", 2)
        new = await ask(till, scan_message(wallet.code(), reference=paid["reference"]))
        assert (new["decline_code"], new["next_step"]) == ("canceled", "new_order"), "a canceled order stays closed"
    assert await kinds_of(admin, scan["payment_id"]) == ["cancel", "payment"]
    assert (await audit(admin)).ok


@pytest.mark.parametrize("by", ["payment_id", "reference"])
async def test_a_cancel_before_the_scan_declines_the_late_scan(
    by: str, server: RunningServer, shop: Shop, admin: asyncpg.Connection
) -> None:
    wallet = shop.wallets[0]
    late = scan_message(wallet.code())
    async with logged_in(server.url, shop.terminals[0]) as till, logged_in(server.url, wallet) as phone:
        cancel = cancel_message(**{by: late[by]})
        tombstone = await ask(till, cancel)
        assert (tombstone["status"], tombstone["amount_minor"]) == ("canceled", None)
        assert tombstone["reference"] == (late["reference"] if by == "reference" else None)
        assert await ask(till, cancel) == tombstone
        declined = await ask(till, late)
        assert (declined["status"], declined["decline_code"]) == ("declined", "canceled")
        assert (await receive(phone))["decline_code"] == "canceled"
        assert await ask(till, late) == declined
        reused = await ask(till, late | {"amount_minor": 1})
        assert reused["code"] == "id_reused"
    assert await kinds_of(admin, late["payment_id"]) == []
    assert (await audit(admin)).ok


async def test_a_pending_payment_is_canceled(dsn: str, shop: Shop) -> None:
    wallet = shop.wallets[0]
    async with (
        serving(settings(pin_free_minor_max=0), KEYRING, dsn) as server,
        logged_in(server.url, shop.terminals[0]) as till,
        logged_in(server.url, shop.terminals[1]) as manager,
        logged_in(server.url, wallet) as phone,
    ):
        await ask(phone, pin_message())
        pending = await ask(till, scan_message(wallet.code(), reference="order-1"))
        request = await receive(phone)
        blocked = await ask(till, scan_message(wallet.code(), reference="order-1"))
        assert (blocked["decline_code"], blocked["paid_by"]) == ("already_pending", pending["payment_id"])
        await receive(phone)
        canceled = await ask(manager, cancel_message(reference="order-1"))
        assert (canceled["status"], canceled["payment_id"]) == ("canceled", pending["payment_id"])
        assert await receive(till) == canceled | {"reply_to": None}, "the till of the payment receives a notice"
        assert (await receive(phone))["status"] == "canceled"
        assert (await ask(phone, confirm_message(request)))["status"] == "canceled"


async def test_a_cancel_of_a_declined_payment_returns_its_result(server: RunningServer, shop: Shop) -> None:
    async with logged_in(server.url, shop.terminals[0]) as till:
        declined = await ask(till, scan_message(shop.wallets[0].code(), amount_minor=99_999))
        answer = await ask(till, cancel_message(payment_id=declined["payment_id"]))
    assert answer == declined | {"reply_to": "cancel"}


async def test_a_cancel_after_the_window_is_rejected(dsn: str, shop: Shop, admin: asyncpg.Connection) -> None:
    async with (
        serving(settings(cancel_window_s=3600), KEYRING, dsn) as server,
        logged_in(server.url, shop.terminals[0]) as till,
    ):
        paid = await ask(till, scan_message(shop.wallets[0].code()))
        cancel = cancel_message(payment_id=paid["payment_id"])
        await admin.execute(
            "update payment set approved_at = approved_at - interval '3601 s' where id = $1", UUID(paid["payment_id"])
        )
        answer = await ask(till, cancel)
        assert (answer["code"], answer["retryable"]) == ("cancel_too_late", False)


async def test_cancels_by_other_merchants_and_disabled_tills(
    server: RunningServer, shop: Shop, connection: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    stranger_id = await directory.create_merchant(connection, "Other shop", EUR)
    store_id = await directory.create_store(connection, stranger_id, "Elsewhere")
    number = await directory.create_terminal(connection, store_id, "Till")
    stranger = await activated(connection, DeviceId(DeviceKind.TERMINAL, number))
    async with logged_in(server.url, shop.terminals[0]) as till, logged_in(server.url, stranger) as other:
        paid = await ask(till, scan_message(shop.wallets[0].code()))
        tombstone = await ask(other, cancel_message(reference=paid["reference"]))
        assert (tombstone["status"], tombstone["amount_minor"]) == ("canceled", None), "references are per merchant"
        query = {"type": "payment.query", "message_id": "q", "payment_id": paid["payment_id"]}
        assert (await ask(till, query))["status"] == "approved"
        assert (await ask(other, query))["code"] == "payment_unknown"
        same_id = await ask(other, cancel_message(payment_id=paid["payment_id"]))
        assert (same_id["status"], same_id["amount_minor"]) == ("canceled", None), "so are ids"
        assert (await ask(till, query))["status"] == "approved"
        till_number = shop.terminals[0].device.number
        await admin.execute("update terminal set status = 'disabled' where number = $1", till_number)
        assert (await ask(till, cancel_message(payment_id=paid["payment_id"])))["code"] == "terminal_disabled"


@pytest.mark.parametrize(
    "fields", [{}, {"payment_id": str(new_id()), "reference": "x"}, {"payment_id": None}], ids=["none", "both", "null"]
)
async def test_a_cancel_needs_either_an_id_or_a_reference(
    fields: dict[str, Any], server: RunningServer, shop: Shop
) -> None:
    async with logged_in(server.url, shop.terminals[0]) as till:
        answer = await ask(till, cancel_message(**fields))
    assert (answer["code"], answer["field"], answer["reply_to"]) == ("bad_field", "payment_id", "cancel")
