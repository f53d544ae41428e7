"""Commits that wait for a synchronous standby, and reads that are as durable as such a commit.

A commit is acknowledged once the standbys in `synchronous_standby_names` have it. If the wait is cut short, because the
backend is ended or its statement is canceled, Postgres keeps the commit on this server only and shows its rows to
everybody. A payment in such a row must not be confirmed: it is lost if the standby takes over.

A later commit is acknowledged only when the standby has all earlier ones too. So a reader of rows commits a message
without content to the WAL, and returns the rows after that.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg

from .database import AnyConnection
from .sql import QUERIES

# The function in Postgres that waits for the standby. Its message is translated, and most of its warnings have no code.
_WAIT = "SyncRepWaitForLSN"


class NotDurable(ConnectionError):
    """A commit was acknowledged although no standby has it. It is treated like a lost answer."""


@contextmanager
def durable_commits(connection: AnyConnection) -> Iterator[None]:
    """Raise NotDurable at the end of the block if Postgres did not wait for its standby in the block."""
    warnings = list[Any]()

    def on_message(_: object, message: Any) -> None:
        if message.server_source_function == _WAIT:
            warnings.append(message)

    connection.add_log_listener(on_message)
    try:
        yield
    finally:
        connection.remove_log_listener(on_message)
    if warnings:
        raise NotDurable("Postgres stopped waiting for its synchronous standby")


async def confirm_durable(connection: AnyConnection) -> None:
    """Return once all rows that `connection` has read are as durable as a commit.

    Without a synchronous standby they are already. Raises NotDurable and asyncpg's errors.
    """
    with durable_commits(connection):
        await connection.execute(QUERIES["confirm_durable"])


async def fetch_durable(pool: asyncpg.Pool, query: str, *arguments: object) -> list[asyncpg.Record]:
    """Return rows that are as durable as a commit: payments that are shown to people. Raises as `confirm_durable`."""
    async with pool.acquire() as connection:
        rows = await connection.fetch(query, *arguments)
        if rows:
            await confirm_durable(connection)
        return rows
