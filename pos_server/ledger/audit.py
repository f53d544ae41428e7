"""Prove from the rows alone that the money is right. Each check lists the rows that violate it.

docs/operations.md says what the audit proves and what it cannot; a test compares that list with the schema.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime

import asyncpg

from ..core.payments.declines import DeclineCode
from .sql import QUERIES

# A corrupt ledger may have millions of offenders; the first ones show the cause.
OFFENDERS_LISTED_MAX = 100

# Description of each check's findings. The comments of the queries describe the checks.
_CHECKS = {
    "audit_accounts_exist": "transfers whose accounts do not exist or have another currency",
    "audit_sum_is_zero": "currencies whose transfers do not sum to zero",
    "audit_balances": "wallets whose balance differs from the sum of their transfers",
    "audit_payments_paid": "approved payments without exactly one matching transfer",
    "audit_transfers_owed": "transfers without an approved payment",
    "audit_transfers_once": "payments, cancels, refunds or top-ups with more than one transfer",
    "audit_cancels_paid": "canceled payments whose money was not returned exactly once",
    "audit_fees": "sales whose fee was not charged or returned correctly",
    "audit_refunds_paid": "refunds whose money was not returned exactly once",
    "audit_refunds_within": "payments whose refunded amount differs from their refunds",
    "audit_payments_sound": "payments whose status, times, version and counts contradict each other",
    "audit_paid_by": "declined payments whose order was paid by a payment that does not exist",
    "audit_times": "payments and refunds whose times differ from those of their transfers",
    "audit_owners": "payments and refunds at another merchant's terminal, or of an unknown wallet or merchant",
    "audit_settlements": "statements that differ from their transfers, their merchant or the previous statement",
    "audit_payouts": "settlement transfers without a statement",
    "audit_archive": "kinds of archived rows whose number differs from the archive's parts",
    "audit_archived_once": "archived payments and refunds that are still in the ledger, or whose order is",
    "audit_rollup": "accounts whose sum up to the horizon differs from their transfers",
    "audit_shifts": "shifts whose totals, times or merchant are wrong",
    "audit_open_shifts": "shifts that are open at the wrong terminal",
    "audit_shifts_exist": "shifts of payments or refunds that do not exist, or belong to another terminal",
    "audit_pending_in_time": "payments that are still pending after their expiry",
    "audit_day_counters": "wallets whose spending of the day differs from their payments",
    "audit_directory": "accounts, stores, terminals, devices or keys without a matching owner",
    "audit_horizons": "horizons, seals or parts of the archive that are beyond what exists, or have a gap",
    "audit_future": "rows from the future",
}
# Further parameters of checks, after the limit of listed offenders.
_ALL_DAYS = {
    "audit_settlements": (date.min, date.max),
    "audit_day_counters": (datetime(1, 1, 2, tzinfo=UTC),),
    "audit_payments_sound": (list(DeclineCode),),
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
        (counts,) = await _timed(connection, "audit_counts", progress)
        findings = []
        for name, meaning in _CHECKS.items():
            rows = await _timed(connection, name, progress, OFFENDERS_LISTED_MAX, *_ALL_DAYS.get(name, ()))
            if rows:
                findings.append(Finding(name.removeprefix("audit_"), meaning, [row[0] for row in rows]))
        return AuditReport(**counts, findings=findings)


async def _timed(
    connection: asyncpg.Connection, name: str, progress: Progress, *values: object
) -> list[asyncpg.Record]:
    check = name.removeprefix("audit_")
    progress(check, None)
    started_s = time.monotonic()
    rows = await connection.fetch(QUERIES[name], *values)
    progress(check, time.monotonic() - started_s)
    return rows
