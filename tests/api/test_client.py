"""pos_client's ApiClient against the real server."""

import asyncpg
import pytest

from pos_client import ApiClient, ApiError
from pos_server import operator_desk
from pos_server.core.api_keys import Role
from pos_server.core.rest.admin import ApiKeyCreate, ApiKeyRotate, MerchantChange, MerchantCreate
from pos_server.server import RunningServer
from tests.support import Town

pytestmark = pytest.mark.asyncio


async def test_an_operators_day(server: RunningServer, admin: asyncpg.Connection, town: Town) -> None:
    key = await operator_desk.new_key(admin, Role.ADMIN, None, "the operator's")
    async with ApiClient(server.url, key) as api:
        wish = MerchantCreate(name="Kiosk", currency="EUR", fee_bps=145)
        merchant = await api.create_merchant(wish, idempotency_key="kiosk")
        assert await api.create_merchant(wish, idempotency_key="kiosk") == merchant
        other = await api.create_merchant(wish)
        assert [each.merchant_id async for each in api.list_merchants()] == [
            town.merchant_id,
            merchant.merchant_id,
            other.merchant_id,
        ]
        changed = await api.change_merchant(merchant.merchant_id, MerchantChange(status="inactive"))
        assert changed == merchant.model_copy(update={"status": "inactive"})
        assert await api.get_merchant(merchant.merchant_id) == changed
        made = await api.create_api_key(ApiKeyCreate(role=Role.MERCHANT, merchant_id=town.merchant_id, name="shop"))
        rotated = await api.rotate_api_key(made.key_id, ApiKeyRotate(overlap_s=0))
        assert made.key is not None
        assert rotated.key is not None
        async with ApiClient(server.url, made.key) as former, ApiClient(server.url, rotated.key) as current:
            with pytest.raises(ApiError) as ended:
                await former.get_merchant(1)
            with pytest.raises(ApiError) as forbidden:
                await current.get_merchant(1)
        assert [(each.value.status, each.value.code) for each in (ended, forbidden)] == [
            (401, "unauthorized"),
            (403, "role_missing"),
        ]
        assert (await api.revoke_api_key(rotated.key_id)).ends_at is not None
        assert [each.name async for each in api.list_api_keys()] == ["the operator's", "shop", "shop"]
        # Keys of a tenant share what their requests have made.
        second = await api.create_api_key(ApiKeyCreate(role=Role.ADMIN, name="second"))
        async with ApiClient(server.url, second.key or "") as colleague:
            assert await colleague.create_merchant(wish, idempotency_key="kiosk") == merchant
        with pytest.raises(ApiError) as reused:
            await api.create_merchant(MerchantCreate(name="Cafe", currency="EUR"), idempotency_key="kiosk")
        assert (reused.value.code, reused.value.maybe_done) == ("idempotency_key_reused", False)
        with pytest.raises(ApiError) as wrong:
            await api.create_merchant(MerchantCreate(name="Cafe", currency="EUR", time_zone="Moon/Sea"))
        assert (wrong.value.pointer, len(wrong.value.request_id or "")) == ("/time_zone", 16)
