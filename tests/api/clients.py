"""Clients of the REST API with API keys, and helpers for requests and problems. This module contains no tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx

from pos_server.cli import operator_acts
from pos_server.core.credentials.api_keys import Role
from pos_server.server import RunningServer
from tests.support import Shop, http_client, new_id


@asynccontextmanager
async def back_office(url: str, admin: asyncpg.Connection, merchant_id: int) -> AsyncIterator[httpx.AsyncClient]:
    """Open a client with a new key of the merchant."""
    key = await operator_acts.new_key(admin, Role.MERCHANT, merchant_id, "back office")
    async with http_client(url, key) as client:
        yield client


@asynccontextmanager
async def issuer_client(server: RunningServer, admin: asyncpg.Connection) -> AsyncIterator[httpx.AsyncClient]:
    """Open a client with a new key of the role `issuer`."""
    key = await operator_acts.new_key(admin, Role.ISSUER, None, "the issuer's")
    async with http_client(server.url, key) as client:
        yield client


def idempotent(key: object = None) -> dict[str, str]:
    """Return the header `Idempotency-Key` with this key, or with a new key."""
    return {"Idempotency-Key": str(new_id() if key is None else key)}


def problem(response: httpx.Response) -> tuple[int, str, str | None]:
    """Return the status, code and pointer of a problem."""
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert (body["status"], body["request_id"]) == (response.status_code, response.headers["x-request-id"])
    return response.status_code, body["code"], body.get("pointer")


def payment_body(shop: Shop, **fields: Any) -> dict[str, Any]:
    """Return the body of a payment of 10.00 EUR with a new code; `fields` override it."""
    body = {
        "terminal_number": shop.terminals[0].device.number,
        "code": shop.wallets[0].code(),
        "amount_minor": 1_000,
        "reference": f"order-{new_id()}",
    }
    return body | fields


async def pay(api: httpx.AsyncClient, shop: Shop, **fields: Any) -> dict[str, Any]:
    """Create a payment and return it."""
    response = await api.post("/v1/payments", json=payment_body(shop, **fields), headers=idempotent())
    assert response.status_code == 201, response.text
    payment: dict[str, Any] = response.json()
    return payment
