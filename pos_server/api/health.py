"""`/healthz`: the process lives. `/readyz`: it should get traffic."""

import asyncio
from http import HTTPStatus

import asyncpg
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from ..engine.authorizer import Authorizer
from ..ledger.database import DATABASE_AWAY
from ..ledger.migrate import load_migrations, schema_number


class Health:
    """Ready means: not on its way out, and the database answers in time and has the schema of this version."""

    def __init__(self, authorizer: Authorizer, pool: asyncpg.Pool, *, probe_timeout_s: float) -> None:
        self._authorizer = authorizer
        self._pool = pool
        self._probe_timeout_s = probe_timeout_s
        self._schema_number = load_migrations()[-1].number

    async def alive(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse("alive\n")

    async def ready(self, request: Request) -> PlainTextResponse:
        if self._authorizer.is_closed:
            return _not_ready("draining")
        try:
            # The wait for a connection of the pool is in it.
            async with asyncio.timeout(self._probe_timeout_s):
                number = await schema_number(self._pool)
        except DATABASE_AWAY:
            return _not_ready("the database does not answer")
        if number < self._schema_number:
            return _not_ready(f"the schema is at {number} and must be at {self._schema_number}: pos-server migrate")
        if number > self._schema_number:
            return _not_ready(f"the schema is at {number}, beyond {self._schema_number}: run the newer version")
        return PlainTextResponse("ready\n")


def _not_ready(why: str) -> PlainTextResponse:
    return PlainTextResponse(f"{why}\n", HTTPStatus.SERVICE_UNAVAILABLE)
