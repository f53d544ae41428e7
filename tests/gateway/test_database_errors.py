"""Database errors on the WebSocket: every request is answered with a code, and no connection ends with 1011."""

import json
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs
from websockets.exceptions import ConnectionClosed

from pos_server.core.errors import CloseCode
from pos_server.gateway.terminal import TerminalEndpoint
from pos_server.ledger.failures import NotConnected
from pos_server.server import RunningServer, serving
from tests.gateway.test_history import query_message
from tests.gateway.test_pin import pin_message
from tests.gateway.test_shifts import closing, opening, query
from tests.proxy import proxied
from tests.shared import shared_database, shared_server
from tests.support import (
    KEYRING,
    Shop,
    TestDevice,
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

BUSY, UNKNOWN = "busy", "unknown_outcome"
# The error of the pool, the answer to a query, the answer to a request that writes.
ERRORS = [
    (NotConnected("no"), BUSY, BUSY),
    (asyncpg.InternalClientError("cannot switch to state 11"), BUSY, UNKNOWN),
    (asyncpg.InterfaceError("another operation is in progress"), BUSY, UNKNOWN),
    (asyncpg.AdminShutdownError("gone"), BUSY, UNKNOWN),
    (asyncpg.ReadOnlySQLTransactionError("standby"), BUSY, BUSY),
    (asyncpg.DeadlockDetectedError("deadlock"), BUSY, BUSY),
    (asyncpg.QueryCanceledError("canceled"), BUSY, BUSY),
    (asyncpg.DiskFullError("full"), BUSY, BUSY),
    (asyncpg.UndefinedTableError("no table"), BUSY, BUSY),
    (asyncpg.UnknownPostgresError("new"), BUSY, UNKNOWN),
    (TimeoutError(), BUSY, UNKNOWN),
]
NAMES = [type(row[0]).__name__ for row in ERRORS]


def of_the_till(shift_id: str) -> list[tuple[dict[str, Any], bool]]:
    """Return a till's requests that the pool serves, and whether they write."""
    return [
        (query_message(payment_id=str(new_id())), False),
        ({"type": "payments.recent", "message_id": "recent"}, False),
        (query(), False),
        ({"type": "resume", "message_id": "resume", "since_ms": 1}, False),
        (opening(shift_id=shift_id), True),
        (closing({"shift_id": shift_id}), True),
    ]


OF_THE_PHONE: list[tuple[dict[str, Any], bool]] = [
    ({"type": "history", "message_id": "history"}, False),
    ({"type": "payment.reject", "message_id": "reject", "payment_id": str(new_id())}, False),
    ({"type": "payment.confirm", "message_id": "c", "payment_id": str(new_id()), "version": 1, "pin": "4711"}, False),
    (pin_message("4711"), True),
]


async def close_code_at_login(url: str, device: TestDevice) -> int | None:
    async with raw_socket(url, device.device.kind) as socket:
        hello = await receive(socket)
        await socket.send(json.dumps(authenticate(device, hello["nonce"])))
        with pytest.raises(ConnectionClosed):
            await receive(socket)
        return socket.close_code


@pytest.mark.parametrize(("error", "of_a_query", "of_a_write"), ERRORS, ids=NAMES)
async def test_an_error_of_the_pool(
    server: RunningServer,
    shop: Shop,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    of_a_query: str,
    of_a_write: str,
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise error

    def fail_to_acquire(*_: object, **__: object) -> None:
        raise error

    till, phone = shop.terminals[0], shop.wallets[0]
    async with logged_in(server.url, till) as at_till, logged_in(server.url, phone) as at_phone:
        with monkeypatch.context() as patch, capture_logs() as logs:
            for method in ("fetch", "fetchrow", "fetchval", "execute"):
                patch.setattr(asyncpg.pool.Pool, method, fail)
            patch.setattr(asyncpg.pool.Pool, "acquire", fail_to_acquire)
            for socket, requests in ((at_till, of_the_till(str(new_id()))), (at_phone, OF_THE_PHONE)):
                for message, writes in requests:
                    answer = await ask(socket, message)
                    assert (answer["type"], answer["code"]) == ("error", of_a_write if writes else of_a_query), message
                    assert answer["reply_to"] == message["message_id"]
            for device in (till, phone):
                assert await close_code_at_login(server.url, device) == CloseCode.UNAVAILABLE
        assert not [log for log in logs if "exc_info" in log]
        # Both connections are still open, and the pool works again.
        assert (await ask(at_till, query_message(payment_id=str(new_id()))))["code"] == "payment_unknown"
        assert (await ask(at_phone, {"type": "history", "message_id": "h"}))["type"] == "history.page"


async def test_an_error_while_resuming_closes_as_unavailable(
    server: RunningServer, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise asyncpg.InternalClientError("cannot switch to state 11")

    monkeypatch.setattr(TerminalEndpoint, "resume", fail)
    with capture_logs() as logs:
        assert await close_code_at_login(server.url, shop.terminals[0]) == CloseCode.UNAVAILABLE
    assert not [log for log in logs if "exc_info" in log]


async def test_without_a_database_everything_is_busy_and_resumes(dsn: str, shop: Shop) -> None:
    limits = settings(batch_attempts_max=1, queries_per_s=1000, queries_burst=1000)
    async with (
        proxied(dsn) as proxy,
        serving(limits, KEYRING, proxy.dsn) as server,
        logged_in(server.url, shop.terminals[0]) as till,
        logged_in(server.url, shop.wallets[0]) as phone,
    ):
        scan = scan_message(shop.wallets[1].code())
        proxy.away = True
        await proxy.drop_all()
        with capture_logs() as logs:
            for socket, requests in ((till, of_the_till(str(new_id()))), (phone, OF_THE_PHONE)):
                for message, _ in requests:
                    assert (await ask(socket, message))["code"] == BUSY, message
            assert (await ask(till, scan))["code"] == BUSY
            assert await close_code_at_login(server.url, shop.terminals[1]) == CloseCode.UNAVAILABLE
        assert not [log for log in logs if "exc_info" in log]
        proxy.away = False
        assert (await ask(till, scan))["status"] == "approved"
