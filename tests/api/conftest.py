"""Clients of merchants, for tests of the role `merchant`."""

from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest_asyncio

from pos_server.ledger import directory
from pos_server.server import RunningServer
from tests.api.clients import back_office
from tests.support import EUR, Shop


@pytest_asyncio.fixture
async def api(server: RunningServer, shop: Shop, admin: asyncpg.Connection) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the shop's merchant."""
    async with back_office(server.url, admin, shop.merchant_id) as client:
        yield client


@pytest_asyncio.fixture
async def stranger(server: RunningServer, shop: Shop, admin: asyncpg.Connection) -> AsyncIterator[httpx.AsyncClient]:
    """A client of another merchant."""
    merchant_id = await directory.create_merchant(admin, "Other shop", EUR)
    async with back_office(server.url, admin, merchant_id) as client:
        yield client
