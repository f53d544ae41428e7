"""Expires payments that nobody confirmed in time. Rows say which, so no restart forgets one."""

from collections.abc import Callable

import asyncpg

from ..core.payments.operations import Expire
from ..ledger.rows import plain_uuid
from ..ledger.sql import QUERIES
from .authorizer import Authorizer, NotAccepted


class Sweeper:
    """Submits expired payments to the engine, which settles a race with a confirmation."""

    def __init__(self, authorizer: Authorizer, now_ms: Callable[[], int], batch_max: int) -> None:
        self._authorizer = authorizer
        self._now_ms = now_ms
        self._batch_max = batch_max

    async def sweep(self, connection: asyncpg.Connection) -> None:
        """Submit one round. A full queue ends it: the next round finds the same rows."""
        for row in await connection.fetch(QUERIES["payments_to_expire"], self._now_ms(), self._batch_max):
            try:
                self._authorizer.submit(Expire(plain_uuid(row["id"]), row["merchant_id"]))
            except NotAccepted:
                return
