"""Ledgers with old payments, for tests of the archive. Nothing here is a test."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import asyncpg

from pos_server.ledger.archive import Part, archive
from pos_server.ledger.rollup import roll_up
from pos_server.ledger.seals import seal_days
from pos_server.ledger.settlement import settle

# Noon: just after midnight the day before is not over everywhere.
NOW = datetime.now(UTC).replace(hour=12)
MIN_AGE = timedelta(days=2)
# Whatever `make_old` has aged was before it.
BEFORE = NOW.date() - timedelta(days=2)


async def make_old(admin: asyncpg.Connection, *, days: int = 5) -> None:
    """Everything in the ledger happened so many days earlier; then its days are settled, sealed and rolled up."""
    await age(admin, days=days)
    await settle(admin, BEFORE, NOW)
    # So that the settlements are old as well.
    await admin.execute(
        "update settlement set created_at = created_at - interval '4 days'; "
        "update transfer set created_at = created_at - interval '4 days' where kind = 'settlement'"
    )
    await seal_days(admin, NOW, "UTC", lambda seal: None)
    await roll_up(admin)


async def age(admin: asyncpg.Connection, *, days: int) -> None:
    """Everything that was made so far happened so many days earlier."""
    await admin.execute(
        f"update payment set changed_at = changed_at - interval '{days} days', "
        f"approved_at = approved_at - interval '{days} days'; "
        f"update transfer set created_at = created_at - interval '{days} days'; "
        f"update refund set created_at = created_at - interval '{days} days'"
    )


async def archive_old(
    admin: asyncpg.Connection, out: Path, *, before: date = BEFORE, part_payments_max: int = 1000
) -> list[Part]:
    """Archive what `make_old` has aged."""
    return await archive(
        admin, before, out, NOW, lambda part: None, min_age=MIN_AGE, part_payments_max=part_payments_max
    )
