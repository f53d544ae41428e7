"""A till over a WebSocket: answers, notices, and the consequences of invalid input."""

import asyncio
import json
from contextlib import suppress
from typing import Any

import asyncpg
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from pos_server.core.credentials.device_keys import DeviceId, DeviceKind
from pos_server.core.errors import CloseCode, ErrorCode
from pos_server.server import RunningServer, serving
from tests.proxy import proxied
from tests.shared import shared_database, shared_server
from tests.support import (
    ANSWER_TIMEOUT_S,
    KEYRING,
    Shop,
    activated,
    ask,
    authenticate,
    forged,
    logged_in,
    new_id,
    raw_socket,
    receive,
    scan_message,
    settings,
)

pytestmark = pytest.mark.asyncio
dsn = shared_database()
server = shared_server()
TERMINAL = DeviceKind.TERMINAL


async def payments(connection: asyncpg.Connection, shop: Shop) -> int:
    count: int = await connection.fetchval(
        "select count(*) from payment where purpose = 'sale' and merchant_id = $1", shop.merchant_id
    )
    return count


async def close_code(socket: ClientConnection) -> int:
    """Read until the server closes the connection, and return the close code."""
    async with asyncio.timeout(ANSWER_TIMEOUT_S):
        with suppress(ConnectionClosed):
            async for _ in socket:
                pass
    assert socket.close_code is not None
    return socket.close_code


async def test_hello_is_the_first_message(server: RunningServer) -> None:
    async with raw_socket(server.url, TERMINAL) as socket:
        hello = await receive(socket)
    assert {"type", "protocol", "nonce", "server_time_ms", "heartbeat_s", "frame_bytes_max"} <= hello.keys()
    assert (hello["type"], hello["protocol"], len(hello["nonce"])) == ("hello", "pos.v1", 64)


async def test_ready_has_the_data_of_the_shop(server: RunningServer, shop: Shop) -> None:
    async with raw_socket(server.url, TERMINAL) as socket:
        hello = await receive(socket)
        ready = await ask(socket, authenticate(shop.terminals[0], hello["nonce"]))
    assert ready.pop("server_time_ms") >= hello["server_time_ms"]
    assert ready == {
        "type": "ready",
        "reply_to": "auth",
        "resumed": True,
        "terminal_number": shop.terminals[0].device.number,
        "merchant_name": "Corner Canteen",
        "store_name": "Main hall",
        "currency": "EUR",
        "shift_id": None,
    }


async def test_till_and_wallet_receive_the_result_of_a_scan(server: RunningServer, shop: Shop) -> None:
    async with logged_in(server.url, shop.terminals[0]) as till, logged_in(server.url, shop.wallets[0]) as wallet:
        message = scan_message(shop.wallets[0].code())
        result = await ask(till, message)
        notice = await receive(wallet)
    assert result["decided_at_ms"] == notice["decided_at_ms"]
    assert {key: result[key] for key in ("type", "reply_to", "payment_id", "reference", "status", "decline_code")} == {
        "type": "payment.result",
        "reply_to": message["message_id"],
        "payment_id": message["payment_id"],
        "reference": message["reference"],
        "status": "approved",
        "decline_code": None,
    }
    assert (notice["type"], notice["payment_id"], notice["balance_minor"]) == (
        "payment.result",
        message["payment_id"],
        9_000,
    )
    assert notice["text"] == "You paid 10.00 EUR to Corner Canteen."


async def test_every_device_of_the_wallet_receives_a_notice(
    server: RunningServer, shop: Shop, connection: asyncpg.Connection
) -> None:
    number = shop.wallets[0].device.number
    second = await activated(connection, DeviceId(DeviceKind.WALLET, number, 1))
    async with (
        logged_in(server.url, shop.terminals[0]) as till,
        logged_in(server.url, shop.wallets[0]) as first_phone,
        logged_in(server.url, second) as second_phone,
        logged_in(server.url, shop.wallets[1]) as stranger,
    ):
        result = await ask(till, scan_message(second.code()))
        for phone in (first_phone, second_phone):
            assert (await receive(phone))["payment_id"] == result["payment_id"]
        # The first message of another wallet is about its own payment.
        other = await ask(till, scan_message(shop.wallets[1].code()))
        assert (await receive(stranger))["payment_id"] == other["payment_id"]


async def test_an_already_paid_order_names_its_payment(server: RunningServer, shop: Shop) -> None:
    async with logged_in(server.url, shop.terminals[0]) as till, logged_in(server.url, shop.terminals[1]) as other:
        first = await ask(till, scan_message(shop.wallets[0].code(), reference="order-1"))
        second = await ask(other, scan_message(shop.wallets[1].code(), reference="order-1"))
    assert (second["decline_code"], second["paid_by"]) == ("already_paid", first["payment_id"])


async def test_a_repeated_scan_gets_the_same_result(
    server: RunningServer, shop: Shop, connection: asyncpg.Connection
) -> None:
    message = scan_message(shop.wallets[0].code())
    async with logged_in(server.url, shop.terminals[0]) as till:
        first = await ask(till, message)
        second = await ask(till, message | {"message_id": "repeat"})
    async with logged_in(server.url, shop.terminals[0]) as till:
        third = await ask(till, message)
    assert second == first | {"reply_to": "repeat"}
    assert third == first
    assert await payments(connection, shop) == 1


async def test_the_same_id_with_another_body_is_an_error(server: RunningServer, shop: Shop) -> None:
    message = scan_message(shop.wallets[0].code())
    async with logged_in(server.url, shop.terminals[0]) as till, logged_in(server.url, shop.terminals[1]) as other:
        await ask(till, message)
        answers = [
            await ask(till, message | {"amount_minor": 1}),
            await ask(till, message | {"reference": "another"}),
            await ask(till, message | {"code": shop.wallets[0].code()}),
            await ask(other, message),
        ]
    assert [(answer["type"], answer["code"], answer["retryable"]) for answer in answers] == [
        ("error", "id_reused", False)
    ] * 4


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"amount_minor": 0}, "amount_minor"),
        ({"amount_minor": -1}, "amount_minor"),
        ({"amount_minor": 10.0}, "amount_minor"),
        ({"amount_minor": 1.5}, "amount_minor"),
        ({"amount_minor": 2**53}, "amount_minor"),
        ({"amount_minor": 10**400}, "amount_minor"),
        ({"amount_minor": "10"}, "amount_minor"),
        ({"amount_minor": True}, "amount_minor"),
        ({"currency": "eur"}, "currency"),
        ({"currency": "USD"}, "currency"),
        ({"payment_id": "42"}, "payment_id"),
        ({"reference": ""}, "reference"),
        ({"reference": "a\x00b"}, "reference"),
        ({"reference": "x" * 65}, "reference"),
        ({"code": 7}, "code"),
        ({"type": "payment.scam"}, "type"),
        ({"type": 5}, "type"),
        ({"message_id": None}, "message_id"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_bad_field_is_rejected_and_nothing_is_stored(
    fields: dict[str, Any], field: str, server: RunningServer, shop: Shop, connection: asyncpg.Connection
) -> None:
    message = scan_message(shop.wallets[0].code())
    async with logged_in(server.url, shop.terminals[0]) as till:
        answer = await ask(till, message | fields)
        assert (answer["type"], answer["field"], answer["retryable"]) == ("error", field, False)
        if "message_id" not in fields:
            assert answer["reply_to"] == message["message_id"]
        assert await payments(connection, shop) == 0
        assert (await ask(till, message))["status"] == "approved"


async def test_unknown_fields_are_ignored(server: RunningServer, shop: Shop) -> None:
    async with logged_in(server.url, shop.terminals[0]) as till:
        result = await ask(till, scan_message(shop.wallets[0].code(), loyalty={"points": 3}))
    assert result["status"] == "approved"


@pytest.mark.parametrize("ready", [True, False], ids=["authenticated", "before authentication"])
@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{not json", CloseCode.NOT_JSON),
        ("[" * 3000, CloseCode.NOT_JSON),
        ("[]", CloseCode.NOT_JSON),
        ("12", CloseCode.NOT_JSON),
        ("", CloseCode.NOT_JSON),
        (b"\x00\x01", CloseCode.NOT_TEXT),
        ("x" * 4097, 1009),
    ],
    ids=["not json", "deep", "array", "number", "empty", "binary", "over 4 KiB"],
)
async def test_a_frame_without_a_message_closes_the_connection(
    frame: str | bytes, code: int, ready: bool, server: RunningServer, shop: Shop
) -> None:
    async with logged_in(server.url, shop.terminals[0]) if ready else raw_socket(server.url, TERMINAL) as socket:
        await socket.send(frame)
        assert await close_code(socket) == code
    async with logged_in(server.url, shop.terminals[0]) as till:
        assert (await ask(till, scan_message(shop.wallets[0].code())))["status"] == "approved"


async def test_invalid_utf8_closes_the_connection(server: RunningServer, shop: Shop) -> None:
    async with logged_in(server.url, shop.terminals[0]) as till:
        await till.send(b'{"type":"\xff\xfe"}', text=True)
        assert await close_code(till) == 1007


async def test_a_frame_of_the_maximum_size_is_accepted(server: RunningServer, shop: Shop) -> None:
    message = json.dumps(scan_message(shop.wallets[0].code()))
    async with logged_in(server.url, shop.terminals[0]) as till:
        await till.send(message + " " * (4096 - len(message)))
        assert (await receive(till))["status"] == "approved"


async def test_too_many_forged_codes_lock_the_terminal_and_not_the_wallet(dsn: str, shop: Shop) -> None:
    async with (
        serving(settings(bad_codes_max=3), KEYRING, dsn) as server,
        logged_in(server.url, shop.terminals[0]) as till,
        logged_in(server.url, shop.terminals[1]) as other,
    ):
        wallet = shop.wallets[0]
        for _ in range(3):
            assert (await ask(till, scan_message(forged(wallet.code(seq=0)))))["decline_code"] == "code_invalid"
        error = await ask(till, scan_message(wallet.code()))
        assert (error["type"], error["code"], error["retryable"]) == ("error", "too_many_bad_codes", True)
        assert 0 < error["retry_after_s"] <= 60
        assert (await ask(other, scan_message(wallet.code())))["status"] == "approved"


async def test_a_repeat_of_a_forged_scan_counts_once(dsn: str, shop: Shop) -> None:
    async with (
        serving(settings(bad_codes_max=2), KEYRING, dsn) as server,
        logged_in(server.url, shop.terminals[0]) as till,
    ):
        message = scan_message(forged(shop.wallets[0].code(seq=0)))
        for _ in range(4):
            assert (await ask(till, message))["decline_code"] == "code_invalid"


async def test_without_a_database_the_answer_is_busy_and_nothing_is_stored(
    dsn: str, shop: Shop, connection: asyncpg.Connection
) -> None:
    async with (
        proxied(dsn) as proxy,
        serving(settings(batch_attempts_max=2), KEYRING, proxy.dsn) as server,
        logged_in(server.url, shop.terminals[0]) as till,
    ):
        message = scan_message(shop.wallets[0].code())
        proxy.away = True
        await proxy.drop_all()
        answer = await ask(till, message)
        assert (answer["type"], answer["code"], answer["retryable"]) == ("error", "busy", True)
        assert await payments(connection, shop) == 0
        proxy.away = False
        assert (await ask(till, message))["status"] == "approved"


async def test_a_full_queue_rejects_scans_before_they_are_parsed(
    dsn: str, shop: Shop, admin: asyncpg.Connection, connection: asyncpg.Connection
) -> None:
    one_at_a_time = settings(batch_lanes=1, batch_operations_max=1, queue_operations_max=1)
    async with (
        serving(one_at_a_time, KEYRING, dsn) as server,
        logged_in(server.url, shop.terminals[0]) as first,
        logged_in(server.url, shop.terminals[1]) as second,
    ):
        async with admin.transaction():
            await admin.execute("lock table payment in share row exclusive mode")
            await first.send(json.dumps(scan_message(shop.wallets[0].code())))
            async with asyncio.timeout(10):
                while not await connection.fetchval("select exists (select from pg_locks where not granted)"):
                    pass
            await second.send(json.dumps(scan_message(shop.wallets[1].code())))
            unread = scan_message(shop.wallets[2].code()) | {"amount_minor": -1}
            assert await ask(second, unread) == {
                "type": "error",
                "reply_to": unread["message_id"],
                "code": "busy",
                "message": ErrorCode.BUSY.description,
                "field": None,
                "retryable": True,
                "retry_after_s": None,
            }
            escaped_id = 'a "b\\c'
            assert (await ask(second, unread | {"message_id": escaped_id}))["reply_to"] == escaped_id
            # Other messages, and scans without a valid message_id, are parsed as usual.
            assert (await ask(second, {"type": "payment.bake", "message_id": "b"}))["code"] == "unknown_type"
            assert (await ask(second, unread | {"message_id": "\n"}))["field"] == "message_id"
        assert (await receive(first))["status"] == "approved"
        assert (await receive(second))["status"] == "approved"
        assert (await ask(second, unread))["field"] == "amount_minor"
        assert await payments(connection, shop) == 2


async def test_a_stopping_server_finishes_and_closes_with_draining(dsn: str, shop: Shop) -> None:
    async with serving(settings(), KEYRING, dsn) as server:
        socket = await connect(
            server.url.replace("http", "ws") + "/v1/terminal",
            subprotocols=["pos.v1"],  # type: ignore[list-item]
        )
        hello = await receive(socket)
        await ask(socket, authenticate(shop.terminals[0], hello["nonce"]))
        message = scan_message(shop.wallets[0].code())
        await socket.send(json.dumps(message))
        result = await receive(socket)
    assert result["status"] == "approved"
    assert await close_code(socket) == CloseCode.DRAINING


async def test_payment_ids_are_case_insensitive(server: RunningServer, shop: Shop) -> None:
    identifier = str(new_id())
    message = scan_message(shop.wallets[0].code(), payment_id=identifier)
    async with logged_in(server.url, shop.terminals[0]) as till:
        first = await ask(till, message)
        second = await ask(till, message | {"payment_id": identifier.upper()})
    assert first == second
