"""Seal the transfers of past days, and check the seals. core/accounting/seals.py defines a seal."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import asyncpg

from ..business_days import day_of, day_start
from ..core.accounting.seals import NO_HASH, Seal, missing_digests, pack_digests, seal_violations
from .archive_check import digest_table, read_archive
from .horizon import wait_until_ended
from .sql import QUERIES

# Limits a seal to 3.2 MB, and the memory of a check.
TRANSFERS_PER_SEAL_MAX = 200_000
_ADVISORY_LOCK = int.from_bytes(b"pos-seal")


@dataclass(frozen=True, slots=True)
class SealReport:
    """Number of checked seals and transfers, and the problems found. Keep a copy of `last_hash` elsewhere."""

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
    """Seal all unsealed days before today in `time_zone`, and return the last hash of the chain.

    Safe to repeat and to run concurrently, because of an advisory lock. A day without transfers has a seal too. Raises
    WriterOpen and asyncpg's errors; days that were sealed before the error remain sealed.
    """
    zone = ZoneInfo(time_zone)
    await connection.execute("select pg_advisory_lock($1)", _ADVISORY_LOCK)
    try:
        last = await connection.fetchrow(QUERIES["last_seal"])
        number, sealed_id, previous = (last["number"], last["last_id"], last["hash"]) if last else (0, 0, NO_HASH)
        first_at = await connection.fetchval(QUERIES["first_transfer_at"])
        day = last["day"] + timedelta(days=1) if last else first_at and day_of(first_at, zone)
        while day is not None and day < day_of(now, zone):
            end = day_start(day + timedelta(days=1), zone)
            last_id = await _last_id_of_day(connection, end, sealed_id)
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


async def _last_id_of_day(connection: asyncpg.Connection, end: datetime, after_id: int) -> int:
    """Return the last transfer before `end`, once all transactions have ended that could add a smaller id."""
    ((last_id, writers),) = await connection.fetch(QUERIES["last_transfer_before"], end, after_id)
    await wait_until_ended(connection, writers)
    return int(last_id)


async def _seal(
    connection: asyncpg.Connection, number: int, day: date, after_id: int, last_id: int, previous_hash: bytes
) -> Seal:
    rows = await connection.fetch(QUERIES["transfer_digests"], after_id, last_id, TRANSFERS_PER_SEAL_MAX)
    digests = {row["id"]: row["digest"] for row in rows}
    seal = Seal(
        number=number,
        day=day.isoformat(),
        first_id=after_id + 1,
        last_id=max(digests) if len(digests) == TRANSFERS_PER_SEAL_MAX else last_id,
        transfers=len(digests),
        digests=pack_digests(digests),
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
    """Compare all seals with the current rows, in one snapshot. Raises asyncpg's errors.

    `expected` is a hash in hex that was kept elsewhere; if no seal has it, the chain was replaced. Archived transfers
    are looked up in the parts in the folder `archive`; without a folder they are only counted.
    """
    previous, seals, transfers, problems = NO_HASH, 0, 0, list[str]()
    is_known = expected is None
    missing = 0
    async with AsyncExitStack() as stack:
        if archive is not None:
            await stack.enter_async_context(digest_table(connection))
        await stack.enter_async_context(connection.transaction(isolation="repeatable_read", readonly=True))
        archived_count = int(await connection.fetchval(QUERIES["archived_transfers"]))
        if archive is not None:
            problems += await read_archive(connection, archive)
        async for row in connection.cursor(QUERIES["seals"], prefetch=1):
            seal = Seal(**row)
            rows = await connection.fetch(QUERIES["transfer_digests"], seal.first_id - 1, seal.last_id, None)
            if seal.number != seals + 1:
                problems.append(f"seal {seals + 1} was removed")
            digests = {row["id"]: row["digest"] for row in rows}
            if archive is not None:
                archived_rows = await connection.fetch(QUERIES["archived_digests"], seal.first_id, seal.last_id)
                archived = {row["id"]: row["digest"] for row in archived_rows}
                problems += [
                    f"transfer {number} is in the archive and in the ledger" for number in archived if number in digests
                ]
                digests = archived | digests
            elif archived_count:
                removed = missing_digests(seal, digests)
                missing += len(removed)
                digests |= removed
            problems += seal_violations(seal, previous, digests)
            is_known = is_known or seal.hash.hex() == expected
            previous, seals, transfers = seal.hash, seal.number, transfers + seal.transfers
            progress(seal)
    if archive is None and missing != archived_count:
        problems.append(
            f"{missing} sealed transfers are missing from the ledger, but {archived_count} are archived. "
            "Run this with --archive DIR, the folder of the archive, to name them"
        )
    if not is_known:
        problems.append(f"no seal has the hash {expected}: seals were removed or replaced")
    return SealReport(seals, transfers, previous, problems)
