"""Ledgers with old payments, and checks of an archive, for tests. This module contains no tests."""

import gzip
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from pos_server.ledger.archive import Part, archive
from pos_server.ledger.audit import AuditReport, audit
from pos_server.ledger.rollup import roll_up
from pos_server.ledger.seals import SealReport, check_seals, seal_days
from pos_server.ledger.settlement import settle
from tests.ledger.aging import age_shifts
from tests.ledger.test_audit import sell
from tests.support import Shop

# Noon, because just after midnight the previous day has not ended in every time zone.
NOW = datetime.now(UTC).replace(hour=12)
MIN_AGE = timedelta(days=2)
# Later than everything that `make_old` has aged.
BEFORE = NOW.date() - timedelta(days=2)


async def make_old(admin: asyncpg.Connection, *, days: int = 5) -> None:
    """Make everything in the ledger older by some days; then settle, seal and roll up these days."""
    await age(admin, days=days)
    await settle(admin, BEFORE, NOW)
    # The settlements must be old as well: made right after their day.
    await admin.execute(
        "update settlement set created_at = ends_at + interval '1 minute'; "
        "update transfer x set created_at = s.created_at from settlement s "
        "where x.kind = 'settlement' and x.source_id = s.id"
    )
    await seal_days(admin, NOW, "UTC", lambda seal: None)
    await roll_up(admin)


async def age(admin: asyncpg.Connection, *, days: int) -> None:
    """Make everything in the ledger older by some days."""
    await admin.execute(
        f"update payment set changed_at = changed_at - interval '{days} days', "
        f"approved_at = approved_at - interval '{days} days'; "
        f"update transfer set created_at = created_at - interval '{days} days'; "
        f"update refund set created_at = created_at - interval '{days} days'; "
        # The start of the day is the epoch for wallets that never spent within a day of their own.
        f"update wallet set day_start = greatest(day_start - interval '{days} days', 'epoch')"
    )
    await age_shifts(admin, days=days)


async def archive_old(
    admin: asyncpg.Connection, out: Path, *, before: date = BEFORE, part_payments_max: int = 1000
) -> list[Part]:
    """Archive everything that `make_old` has aged."""
    return await archive(
        admin, before, out, NOW, lambda part: None, min_age=MIN_AGE, part_payments_max=part_payments_max
    )


async def seal_report(admin: asyncpg.Connection, folder: Path | None = None) -> SealReport:
    return await check_seals(admin, lambda seal: None, None, folder)


async def findings(admin: asyncpg.Connection) -> dict[str, list[str]]:
    return {finding.check: finding.offenders for finding in (await audit(admin)).findings}


async def assert_sound(admin: asyncpg.Connection, folder: Path) -> AuditReport:
    """Assert that the audit and the seals find nothing, with and without the archive; return the audit's report."""
    report = await audit(admin)
    assert report.findings == []
    for place in (None, folder):
        assert (await seal_report(admin, place)).problems == []
    return report


def units(folder: Path, number: int = 1) -> list[dict[str, Any]]:
    """Return the lines of a part after its header."""
    return lines(folder, number)[1:]


def lines(folder: Path, number: int = 1) -> list[dict[str, Any]]:
    with gzip.open(folder / f"payments-{number:06}.jsonl.gz", "rt") as part:
        return [json.loads(line) for line in part]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_part(folder: Path, contents: list[dict[str, Any]]) -> None:
    """Replace the lines of the first part."""
    with gzip.open(folder / "payments-000001.jsonl.gz", "wt") as part:
        part.writelines(json.dumps(line) + "\n" for line in contents)


async def every_kind(connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection) -> dict[str, str]:
    """Make an old payment of every kind, settled and sealed; return their ids by name."""
    ids = await sell(connection, shop)
    await make_old(admin)
    return ids
