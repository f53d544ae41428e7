"""Resume: a device receives the notices that it missed at least once, from committed rows."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from pos_server.core.errors import CloseCode
from pos_server.ledger.history import wallet_payments_since
from pos_server.server import RunningServer, serving
from tests.gateway.test_terminal import close_code
from tests.shared import shared_database, shared_server
from tests.support import (
    KEYRING,
    Shop,
    TestDevice,
    activated,
    ask,
    authenticate,
    logged_in,
    raw_socket,
    receive,
    scan_message,
    settings,
)

pytestmark = pytest.mark.asyncio
dsn = shared_database()
server = shared_server()


@asynccontextmanager
async def resumed(
    url: str, device: TestDevice, since_ms: int | None
) -> AsyncIterator[tuple[ClientConnection, dict[str, Any]]]:
    async with raw_socket(url, device.device.kind) as socket:
        hello = await receive(socket)
        yield socket, await ask(socket, authenticate(device, hello["nonce"], since_ms=since_ms))


async def pay(url: str, shop: Shop, wallet: int = 0, **fields: Any) -> dict[str, Any]:
    async with logged_in(url, shop.terminals[0]) as till:
        return await ask(till, scan_message(shop.wallets[wallet].code(), **fields))


async def nothing_more(socket: ClientConnection, device: TestDevice) -> None:
    """Check that no message arrives before the answer to a new request."""
    await socket.send(json.dumps(scan_message("x", currency="USD", message_id="last")))
    assert (await receive(socket))["reply_to"] == "last"


async def test_a_wallet_receives_missed_payments_and_its_balance(server: RunningServer, shop: Shop) -> None:
    first = await pay(server.url, shop)
    second = await pay(server.url, shop, amount_minor=99_999)
    await pay(server.url, shop, wallet=1)
    async with resumed(server.url, shop.wallets[0], first["decided_at_ms"]) as (phone, ready):
        assert (ready["resumed"], ready["balance_minor"]) == (True, 9_000)
        missed = [await receive(phone), await receive(phone)]
        await nothing_more(phone, shop.wallets[0])
    assert [notice["payment_id"] for notice in missed] == [first["payment_id"], second["payment_id"]]
    assert [notice["decline_code"] for notice in missed] == [None, "insufficient_funds"]
    assert {notice["balance_minor"] for notice in missed} == {9_000}
    assert {notice["merchant_name"] for notice in missed} == {"Corner Canteen"}


async def test_a_till_receives_its_own_missed_results(server: RunningServer, shop: Shop) -> None:
    result = await pay(server.url, shop)
    async with logged_in(server.url, shop.terminals[1]) as other:
        await ask(other, scan_message(shop.wallets[1].code()))
    async with resumed(server.url, shop.terminals[0], result["decided_at_ms"]) as (till, ready):
        assert ready["resumed"]
        assert await receive(till) == result | {"reply_to": None}
        await nothing_more(till, shop.terminals[0])


async def test_without_since_nothing_is_replayed(server: RunningServer, shop: Shop) -> None:
    await pay(server.url, shop)
    async with resumed(server.url, shop.terminals[0], None) as (till, ready):
        assert ready["resumed"]
        await nothing_more(till, shop.terminals[0])


async def test_payments_before_the_overlap_are_not_replayed(
    server: RunningServer, shop: Shop, admin: asyncpg.Connection
) -> None:
    old = await pay(server.url, shop)
    await admin.execute(
        "update payment set changed_at = changed_at - interval '60 seconds' where id = $1", UUID(old["payment_id"])
    )
    new = await pay(server.url, shop, wallet=1)
    async with resumed(server.url, shop.terminals[0], old["decided_at_ms"]) as (till, _):
        assert (await receive(till))["payment_id"] == new["payment_id"]
        await nothing_more(till, shop.terminals[0])


async def test_a_gap_that_is_too_large_is_not_resumed(dsn: str, shop: Shop) -> None:
    async with serving(settings(resume_payments_max=2), KEYRING, dsn) as server:
        results = [await pay(server.url, shop, wallet=index) for index in range(3)]
        async with resumed(server.url, shop.terminals[0], results[0]["decided_at_ms"]) as (till, ready):
            assert ready["resumed"] is False
            await nothing_more(till, shop.terminals[0])


async def test_no_payment_is_lost_between_replay_and_push(server: RunningServer, shop: Shop) -> None:
    """Reconnect repeatedly during payments: each notice arrives by replay or by push."""
    received: set[str] = set()
    paid: list[str] = []
    since_ms = 0
    async with logged_in(server.url, shop.terminals[0]) as till:

        async def sell() -> None:
            for number in range(30):
                message = scan_message(shop.wallets[number % 3].code(), amount_minor=1)
                paid.append((await ask(till, message))["payment_id"])

        selling = asyncio.create_task(sell())
        phones = [shop.wallets[0], shop.wallets[1], shop.wallets[2]]
        newest = [since_ms] * 3
        rounds_after_end = 0
        while rounds_after_end < 3:
            rounds_after_end += selling.done()
            index = len(received) % 3 if not selling.done() else rounds_after_end - 1
            async with resumed(server.url, phones[index], newest[index] or 1) as (phone, ready):
                assert ready["resumed"]
                async for frame in _available(phone):
                    notice = json.loads(frame)
                    if notice["purpose"] == "sale":
                        received.add(notice["payment_id"])
                    newest[index] = max(newest[index], notice["decided_at_ms"])
        await selling
    assert received == set(paid)


async def test_the_balance_includes_every_replayed_result(
    server: RunningServer, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A payment that commits after the missed ones were read is pushed, and `ready` already includes it."""
    first = await pay(server.url, shop)

    async def pay_after_the_read(*arguments: Any) -> Any:
        rows = await wallet_payments_since(*arguments)
        await pay(server.url, shop)
        return rows

    monkeypatch.setattr("pos_server.ledger.history.wallet_payments_since", pay_after_the_read)
    async with resumed(server.url, shop.wallets[0], first["decided_at_ms"]) as (phone, ready):
        assert ready["balance_minor"] == 8_000
        assert [(await receive(phone))["balance_minor"] for _ in range(2)] == [8_000, 8_000]


async def _available(socket: ClientConnection) -> AsyncIterator[str]:
    """Yield the frames that arrive before the answer to a new request."""
    await socket.send(json.dumps(scan_message("x", message_id="last")))
    while True:
        frame = await socket.recv(decode=True)
        if json.loads(frame)["type"] == "error":
            return
        yield str(frame)


async def test_a_new_activation_closes_the_live_connection(
    server: RunningServer, shop: Shop, connection: asyncpg.Connection
) -> None:
    """The key is changed in the database; the server notices it at its next check."""
    async with logged_in(server.url, shop.wallets[0]) as phone:
        await activated(connection, shop.wallets[0].device)
        assert await close_code(phone) == CloseCode.REVOKED


async def test_only_the_revoked_phone_is_closed(dsn: str, shop: Shop, admin: asyncpg.Connection) -> None:
    async with (
        serving(settings(revocation_check_s=0.05), KEYRING, dsn) as server,
        logged_in(server.url, shop.wallets[0]) as stolen,
        logged_in(server.url, shop.wallets[1]) as other,
        logged_in(server.url, shop.terminals[0]) as till,
    ):
        number = shop.wallets[0].device.number
        await admin.execute("update wallet_device set status = 'revoked' where wallet_number = $1", number)
        assert await close_code(stolen) == CloseCode.REVOKED
        await ask(till, scan_message(shop.wallets[1].code()))
        assert (await receive(other))["status"] == "approved"


async def test_a_draining_server_finishes_open_requests_and_sends_draining(dsn: str, shop: Shop) -> None:
    running = serving(settings(), KEYRING, dsn)
    server = await running.__aenter__()
    async with raw_socket(server.url, shop.terminals[0].device.kind) as till:
        hello = await receive(till)
        await ask(till, authenticate(shop.terminals[0], hello["nonce"]))
        # When the first is answered, the server has read the second as well, and it is open at the stop.
        await till.send(json.dumps(scan_message("x", message_id="first")))
        await till.send(json.dumps(scan_message(shop.wallets[0].code())))
        assert (await receive(till))["reply_to"] == "first"
        receiving = asyncio.create_task(_all(till))
        await running.__aexit__(None, None, None)
        frames = await receiving
    assert [frame["type"] for frame in frames] == ["payment.result", "draining"]
    assert frames[0]["status"] == "approved"
    assert frames[1]["reconnect_within_s"] == 5
    assert till.close_code == CloseCode.DRAINING


async def _all(socket: ClientConnection) -> list[dict[str, Any]]:
    frames = []
    with suppress(ConnectionClosed):
        async for frame in socket:
            frames.append(json.loads(frame))  # noqa: PERF401 - frames before the close are kept
    return frames
