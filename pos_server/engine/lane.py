"""A lane's database connection."""

import asyncpg

from ..ledger.database import connect


class Lane:
    """A database connection that runs one batch at a time."""

    def __init__(self, dsn: str, connect_timeout_s: float) -> None:
        self._dsn = dsn
        self._connect_timeout_s = connect_timeout_s
        self._connection: asyncpg.Connection | None = None

    async def connected(self) -> asyncpg.Connection:
        """Return the connection, a new one if the last was lost. Raises DATABASE_ERRORS."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._dsn, timeout_s=self._connect_timeout_s)
        return self._connection

    def drop(self) -> None:
        """Close the connection, so that the next batch gets a new one."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
