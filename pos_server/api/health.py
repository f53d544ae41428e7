"""`/healthz`: the process lives. `/readyz`: it should get traffic."""

from http import HTTPStatus

import asyncpg
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from ..admission import Admission
from ..ledger.database import answers


class Health:
    """Ready means: not on its way out, and the database answers."""

    def __init__(self, admission: Admission, pool: asyncpg.Pool) -> None:
        self._admission = admission
        self._pool = pool

    async def alive(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse("alive\n")

    async def ready(self, request: Request) -> PlainTextResponse:
        if self._admission.draining:
            return PlainTextResponse("draining\n", HTTPStatus.SERVICE_UNAVAILABLE)
        if not await answers(self._pool):
            return PlainTextResponse("the database does not answer\n", HTTPStatus.SERVICE_UNAVAILABLE)
        return PlainTextResponse("ready\n")
