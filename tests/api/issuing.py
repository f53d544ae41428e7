"""What tests of the issuer's part of the API share. Nothing here is a test."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import httpx

from pos_server.cli import operator_acts
from pos_server.core.credentials.api_keys import Role
from pos_server.server import RunningServer
from tests.support import http_client


@asynccontextmanager
async def issuer_client(server: RunningServer, admin: asyncpg.Connection) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a new key of the role `issuer`."""
    key = await operator_acts.new_key(admin, Role.ISSUER, None, "the issuer's")
    async with http_client(server.url, key) as client:
        yield client
