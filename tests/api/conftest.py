"""Back offices of merchants, for tests of what keys of the role `merchant` may do."""

from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest_asyncio

from pos_server.ledger import directory
from pos_server.server import RunningServer
from tests.api.back_office import back_office
from tests.support import EUR, Shop


@pytest_asyncio.fixture
async def api(server: RunningServer, shop: Shop, admin: asyncpg.Connection) -> AsyncIterator[httpx.AsyncClient]:
    """The back office of the shop's merchant."""
    async with back_office(server.url, admin, shop.merchant_id) as client:
        yield client


@pytest_asyncio.fixture
async def stranger(server: RunningServer, shop: Shop, admin: asyncpg.Connection) -> AsyncIterator[httpx.AsyncClient]:
    """Another merchant's back office."""
    merchant_id = await directory.create_merchant(admin, "Other shop", EUR)
    async with back_office(server.url, admin, merchant_id) as client:
        yield client
