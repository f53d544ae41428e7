"""Resume: a device receives the notices that it missed at least once, from committed rows."""

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from pos_server.core.errors import CloseCode
from pos_server.core.payments.payment import Payment
from pos_server.ledger.history import Cursor, terminal_payments_after, wallet_payments_after
from pos_server.server import RunningServer, serving
from tests.faults.logins import log_in
from tests.faults.wire import TEXT, frame
from tests.gateway.test_terminal import close_code
from tests.shared import shared_database, shared_server
from tests.support import (
    KEYRING,
    OneConnection,
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


async def replay(socket: ClientConnection, ready: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the messages of the replay that follows `ready`."""
    messages = []
    while (message := await receive(socket))["type"] != "replayed":
        messages.append(message)
    end = {"type": "replayed", "reply_to": "auth", "since_ms": ready["server_time_ms"], "next_cursor": None}
    assert message == end
    return messages


async def resume_page(
    socket: ClientConnection, since_ms: int, cursor: str | None = None, limit: int = 1000
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Ask for a page, and return its messages and the answer."""
    request = {"type": "resume", "message_id": "page", "since_ms": since_ms, "cursor": cursor, "limit": limit}
    await socket.send(json.dumps(request))
    messages = []
    while (message := await receive(socket)).get("reply_to") != "page":
        messages.append(message)
    assert message["type"] == "replayed", message
    return messages, message


async def pages_of(socket: ClientConnection, since_ms: int, *, limit: int) -> list[Any]:
    pages, cursor = [], None
    while not pages or cursor is not None:
        pages.append(await resume_page(socket, since_ms, cursor, limit))
        cursor = pages[-1][1]["next_cursor"]
    return pages


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
        missed = await replay(phone, ready)
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
        assert await replay(till, ready) == [result | {"reply_to": None}]
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
    async with resumed(server.url, shop.terminals[0], old["decided_at_ms"]) as (till, ready):
        assert [result["payment_id"] for result in await replay(till, ready)] == [new["payment_id"]]
        await nothing_more(till, shop.terminals[0])


async def test_a_large_gap_is_replayed_in_pages_that_the_device_asks_for(dsn: str, shop: Shop) -> None:
    async with serving(settings(resume_payments_max=2), KEYRING, dsn) as server:
        results = [await pay(server.url, shop, wallet=index % 3) for index in range(5)]
        since_ms = results[0]["decided_at_ms"]
        for device, at_wallet in ((shop.terminals[0], False), (shop.wallets[0], True)):
            expected = [result["payment_id"] for result in (results[::3] if at_wallet else results)]
            async with resumed(server.url, device, since_ms) as (socket, ready):
                assert ready["resumed"] is at_wallet
                if at_wallet:
                    await replay(socket, ready)
                else:
                    await nothing_more(socket, device)
                pages = await pages_of(socket, since_ms, limit=1 if at_wallet else 1000)
            assert [result["payment_id"] for page, _ in pages for result in page] == expected
            assert [len(page) for page, _ in pages] == ([1, 1] if at_wallet else [2, 2, 1])
            assert [end["since_ms"] for page, end in pages[:-1]] == [
                page[-1]["decided_at_ms"] for page, _ in pages[:-1]
            ]
            assert pages[-1][1]["since_ms"] >= results[-1]["decided_at_ms"]


async def test_a_cursor_continues_on_another_connection(dsn: str, shop: Shop) -> None:
    async with serving(settings(resume_payments_max=2), KEYRING, dsn) as server:
        results = [await pay(server.url, shop, wallet=index % 3) for index in range(4)]
        async with logged_in(server.url, shop.terminals[0]) as till:
            _, end = await resume_page(till, results[0]["decided_at_ms"])
        async with logged_in(server.url, shop.terminals[0]) as till:
            page, end = await resume_page(till, results[0]["decided_at_ms"], end["next_cursor"])
        assert [result["payment_id"] for result in page] == [result["payment_id"] for result in results[2:]]
        assert end["next_cursor"] is None


async def test_extreme_positions_are_answered(server: RunningServer, shop: Shop) -> None:
    paid = await pay(server.url, shop)
    uuid = "f" * 8 + "-ffff" * 3 + "-" + "f" * 12
    async with logged_in(server.url, shop.terminals[0]) as till:
        for since_ms, cursor, found in (
            (0, None, 1),
            (2**53 - 1, None, 0),
            (0, f"{'9' * 15}.{uuid}.{'9' * 15}", 0),
            (0, f"0.{uuid}.0", 1),
        ):
            page, end = await resume_page(till, since_ms, cursor)
            assert ([result["payment_id"] for result in page], end["next_cursor"]) == (
                [paid["payment_id"]] * found,
                None,
            )


_INSERT = """
insert into payment (id, fingerprint, terminal_number, merchant_id, reference, amount_minor, currency, status,
    decline_code, version, changed_at)
values ($1, 'x', $2, $3, $1::uuid::text, 1, 'EUR', 'declined', 'code_malformed', 1, from_unix_ms($4))"""


@given(
    times_ms=st.lists(st.integers(1, 4), min_size=1, max_size=12),
    later=st.lists(st.integers(0, 1), max_size=4),
    limit=st.integers(1, 4),
)
@hypothesis_settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_pages_hold_each_payment_once_with_equal_times_and_new_payments(
    times_ms: list[int], later: list[int], limit: int, admin: asyncpg.Connection
) -> None:
    """`later` are payments that are decided between two pages, so many milliseconds after the latest one."""
    terminal_number = uuid4().int >> 80  # Hypothesis seeds `random`, so that it would repeat itself

    merchants = itertools.count(terminal_number)
    payment_ids = [uuid4(), uuid4()]  # which the merchants share

    async def insert(at_ms: int) -> tuple[int, UUID]:
        key = next(merchants), random.choice(payment_ids)
        await admin.execute(_INSERT, key[1], terminal_number, key[0], at_ms)
        return key

    expected = [await insert(at_ms) for at_ms in times_ms]
    received: list[Payment] = []
    cursor, pool = Cursor.before(0), OneConnection(admin)
    while page := await terminal_payments_after(pool, terminal_number, cursor, limit):  # type: ignore[arg-type]
        received += page
        cursor = Cursor.of(page[-1])
        if later:
            times_ms.append(max(times_ms) + later.pop() + 1)
            expected.append(await insert(times_ms[-1]))
    positions = [Cursor.of(payment) for payment in received]
    assert positions == sorted(positions)
    assert sorted((payment.merchant_id, payment.payment_id) for payment in received) == sorted(expected)


def read_slowly(url: str, device: TestDevice, requests_at_once: int) -> tuple[list[str], int | None]:
    """Ask for pages over a small receive buffer. Returns the ids of the payments, and the close code, if any."""
    wire = log_in(url, device, receive_buffer_bytes=2048)
    ids: list[str] = []
    cursor = None
    while True:
        request = {"type": "resume", "message_id": "page", "since_ms": 1, "cursor": cursor}
        for _ in range(requests_at_once):
            wire.send(frame(TEXT, json.dumps(request).encode()))
        if requests_at_once > 1:
            close_code = wire.close_code()
            wire.close()
            return ids, close_code
        while (message := wire.read_message()) is not None and message["type"] != "replayed":
            ids.append(message["payment_id"])
        assert message is not None
        cursor = message["next_cursor"]
        if cursor is None:
            wire.close()
            return ids, None


async def test_a_slow_reader_gets_all_pages_and_one_that_asks_for_all_at_once_is_closed(
    dsn: str, shop: Shop, admin: asyncpg.Connection
) -> None:
    terminal = shop.terminals[0]
    expected = [uuid4() for _ in range(600)]
    for number, payment_id in enumerate(expected):
        await admin.execute(_INSERT, payment_id, terminal.device.number, shop.merchant_id, number // 7)
    limits = settings(socket_send_buffer_bytes=4096, outbox_bytes_max=120_000, drain_timeout_s=1)
    async with serving(limits, KEYRING, dsn) as server:
        received, _ = await asyncio.to_thread(read_slowly, server.url, terminal, 1)
        assert sorted(received) == sorted(map(str, expected))
        _, close_code = await asyncio.to_thread(read_slowly, server.url, terminal, 4)
        assert close_code == CloseCode.SLOW_CONSUMER


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
                    if notice["type"] == "replayed":
                        continue
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
        rows = await wallet_payments_after(*arguments)
        await pay(server.url, shop)
        return rows

    monkeypatch.setattr("pos_server.ledger.history.wallet_payments_after", pay_after_the_read)
    async with resumed(server.url, shop.wallets[0], first["decided_at_ms"]) as (phone, ready):
        assert ready["balance_minor"] == 8_000
        assert [notice["balance_minor"] for notice in await replay(phone, ready)] == [8_000]
        assert (await receive(phone))["balance_minor"] == 8_000


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
