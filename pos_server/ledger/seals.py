"""Seals the transfers of days that are over, and checks the seals. core/accounting/seals.py says what a seal is."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import asyncpg

from ..core.accounting.seals import NO_HASH, Seal, missing_digests, pack_digests, seal_violations
from .archive_check import read_archive, room_for_digests
from .sql import QUERIES
from .transactions import wait_until_ended

# Bounds one seal's size to 3.2 MB, and what a check holds in memory.
TRANSFERS_PER_SEAL_MAX = 200_000
_ADVISORY_LOCK = int.from_bytes(b"pos-seal")


@dataclass(frozen=True, slots=True)
class SealReport:
    """How much was looked at and what was found; `last_hash` is worth keeping elsewhere."""

    seals: int
    transfers: int
    last_hash: bytes
    problems: list[str]

    @property
    def ok(self) -> bool:
        return not self.problems


async def seal_days(
    connection: asyncpg.Connection, now: datetime, time_zone: str, progress: Callable[[Seal], None]
) -> bytes:
    """Seal every day before today that is not sealed yet, in the zone `time_zone`; returns the last hash of the chain.

    Safe to run twice and at several places at once: an advisory lock lets one work. A day that has no transfers has
    a seal too. Raises TransactionsOpen, and asyncpg's errors; days sealed by then stay sealed.
    """
    zone = ZoneInfo(time_zone)
    await connection.execute("select pg_advisory_lock($1)", _ADVISORY_LOCK)
    try:
        last = await connection.fetchrow(QUERIES["last_seal"])
        number, sealed_id, previous = (last["number"], last["last_id"], last["hash"]) if last else (0, 0, NO_HASH)
        first_at = await connection.fetchval(QUERIES["first_transfer_at"])
        day = last["day"] + timedelta(days=1) if last else first_at and first_at.astimezone(zone).date()
        while day is not None and day < now.astimezone(zone).date():
            ends = datetime.combine(day + timedelta(days=1), datetime.min.time(), zone)
            last_id = await _settled_id(connection, ends, sealed_id)
            while True:
                seal = await _seal(connection, number + 1, day, sealed_id, last_id, previous)
                progress(seal)
                number, sealed_id, previous = seal.number, seal.last_id, seal.hash
                if seal.transfers < TRANSFERS_PER_SEAL_MAX:
                    break
            day += timedelta(days=1)
        return previous
    finally:
        if not connection.is_closed():
            await connection.execute("select pg_advisory_unlock($1)", _ADVISORY_LOCK)


async def _settled_id(connection: asyncpg.Connection, ends: datetime, after_id: int) -> int:
    """The last transfer of a day, once no smaller id can still come: all that ran when it was read have ended."""
    ((last_id, running),) = await connection.fetch(QUERIES["last_transfer_before"], ends, after_id)
    await wait_until_ended(connection, running)
    return int(last_id)


async def _seal(
    connection: asyncpg.Connection, number: int, day: date, after_id: int, last_id: int, previous_hash: bytes
) -> Seal:
    rows = await connection.fetch(QUERIES["transfer_digests"], after_id, last_id, TRANSFERS_PER_SEAL_MAX)
    found = {row["id"]: row["digest"] for row in rows}
    seal = Seal(
        number=number,
        day=day.isoformat(),
        first_id=after_id + 1,
        last_id=max(found) if len(found) == TRANSFERS_PER_SEAL_MAX else last_id,
        transfers=len(found),
        digests=pack_digests(found),
        previous_hash=previous_hash,
        hash=b"",
    )
    seal = Seal(**{name: getattr(seal, name) for name in Seal.__slots__} | {"hash": seal.expected_hash()})
    columns = (getattr(seal, name) for name in Seal.__slots__ if name != "day")
    await connection.execute(QUERIES["add_seal"], day, *columns)
    return seal


async def check_seals(
    connection: asyncpg.Connection,
    progress: Callable[[Seal], None],
    expected: str | None = None,
    archive: Path | None = None,
) -> SealReport:
    """Compare every seal with the rows as they are, in one snapshot. Raises asyncpg's errors.

    `expected`, in hex, is a hash that was kept elsewhere: a seal must have it, or the chain is not the one it was.
    Archived transfers are looked up in the parts in the folder `archive`; without it they are only counted.
    """
    previous, seals, transfers, problems = NO_HASH, 0, 0, list[str]()
    is_known = expected is None
    missing = 0
    async with AsyncExitStack() as stack:
        if archive is not None:
            await stack.enter_async_context(room_for_digests(connection))
        await stack.enter_async_context(connection.transaction(isolation="repeatable_read", readonly=True))
        archived = int(await connection.fetchval(QUERIES["archived_transfers"]))
        if archive is not None:
            problems += await read_archive(connection, archive)
        async for row in connection.cursor(QUERIES["seals"], prefetch=1):
            seal = Seal(**row)
            rows = await connection.fetch(QUERIES["transfer_digests"], seal.first_id - 1, seal.last_id, None)
            if seal.number != seals + 1:
                problems.append(f"seal {seals + 1} was removed")
            found = {row["id"]: row["digest"] for row in rows}
            if archive is not None:
                old = await connection.fetch(QUERIES["archived_digests"], seal.first_id, seal.last_id)
                problems += [
                    f"transfer {row['id']} is in the archive and in the ledger" for row in old if row["id"] in found
                ]
                found = {row["id"]: row["digest"] for row in old} | found
            elif archived:
                removed = missing_digests(seal, found)
                missing += len(removed)
                found |= removed
            problems += seal_violations(seal, previous, found)
            is_known = is_known or seal.hash.hex() == expected
            previous, seals, transfers = seal.hash, seal.number, transfers + seal.transfers
            progress(seal)
    if archive is None and missing != archived:
        problems.append(
            f"{missing} sealed transfers are not in the ledger, and {archived} are archived: "
            "--archive DIR, the folder of the archive, says which"
        )
    if not is_known:
        problems.append(f"no seal has the hash {expected}: seals were removed, or made anew")
    return SealReport(seals, transfers, previous, problems)
