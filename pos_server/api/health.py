"""`/healthz`: the process is running. `/readyz`: the server can receive traffic."""

import asyncio
from http import HTTPStatus

import asyncpg
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from ..engine.authorizer import Authorizer
from ..ledger.collations import unsorted_index
from ..ledger.database import is_read_only
from ..ledger.failures import DATABASE_ERRORS, WrongSession, alarms
from ..ledger.migrate import load_migrations, schema_number
from ..supervision import Supervisor


class Health:
    """Probes.

    A server is ready if it is not draining, all tasks that it needs are running, and its database responds in time,
    accepts writes, and has this version's schema with sorted indexes.
    """

    def __init__(
        self, authorizer: Authorizer, pool: asyncpg.Pool, supervisor: Supervisor, *, probe_timeout_s: float
    ) -> None:
        self._authorizer = authorizer
        self._pool = pool
        self._supervisor = supervisor
        self._probe_timeout_s = probe_timeout_s
        self._schema_number = load_migrations()[-1].number
        self._alarms = alarms()

    async def alive(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse("alive\n")

    async def ready(self, request: Request) -> PlainTextResponse:
        if self._authorizer.is_closed:
            return _not_ready("draining")
        if down := self._supervisor.needed_and_down():
            return _not_ready(f"tasks have failed and will be restarted: {', '.join(down)}")
        await self._look_again()
        try:
            # Includes the wait for a connection from the pool.
            async with asyncio.timeout(self._probe_timeout_s):
                number = await schema_number(self._pool)
                read_only = await is_read_only(self._pool)
                unsorted = await unsorted_index(self._pool)
        except WrongSession as error:
            return _not_ready(f"the setting {error.setting} of the database is wrong: see the log")
        except DATABASE_ERRORS:
            return _not_ready("the database does not respond")
        if read_only:
            return _not_ready("the database is read-only")
        if number < self._schema_number:
            return _not_ready(
                f"the schema is at migration {number}, this version needs {self._schema_number}: run pos-server migrate"
            )
        if number > self._schema_number:
            return _not_ready(
                f"the schema is at migration {number}, this version has {self._schema_number}: run the newer version"
            )
        if unsorted is not None:
            return _not_ready(
                f"a collation has changed, so the index {unsorted} may be out of order: run reindex index {unsorted}"
            )
        return PlainTextResponse("ready\n")

    async def _look_again(self) -> None:
        """After an alarming error of any connection, ask the database through a new one: the pool's may be older."""
        if self._alarms != alarms():
            self._alarms = alarms()
            await self._pool.expire_connections()


def _not_ready(reason: str) -> PlainTextResponse:
    return PlainTextResponse(f"{reason}\n", HTTPStatus.SERVICE_UNAVAILABLE)
