"""Notice that the sort order of text has changed, as after an update of the system's C library.

https://www.postgresql.org/docs/current/collation.html: an index is then out of order, and a search may miss its rows.
The ledger's keys are sorted byte by byte, which never changes (migration 0023). Indexes that an operator has added may
be sorted in the order of a language.
"""

import asyncpg

from .database import AnyConnection
from .sql import QUERIES


async def unsorted_index(pool: asyncpg.Pool) -> str | None:
    """Return the name of an index whose collation has changed, if there is one. Raises asyncpg's errors."""
    name: str | None = await pool.fetchval(QUERIES["audit_sort_order"], 1)
    return name


async def collation_notice(connection: AnyConnection) -> str | None:
    """Return a sentence for the operator if the collation of the database has changed. Raises asyncpg's errors."""
    changed = await connection.fetchrow(QUERIES["changed_collation"])
    if changed is None:
        return None
    return (
        f"The collation of the database has changed from version {changed['recorded']} to {changed['actual']}. "
        "The ledger does not depend on it. Reindex your own indexes, then run "
        "`alter database … refresh collation version`"
    )
