"""Handlers of the role `admin`: merchants and API keys."""

from datetime import time
from typing import Any

import asyncpg

from ..business_days import is_time_zone
from ..core.credentials.api_keys import API_KEY_BYTES, Role, api_key
from ..core.payments.snapshot import MerchantStatus
from ..core.rest.admin import (
    ApiKey,
    ApiKeyCreate,
    ApiKeyCreated,
    ApiKeyPath,
    ApiKeyRotate,
    Merchant,
    MerchantChange,
    MerchantCreate,
    MerchantPath,
)
from ..core.rest.fields import NoParameters, Page, Paging
from ..core.rest.problems import ProblemCode
from ..ledger import api_keys, directory
from ..ledger.api_keys import ApiKeyRecord
from ..ledger.database import AnyConnection
from .support.dispatch import ApiCall, Handler, Reply
from .support.idempotent_create import IdempotentCreate
from .support.pages import after_id, page
from .support.problems import problem
from .support.times import rfc3339, rfc3339_or_none


class Admin:
    """Handlers of the role `admin`."""

    def __init__(self, pool: asyncpg.Pool, creator: IdempotentCreate) -> None:
        self._pool = pool
        self._creator = creator

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers by the names of ADMIN_ENDPOINTS."""
        return {
            "createMerchant": self.create_merchant,
            "listMerchants": self.list_merchants,
            "getMerchant": self.get_merchant,
            "changeMerchant": self.change_merchant,
            "createApiKey": self.create_api_key,
            "listApiKeys": self.list_api_keys,
            "rotateApiKey": self.rotate_api_key,
            "revokeApiKey": self.revoke_api_key,
        }

    async def create_merchant(self, call: ApiCall[NoParameters, NoParameters, MerchantCreate]) -> Reply:
        body = call.body
        _check_time_zone(body.time_zone)

        async def create(connection: AnyConnection, secret: bytes) -> Merchant:
            merchant_id = await directory.create_merchant(connection, body.name, body.currency)
            row = await directory.set_terms(
                connection,
                merchant_id,
                fee_bps=body.fee_bps,
                fee_fixed_minor=body.fee_fixed_minor,
                time_zone=body.time_zone,
                cut_off=time.fromisoformat(body.cut_off),
            )
            return _merchant(row)

        return await self._creator.create(call, Merchant, create)

    async def list_merchants(self, call: ApiCall[NoParameters, Paging, None]) -> Reply:
        rows = await directory.list_merchants(self._pool, after_id(call.query), call.query.limit + 1)
        merchants = [_merchant(row) for row in rows]
        return Reply(page(Page[Merchant], merchants, call.query, lambda merchant: str(merchant.merchant_id)))

    async def get_merchant(self, call: ApiCall[MerchantPath, NoParameters, None]) -> Reply:
        return Reply(_merchant(await directory.find_merchant(self._pool, call.parameters.merchant_id)))

    async def change_merchant(self, call: ApiCall[MerchantPath, NoParameters, MerchantChange]) -> Reply:
        merchant_id, body = call.parameters.merchant_id, call.body
        if body.time_zone is not None:
            _check_time_zone(body.time_zone)
        async with self._pool.acquire() as connection, connection.transaction():
            if body.status is not None:
                await directory.set_merchant_status(connection, merchant_id, MerchantStatus(body.status))
            row = await directory.set_terms(
                connection,
                merchant_id,
                fee_bps=body.fee_bps,
                fee_fixed_minor=body.fee_fixed_minor,
                time_zone=body.time_zone,
                cut_off=None if body.cut_off is None else time.fromisoformat(body.cut_off),
            )
            return Reply(_merchant(row))

    async def create_api_key(self, call: ApiCall[NoParameters, NoParameters, ApiKeyCreate]) -> Reply:
        body = call.body
        if (body.merchant_id is not None) != (body.role is Role.MERCHANT):
            text = "A key with the role `merchant` needs a merchant_id; other roles must not have one."
            raise problem(ProblemCode.BAD_FIELD, text, pointer="/merchant_id")

        async def create(connection: AnyConnection, secret: bytes) -> ApiKeyCreated:
            if body.merchant_id is not None and await directory.find_merchant(connection, body.merchant_id) is None:
                raise problem(ProblemCode.NOT_FOUND, "Unknown merchant.", pointer="/merchant_id")
            return await _create_key(connection, secret, body.role, body.merchant_id, body.name)

        return await self._creator.create(call, ApiKeyCreated, create, _with_secret)

    async def rotate_api_key(self, call: ApiCall[ApiKeyPath, NoParameters, ApiKeyRotate]) -> Reply:
        async def create(connection: AnyConnection, secret: bytes) -> ApiKeyCreated:
            previous = await api_keys.find_api_key_record(connection, call.parameters.key_id)
            if previous is None:
                raise problem(ProblemCode.NOT_FOUND)
            await api_keys.end_api_key(connection, previous.id, call.body.overlap_s)
            return await _create_key(connection, secret, previous.role, previous.merchant_id, previous.name)

        return await self._creator.create(call, ApiKeyCreated, create, _with_secret)

    async def list_api_keys(self, call: ApiCall[NoParameters, Paging, None]) -> Reply:
        records = await api_keys.list_api_keys(self._pool, after_id(call.query), call.query.limit + 1)
        keys = [ApiKey(**_key_fields(record)) for record in records]
        return Reply(page(Page[ApiKey], keys, call.query, lambda key: str(key.key_id)))

    async def revoke_api_key(self, call: ApiCall[ApiKeyPath, NoParameters, None]) -> Reply:
        key_id = call.parameters.key_id
        async with self._pool.acquire() as connection:
            await api_keys.end_api_key(connection, key_id)
            record = await api_keys.find_api_key_record(connection, key_id)
        if record is None:
            raise problem(ProblemCode.NOT_FOUND)
        return Reply(ApiKey(**_key_fields(record)))


def _check_time_zone(name: str) -> None:
    if not is_time_zone(name):
        raise problem(
            ProblemCode.BAD_FIELD, "Unknown time zone. Use an IANA name such as Europe/Berlin.", pointer="/time_zone"
        )


def _merchant(row: asyncpg.Record | None) -> Merchant:
    if row is None:
        raise problem(ProblemCode.NOT_FOUND)
    return Merchant(**{**row, "cut_off": f"{row['cut_off']:%H:%M}"})


async def _create_key(
    connection: AnyConnection, secret: bytes, role: Role, merchant_id: int | None, name: str
) -> ApiKeyCreated:
    key_id = await api_keys.create_api_key(connection, _key(role, secret), role, merchant_id, name)
    record = await api_keys.find_api_key_record(connection, key_id)
    if record is None:
        raise AssertionError("the new key is not in the database")
    return ApiKeyCreated(**_key_fields(record), key=None)


def _with_secret(api_key_created: ApiKeyCreated, secret: bytes) -> ApiKeyCreated:
    return api_key_created.model_copy(update={"key": _key(api_key_created.role, secret)})


def _key(role: Role, secret: bytes) -> str:
    return api_key(role, secret[:API_KEY_BYTES])


def _key_fields(record: ApiKeyRecord) -> dict[str, Any]:
    return {
        "key_id": record.id,
        "role": record.role,
        "merchant_id": record.merchant_id,
        "name": record.name,
        "created_at": rfc3339(record.created_at),
        "last_used_at": rfc3339_or_none(record.last_used_at),
        "ends_at": rfc3339_or_none(record.ends_at),
    }
