"""Refunds over WebSockets."""

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from pos_server.ledger.audit import audit
from pos_server.server import RunningServer, serving
from tests.gateway.test_cancel import cancel_message
from tests.shared import shared_database, shared_server
from tests.support import KEYRING, Shop, ask, logged_in, new_id, receive, scan_message, settings

pytestmark = pytest.mark.asyncio
dsn = shared_database()
server = shared_server()


def refund_message(payment_id: str, amount_minor: int = 300, **fields: Any) -> dict[str, Any]:
    message = {"type": "refund.create", "message_id": "refund", "refund_id": str(new_id())}
    return message | {"payment_id": payment_id, "amount_minor": amount_minor} | fields


async def test_refunds_in_parts(server: RunningServer, shop: Shop, admin: asyncpg.Connection) -> None:
    wallet = shop.wallets[0]
    async with (
        logged_in(server.url, shop.terminals[0]) as till,
        logged_in(server.url, shop.terminals[1]) as manager,
        logged_in(server.url, wallet) as phone,
    ):
        paid = await ask(till, scan_message(wallet.code()))
        await receive(phone)
        request = refund_message(paid["payment_id"], 300)
        first = await ask(manager, request)
        assert (first["type"], first["amount_minor"], first["refunded_minor"], first["refundable_minor"]) == (
            "refund.result",
            300,
            300,
            700,
        )
        assert await receive(till) == first | {"reply_to": None}, "the till of the payment receives a notice"
        notice = await receive(phone)
        assert (notice["type"], notice["balance_minor"], notice["text"]) == (
            "refund.result",
            9_300,
            "Corner Canteen refunded 3.00 EUR.",
        )
        assert (await ask(manager, request))["refund_id"] == first["refund_id"]
        assert (await ask(manager, request | {"amount_minor": 301}))["code"] == "id_reused"
        assert (await ask(manager, refund_message(paid["payment_id"], 701)))["code"] == "refund_exceeds_remaining"
        last = await ask(till, refund_message(paid["payment_id"], 700))
        assert (last["refundable_minor"], last["version"]) == (0, 3)
        assert (await ask(till, refund_message(paid["payment_id"], 1)))["code"] == "refund_exceeds_remaining"
        assert (await ask(till, cancel_message(payment_id=paid["payment_id"])))["code"] == "already_refunded"
        query = {"type": "payment.query", "message_id": "q", "reference": paid["reference"]}
        state = await ask(till, query)
        assert (state["status"], state["refunded_minor"], state["version"]) == ("approved", 1000, 3)
    refunds = "select sum(amount_minor) from transfer where kind = 'refund' and wallet_number = $1"
    assert await admin.fetchval(refunds, wallet.device.number) == 1000
    assert (await audit(admin)).ok


async def test_concurrent_refunds_never_exceed_the_payment(
    server: RunningServer, shop: Shop, admin: asyncpg.Connection
) -> None:
    async with logged_in(server.url, shop.terminals[0]) as till:
        paid = await ask(till, scan_message(shop.wallets[0].code()))
    answers = await asyncio.gather(*(refunds_of(server.url, shop, terminal, paid["payment_id"]) for terminal in (0, 1)))
    codes = [answer.get("code", answer["type"]) for part in answers for answer in part if answer.get("reply_to")]
    assert sorted(codes) == ["refund.result"] * 3 + ["refund_exceeds_remaining"] * 17
    refunded = "select refunded_minor from payment where id = $1"
    assert await admin.fetchval(refunded, UUID(paid["payment_id"])) == 900
    assert (await audit(admin)).ok


async def refunds_of(url: str, shop: Shop, terminal: int, payment_id: str) -> list[dict[str, Any]]:
    async with logged_in(url, shop.terminals[terminal]) as till:
        answers = list[dict[str, Any]]()
        for _ in range(10):
            answers.append(await ask(till, refund_message(payment_id, 300)))
            while answers[-1]["reply_to"] is None:  # notices of the other till's refunds
                answers.append(await receive(till))
        return answers


async def test_rejected_refunds(dsn: str, shop: Shop, admin: asyncpg.Connection) -> None:
    async with (
        serving(settings(refunds_max=2, refund_window_days=30), KEYRING, dsn) as server,
        logged_in(server.url, shop.terminals[0]) as till,
    ):
        assert (await ask(till, refund_message(str(new_id()))))["code"] == "payment_unknown"
        declined = await ask(till, scan_message(shop.wallets[0].code(), amount_minor=99_999))
        assert (await ask(till, refund_message(declined["payment_id"])))["code"] == "not_refundable"
        paid = await ask(till, scan_message(shop.wallets[0].code()))
        for _ in range(2):
            assert (await ask(till, refund_message(paid["payment_id"], 1)))["type"] == "refund.result"
        assert (await ask(till, refund_message(paid["payment_id"], 1)))["code"] == "too_many_refunds"
        old = await ask(till, scan_message(shop.wallets[0].code()))
        await admin.execute(
            "update payment set approved_at = approved_at - interval '31 days' where id = $1", UUID(old["payment_id"])
        )
        assert (await ask(till, refund_message(old["payment_id"], 1)))["code"] == "refund_too_late"
        for bad in (0, -1, 1.0, 2**53, "1"):
            answer = await ask(till, refund_message(old["payment_id"], bad))  # type: ignore[arg-type]
            assert (answer["code"], answer["field"]) == ("bad_field", "amount_minor")


async def test_a_missed_refund_is_replayed(server: RunningServer, shop: Shop) -> None:
    wallet = shop.wallets[0]
    async with logged_in(server.url, shop.terminals[0]) as till:
        paid = await ask(till, scan_message(wallet.code()))
    async with logged_in(server.url, shop.terminals[1]) as manager:
        await ask(manager, refund_message(paid["payment_id"]))
    since = {"since_ms": paid["decided_at_ms"]}
    for device in (shop.terminals[0], wallet):
        async with logged_in(server.url, device, **since) as socket:
            missed = await receive(socket)
        assert (missed["version"], missed["refunded_minor"]) == (2, 300)
        assert "3.00 EUR" in missed["text"]
