"""Authentication of REST requests: the API key and how it is sent."""

import asyncpg
import pytest

from pos_server.cli import operator_acts
from pos_server.core.credentials.api_keys import Role
from pos_server.server import RunningServer, serving
from tests.api.clients import problem
from tests.support import KEYRING, Shop, http_client, settings

pytestmark = pytest.mark.asyncio


async def test_rejected_credentials(server: RunningServer, shop: Shop, admin: asyncpg.Connection) -> None:
    ended = await operator_acts.new_key(admin, Role.MERCHANT, shop.merchant_id, "revoked")
    await operator_acts.revoke_key(admin, 1)
    good = await operator_acts.new_key(admin, Role.MERCHANT, shop.merchant_id, "good")
    async with http_client(server.url) as client:
        for headers in (
            {},
            {"Authorization": good},
            {"Authorization": f"Basic {good}"},
            {"Authorization": f"Bearer {ended}"},
            {"Authorization": f"Bearer {good[:-1]}"},
            {"Authorization": "Bearer " + "x" * 4000},
        ):
            refused = await client.get("/v1/balance", headers=headers)
            assert problem(refused) == (401, "unauthorized", None), headers
            assert refused.headers["www-authenticate"] == "Bearer"
        for scheme in ("Bearer", "bearer"):
            answer = await client.get("/v1/balance", headers={"Authorization": f"{scheme} {good}"})
            assert answer.status_code == 200


async def test_guessing_is_rate_limited(dsn: str, shop: Shop) -> None:
    async with (
        serving(settings(api_key_failures_max=2), KEYRING, dsn) as server,
        http_client(server.url) as client,
    ):
        statuses = [
            (await client.get("/v1/balance", headers={"Authorization": f"Bearer pos_{n}"})).status_code
            for n in range(4)
        ]
    assert statuses == [401, 401, 429, 429]


async def test_a_key_is_stored_as_a_hash_only(shop: Shop, admin: asyncpg.Connection) -> None:
    key = await operator_acts.new_key(admin, Role.MERCHANT, shop.merchant_id, "x")
    row = await admin.fetchrow("select * from api_key")
    assert row is not None
    assert key not in str(dict(row))
    assert len(key.removeprefix("pos_merchant_")) == 52
