"""Audit each seal once: its transfers, their payments and refunds, and the payments that changed meanwhile.

The work of a day is that of the day's rows, however old the ledger is. Temporary tables with the names of the real ones
hold the rows of one seal, so the checks are those of the full audit. What was proved is stored with the seal's hash and
with the sum of each account. A run is resumed after the last seal that was proved. docs/operations.md says what only
the full audit proves.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from ..core.accounting.seals import NO_HASH, Seal, missing_digests, seal_violations
from ..core.accounting.settlement import SETTLEMENT_PAUSE_S
from .audit import CHECKS, Finding, run_checks
from .exclusive import Command, exclusive
from .sql import QUERIES


def _named(*names: str) -> dict[str, str]:
    return {name: CHECKS[name] for name in names}


# Checks of one seal's rows, in the temporary tables.
_OF_A_SEAL = _named(
    "accounts_exist",
    "payments_paid",
    "transfers_owed",
    "transfers_once",
    "cancels_paid",
    "fees",
    "refunds_paid",
    "refunds_within",
    "payments_sound",
    "paid_by",
    "times",
    "owners",
    "payouts",
    "archived_once",
    "shifts_exist",
)
# Checks of what is current, in every run.
_OF_NOW = _named(
    "pending_in_time", "open_shifts", "day_counters", "directory", "archive", "horizons", "future", "sort_order"
)
_OF_STORED_SUMS = {
    "stored_seals": "audited seals that were replaced or removed, or archived transfers that were never audited",
    "stored_balances": "wallets whose balance differs from the audited transfers and the later ones",
    "stored_rollup": "accounts whose sum up to the horizon differs from the audited transfers",
    "stored_sums": "currencies whose audited debits and credits do not cancel out",
}
# A payment that changed this long ago is stored by now, as for a settlement.
_PAUSE = timedelta(seconds=SETTLEMENT_PAUSE_S)


@dataclass(frozen=True, slots=True)
class Audited:
    """A seal whose rows are proved, with the number of its transfers, and of the payments checked with them."""

    seal: int
    day: str
    transfers: int
    payments: int


@dataclass(frozen=True, slots=True)
class IncrementalReport:
    """Seals that this run proved, all that were ever proved up to `last_day`, and the findings.

    `unproved_seal` is the seal with findings, at which the run stopped. `later_transfers` are not proved yet.
    """

    proved: list[Audited]
    seals: int
    transfers: int
    last_day: str | None
    later_transfers: int
    unproved_seal: int | None
    findings: list[Finding]

    @property
    def ok(self) -> bool:
        return not self.findings


@dataclass(frozen=True, slots=True)
class _Piece:
    """A seal with the payments that last changed after `changed_after` and up to `changed_to`."""

    seal: Seal
    changed_after: datetime
    changed_to: datetime


async def audit_incrementally(
    connection: asyncpg.Connection, now: datetime, progress: Callable[[Audited], None]
) -> IncrementalReport:
    """Audit all seals that were not audited yet, one transaction each, and then what is current.

    Stops at the first seal with findings; the next run audits it again. Safe to repeat and to kill. Raises
    AlreadyRunning, also while an archive runs, and asyncpg's errors; seals that were proved before remain proved.
    """
    proved, findings, unproved_seal = list[Audited](), list[Finding](), None
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(exclusive(connection, Command.AUDIT))
        # The transfers of a seal must not leave the ledger before they are in the sums.
        await stack.enter_async_context(exclusive(connection, Command.ARCHIVE))
        await stack.enter_async_context(_shadows(connection))
        while not findings:
            async with connection.transaction(isolation="repeatable_read"):
                await connection.execute(QUERIES["plan_for_values"])
                await connection.execute(QUERIES["search_real_tables_first"])
                piece = await _next_piece(connection)
                if piece is None or piece.changed_to > now - _PAUSE:
                    break
                findings, audited = await _audit_piece(connection, piece)
            if findings:
                unproved_seal = piece.seal.number
            else:
                proved.append(audited)
                progress(audited)
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await connection.execute(QUERIES["search_real_tables_first"])
            findings += await run_checks(connection, _OF_NOW)
            findings += await run_checks(connection, _OF_STORED_SUMS)
            (summary,) = await connection.fetch(QUERIES["incremental_summary"])
    return IncrementalReport(proved, **summary, unproved_seal=unproved_seal, findings=findings)


@asynccontextmanager
async def _shadows(connection: asyncpg.Connection) -> AsyncIterator[None]:
    await connection.execute(QUERIES["create_audited_tables"])
    try:
        yield
    finally:
        if not connection.is_closed():
            await connection.execute(QUERIES["drop_audited_tables"])


async def _next_piece(connection: asyncpg.Connection) -> _Piece | None:
    row = await connection.fetchrow(QUERIES["next_seal_to_audit"], _PAUSE)
    if row is None:
        return None
    values = dict(row)
    changed_after, changed_to = values.pop("changed_after"), values.pop("changed_to")
    return _Piece(Seal(**values), changed_after, changed_to)


async def _audit_piece(connection: asyncpg.Connection, piece: _Piece) -> tuple[list[Finding], Audited]:
    """Check the rows of a seal; store that they are proved if nothing was found. The search path finds real tables."""
    seal, window = piece.seal, (piece.changed_after, piece.changed_to)
    ids = (seal.first_id, seal.last_id)
    violations, missing = await _seal_findings(connection, seal)
    findings = [Finding("seals", "sealed transfers that were changed since", violations)] if violations else []
    for first, last in await connection.fetch(QUERIES["statement_days"], *window):
        findings += await run_checks(connection, _named("settlements"), {"settlements": (first, last)})
    findings += await _check_shadows(
        connection,
        {
            "fill_transfers": ids,
            "fill_keys_of_transfers": (),
            "fill_keys_of_changes": window,
            "fill_keys_of_orders": (),
            "fill_payments": (),
            "fill_refunds": (),
            "fill_other_transfers": (),
            "fill_shifts_referred_to": (),
        },
        _OF_A_SEAL,
        {},
    )
    (sizes,) = await connection.fetch(QUERIES["audited_sizes"], *ids)
    findings += await _check_shadows(
        connection,
        {
            "fill_shifts": window,
            "fill_payments_of_shifts": window[:1],
            "fill_refunds_of_shifts": (),
        },
        _named("shifts"),
        {"shifts": window[:1]},
    )
    if not findings:
        await connection.execute(QUERIES["start_audited_balances"])
        await connection.execute(QUERIES["add_audited_balances"], *ids)
        await connection.execute(
            QUERIES["add_audited_seal"], seal.number, seal.hash, seal.last_id, piece.changed_to, *sizes, missing
        )
    return findings, Audited(seal.number, seal.day, **sizes)


async def _seal_findings(connection: asyncpg.Connection, seal: Seal) -> tuple[list[str], int]:
    """Return what contradicts the seal, and the number of its transfers that are no longer in the ledger."""
    rows = await connection.fetch(QUERIES["transfer_digests"], seal.first_id - 1, seal.last_id, None)
    digests = {row["id"]: row["digest"] for row in rows}
    is_archived = await connection.fetchval(QUERIES["archived_transfers"])
    removed = missing_digests(seal, digests) if is_archived else {}
    previous_hash = await connection.fetchval(QUERIES["hash_before_seal"], seal.number)
    return seal_violations(seal, previous_hash or NO_HASH, digests | removed), len(removed)


async def _check_shadows(
    connection: asyncpg.Connection,
    fills: dict[str, tuple[object, ...]],
    checks: dict[str, str],
    values: dict[str, tuple[object, ...]],
) -> list[Finding]:
    await connection.execute(QUERIES["empty_audited_tables"])
    for name, arguments in fills.items():
        await connection.execute(QUERIES[name], *arguments)
    await connection.execute(QUERIES["analyze_audited_tables"])
    await connection.execute(QUERIES["search_shadows_first"])
    findings = await run_checks(connection, checks, values)
    await connection.execute(QUERIES["search_real_tables_first"])
    return findings
