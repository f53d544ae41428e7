"""A merchant's back office, for tests of the REST API. Nothing here is a test."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import httpx

from pos_server.cli import operator_acts
from pos_server.core.credentials.api_keys import Role
from tests.support import http_client, new_id


@asynccontextmanager
async def back_office(url: str, admin: asyncpg.Connection, merchant_id: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a new key of the merchant."""
    key = await operator_acts.new_key(admin, Role.MERCHANT, merchant_id, "back office")
    async with http_client(url, key) as client:
        yield client


def once(key: object = None) -> dict[str, str]:
    """An `Idempotency-Key`, a new one unless told otherwise."""
    return {"Idempotency-Key": str(new_id() if key is None else key)}


def told(response: httpx.Response) -> tuple[int, str, str | None]:
    """Status, code and pointer of a problem."""
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert (body["status"], body["request_id"]) == (response.status_code, response.headers["x-request-id"])
    return response.status_code, body["code"], body.get("pointer")
