"""Proves from the rows alone that the money is right. Each check lists the rows that break it; none means it holds."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import asyncpg

from .sql import QUERIES

# Enough to see what is going on; a broken ledger may have millions.
OFFENDERS_LISTED_MAX = 100

# What each check found, in words. The queries' comments say what they check.
_CHECKS = {
    "audit_accounts_exist": "transfers whose accounts do not exist or hold another currency",
    "audit_sum_is_zero": "currencies whose transfers do not sum to zero",
    "audit_balances": "wallets whose balance differs from their transfers",
    "audit_payments_paid": "payments that were approved, without exactly their transfer",
    "audit_transfers_owed": "transfers without a payment that was approved",
    "audit_transfers_once": "payments, cancels, refunds or top-ups whose money moved more than once",
    "audit_cancels_paid": "canceled payments whose money did not go back exactly once",
    "audit_fees": "sales whose fee was not paid, or not returned, as it should be",
    "audit_refunds_paid": "refunds whose money did not go back exactly once",
    "audit_refunds_within": "payments that disagree with their refunds",
    "audit_settlements": "statements that differ from their transfers, or settlements without their statement",
    "audit_archive": "archived rows whose number differs from that in the parts of the archive",
    "audit_archived_once": "archived payments and refunds that are in the ledger too, or whose order is",
    "audit_rollup": "accounts whose sum up to the horizon differs from their transfers",
    "audit_shifts": "shifts whose figures differ from their payments, or that are open at another till than theirs",
    "audit_pending_in_time": "payments that still wait for a PIN after their time",
}


# Told the name of each check: when it begins with None, when it is done with the seconds that it took.
Progress = Callable[[str, float | None], None]


def _silent(check: str, seconds: float | None) -> None:
    """No progress."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A check that failed: `offenders` holds the first ids that break it."""

    check: str
    meaning: str
    offenders: list[str]


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What was looked at, in one snapshot, and what was found; `archived_payments` are not among `payments`."""

    transfers: int
    payments: int
    cash_movements: int
    wallets: int
    archived_payments: int
    findings: list[Finding]

    @property
    def ok(self) -> bool:
        return not self.findings


async def audit(connection: asyncpg.Connection, progress: Progress = _silent) -> AuditReport:
    """Run every check over one snapshot of a live or resting database. Raises asyncpg's errors."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        (counts,) = await _timed(connection, "audit_counts", progress)
        findings = []
        for name, meaning in _CHECKS.items():
            rows = await _timed(connection, name, progress, OFFENDERS_LISTED_MAX)
            if rows:
                findings.append(Finding(name.removeprefix("audit_"), meaning, [row[0] for row in rows]))
        return AuditReport(**counts, findings=findings)


async def _timed(connection: asyncpg.Connection, name: str, progress: Progress, *values: int) -> list[asyncpg.Record]:
    check = name.removeprefix("audit_")
    progress(check, None)
    began_s = time.monotonic()
    rows = await connection.fetch(QUERIES[name], *values)
    progress(check, time.monotonic() - began_s)
    return rows
