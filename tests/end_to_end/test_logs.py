"""The log of a real server: one JSON object per line, with ids of requests and payments, without secrets."""

import json
import re
from typing import Any

import asyncpg
import pytest

from tests.api.clients import back_office, idempotent, payment_body
from tests.end_to_end.server_process import ServerProcess, running_server
from tests.proxy import proxied
from tests.support import MASTER_KEYS, Shop

pytestmark = pytest.mark.asyncio


def events(server: ServerProcess) -> list[dict[str, Any]]:
    """Return the events: all lines except the two messages to the operator, at start and stop."""
    messages = re.compile(r".* serves http.*|stopping: .*")
    return [json.loads(line) for line in server.log.splitlines() if not messages.fullmatch(line)]


def about(logged: list[dict[str, Any]], request_id: str) -> list[tuple[str, str | None]]:
    """Return the events of a request, each with its payment."""
    return [(event["event"], event.get("payment_id")) for event in logged if event.get("request_id") == request_id]


async def test_events_have_ids_of_requests_and_payments_and_no_secrets(
    dsn: str, shop: Shop, admin: asyncpg.Connection
) -> None:
    body, other = payment_body(shop), payment_body(shop)
    async with running_server(POS_DATABASE_URL=dsn, POS_MASTER_KEYS=MASTER_KEYS) as server:
        async with back_office(server.url, admin, shop.merchant_id) as api:
            key = api.headers["Authorization"].removeprefix("Bearer ")
            made = (await api.post("/v1/payments", json=body, headers=idempotent() | {"X-Request-Id": "made"})).json()
            path = f"/v1/payments/{made['payment_id']}"
            assert (await api.get(path, headers={"X-Request-Id": "read"})).status_code == 200
            assert (await api.get("/v1/terminals", headers={"X-Request-Id": "list"})).status_code == 200
            by_order = {"reference": body["reference"]}
            canceled = await api.post("/v1/cancels", json=by_order, headers=idempotent() | {"X-Request-Id": "order"})
            assert canceled.status_code == 200, canceled.text
            bad = {"X-Request-Id": f"id with {other['code']}"}
            assert (
                await api.post("/v1/payments", json=other | {"amount_minor": 0}, headers=idempotent() | bad)
            ).is_error
        assert await server.stop() == 0
    logged = events(server)
    payment_id = made["payment_id"]
    assert about(logged, "made") == about(logged, "read") == about(logged, "order") == [("api_request", payment_id)]
    assert about(logged, "list") == [("api_request", None)], "the id of an earlier request on the connection"
    assert len([event for event in logged if event["event"] == "api_request" and event["request_id"]]) == 5
    for secret in (key, body["code"], other["code"], MASTER_KEYS.partition(":")[2]):
        assert secret not in server.log


async def test_an_event_of_a_lost_database_has_the_request_id(dsn: str, shop: Shop, admin: asyncpg.Connection) -> None:
    async with (
        proxied(dsn) as proxy,
        running_server(
            POS_DATABASE_URL=proxy.dsn, POS_MASTER_KEYS=MASTER_KEYS, POS_DATABASE_CONNECT_TIMEOUT_S="4"
        ) as server,
        back_office(server.url, admin, shop.merchant_id) as api,
    ):
        proxy.away = True
        await proxy.drop_all()
        lost = await api.get("/v1/terminals", headers={"X-Request-Id": "lost"})
        activation = {"activation_code": "x" * 20, "request_id": "00000000-0000-4000-8000-000000000000"}
        await api.post("/v1/activations", json=activation, headers={"X-Request-Id": "activation"})
        assert await server.stop() == 0
    assert lost.status_code == 503
    assert about(events(server), "lost") == [("database_away", None), ("api_request", None)]
    assert about(events(server), "activation") == [("database_away", None)]
