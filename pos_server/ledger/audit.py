"""Prove from the rows alone that the money is right. Each check lists the rows that violate it.

docs/operations.md says what the audit proves and what it cannot; a test compares that list with the schema.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from types import MappingProxyType

import asyncpg

from ..core.payments.declines import DeclineCode
from .sql import QUERIES

# A corrupt ledger may have millions of offenders; the first ones show the cause.
OFFENDERS_LISTED_MAX = 100

# Description of each check's findings. The comments of the queries describe the checks.
CHECKS = {
    "accounts_exist": "transfers whose accounts do not exist or have another currency",
    "sum_is_zero": "currencies whose transfers do not sum to zero",
    "balances": "wallets whose balance differs from the sum of their transfers",
    "payments_paid": "approved payments without exactly one matching transfer",
    "transfers_owed": "transfers without an approved payment",
    "transfers_once": "payments, cancels, refunds or top-ups with more than one transfer",
    "cancels_paid": "canceled payments whose money was not returned exactly once",
    "fees": "sales whose fee was not charged or returned correctly",
    "refunds_paid": "refunds whose money was not returned exactly once",
    "refunds_within": "payments whose refunded amount differs from their refunds",
    "payments_sound": "payments whose status, times, version and counts contradict each other",
    "paid_by": "declined payments whose order was paid by a payment that does not exist",
    "times": "payments and refunds whose times differ from those of their transfers",
    "owners": "payments and refunds at another merchant's terminal, or of an unknown wallet or merchant",
    "settlements": "statements that differ from their transfers, their merchant or the previous statement",
    "payouts": "settlement transfers without a statement",
    "archive": "kinds of archived rows whose number differs from the archive's parts",
    "archived_once": "archived payments and refunds that are still in the ledger, or whose order is",
    "rollup": "accounts whose sum up to the horizon differs from their transfers",
    "shifts": "shifts whose totals, times or merchant are wrong",
    "open_shifts": "shifts that are open at the wrong terminal",
    "shifts_exist": "shifts of payments or refunds that do not exist, or belong to another terminal",
    "pending_in_time": "payments that are still pending after their expiry",
    "day_counters": "wallets whose spending of the day differs from their payments",
    "directory": "accounts, stores, terminals, devices or keys without a matching owner",
    "horizons": "horizons, seals or parts of the archive that are beyond what exists, or have a gap",
    "future": "rows from the future",
    "unique": "ids or orders that occur more than once",
    "sort_order": "indexes whose collation has changed, so that rows may not be found",
}
# Further parameters of checks, after the limit of listed offenders.
_EVERYTHING: dict[str, tuple[object, ...]] = {
    "settlements": (date.min, date.max),
    "shifts": (datetime(1, 1, 2, tzinfo=UTC),),
    "payments_sound": (list(DeclineCode),),
}


# Called with the name of each check: with None when it starts, with its duration in seconds when it ends.
Progress = Callable[[str, float | None], None]


def _ignore_progress(check: str, seconds: float | None) -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A failed check; `offenders` holds the first ids that violate it."""

    check: str
    meaning: str
    offenders: list[str]


@dataclass(frozen=True, slots=True)
class AuditReport:
    """Row counts of the audited snapshot, and the findings. `payments` excludes `archived_payments`."""

    transfers: int
    payments: int
    cash_movements: int
    wallets: int
    archived_payments: int
    findings: list[Finding]

    @property
    def ok(self) -> bool:
        return not self.findings


async def audit(connection: asyncpg.Connection, progress: Progress = _ignore_progress) -> AuditReport:
    """Run all checks on one snapshot of a database, which may be in use. Raises asyncpg's errors."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        (counts,) = await _timed(connection, "counts", progress)
        return AuditReport(**counts, findings=await run_checks(connection, CHECKS, progress=progress))


async def run_checks(
    connection: asyncpg.Connection,
    checks: Mapping[str, str],
    values: Mapping[str, tuple[object, ...]] = MappingProxyType({}),
    progress: Progress = _ignore_progress,
) -> list[Finding]:
    """Run checks in the current transaction; `checks` are names with meanings. `values` limit what a check looks at."""
    findings = []
    for name, meaning in checks.items():
        arguments = values.get(name, _EVERYTHING.get(name, ()))
        rows = await _timed(connection, name, progress, OFFENDERS_LISTED_MAX, *arguments)
        if rows:
            findings.append(Finding(name, meaning, [row[0] for row in rows]))
    return findings


async def _timed(
    connection: asyncpg.Connection, check: str, progress: Progress, *values: object
) -> list[asyncpg.Record]:
    progress(check, None)
    started_s = time.monotonic()
    rows = await connection.fetch(QUERIES[f"audit_{check}"], *values)
    progress(check, time.monotonic() - started_s)
    return rows
