"""Moves old payments out of the ledger into files, so that years of them do not slow it. docs/archive.md explains it.

What is moved is a unit: a payment with all its refunds and transfers, or the transfer of a settlement. Units are read
without locks and written to a file first; then one transaction takes them out of the ledger, each only if its payment
still has the version that was written, and records the file. A payment that has moved on meanwhile undoes that
transaction, and its part is made again without it. So live payments wait for nothing but the deletion itself, and a
crash leaves either nothing or a file that no row knows, which the next run writes anew under the same name.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg

from ..core.errors import PosError
from .archive_file import PartWriter, part_name
from .rollup import roll_up
from .sql import QUERIES

_ADVISORY_LOCK = int.from_bytes(b"pos-arch")
# Each attempt is made without what has changed before it, so a second one is rare already.
_ATTEMPTS_MAX = 10


class NotArchivable(PosError):
    """Nothing can be archived, or no more of it; the text says what to do first. What was archived by then stays so."""


@dataclass(frozen=True, slots=True)
class Part:
    """A file of the archive, and how much it holds."""

    file: str
    payments: int
    refunds: int
    settlements: int
    transfers: int


@dataclass(frozen=True, slots=True)
class _Horizon:
    """What may be archived: final `before` a time, with transfers up to an id that is sealed and rolled up."""

    before: datetime
    last_id: int


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the next part begins: an id of a payment (None: there are no more), and the last settlement's transfer."""

    payment_id: UUID | None
    settlement_id: int | None


@dataclass(slots=True)
class _Units:
    """The rows of one part by their ids; `versions` are those of the payments."""

    payment_ids: list[UUID] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    refund_ids: list[UUID] = field(default_factory=list)
    transfer_ids: list[int] = field(default_factory=list)
    settlements: int = 0

    def __len__(self) -> int:
        return len(self.payment_ids) + self.settlements


class _Changed(Exception):
    """A payment of the part is not what was written."""


async def archive(
    connection: asyncpg.Connection,
    before: date,
    out: Path,
    now: datetime,
    progress: Callable[[Part], None],
    *,
    min_age: timedelta,
    part_payments_max: int,
) -> list[Part]:
    """Move what was final before `before` (midnight UTC) into files in `out`; returns the parts that were made.

    Safe to run twice, at several places at once, and after it was killed: parts that were recorded stay. Raises
    NotArchivable, TransactionsOpen, and asyncpg's errors.
    """
    await connection.execute("select pg_advisory_lock($1)", _ADVISORY_LOCK)
    try:
        horizon = await _horizon(connection, before, now, min_age)
        place, parts = _Place(UUID(int=0), 0), list[Part]()
        while True:
            part, place = await _move_part(connection, horizon, place, out, now, part_payments_max)
            if part is None:
                break
            progress(part)
            parts.append(part)
        if parts:
            for name in ("vacuum_archived", "forget_transfer_times", "learn_transfer_times"):
                await connection.execute(QUERIES[name])
        return parts
    finally:
        if not connection.is_closed():
            await connection.execute("select pg_advisory_unlock($1)", _ADVISORY_LOCK)


async def _horizon(connection: asyncpg.Connection, before: date, now: datetime, min_age: timedelta) -> _Horizon:
    start = datetime.combine(before, time.min, UTC)
    if now - start < min_age:
        raise NotArchivable(
            f"{before} is too late: what is archived must be {min_age / timedelta(days=1):g} days old "
            f"(POS_ARCHIVE_MIN_AGE_DAYS). Archive what was before {(now - min_age).date()}"
        )
    # The day that begins then is settled too: in another time zone it has begun before.
    unsettled = await connection.fetchval(QUERIES["first_unsettled_date"], before)
    if unsettled is not None:
        raise NotArchivable(
            f"business day {unsettled} is not settled: run `pos-server settle --date {before}`, then this again"
        )
    if await connection.fetchval(QUERIES["first_unsealed_before"], start) is not None:
        raise NotArchivable(f"not all transfers before {before} are sealed: run `pos-server seal`, then this again")
    terminal = await connection.fetchval(QUERIES["open_shift_before"], start)
    if terminal is not None:
        raise NotArchivable(
            f"terminal {terminal} has a shift open since before {before}: close it, then run this again"
        )
    await connection.execute(QUERIES["sum_up_shifts"])
    seal = await connection.fetchrow(QUERIES["last_seal"])
    last_id = seal["last_id"] if seal else 0
    if await connection.fetchval(QUERIES["rollup_horizon"]) < last_id:
        last_id = min(last_id, await roll_up(connection))
    return _Horizon(start, last_id)


async def _move_part(
    connection: asyncpg.Connection, horizon: _Horizon, place: _Place, out: Path, now: datetime, payments_max: int
) -> tuple[Part | None, _Place]:
    """Write and record the next part; None when nothing is left. Also returns where the one after it begins."""
    for _ in range(_ATTEMPTS_MAX):
        last = await connection.fetchrow(QUERIES["last_archive_part"])
        number = last["number"] + 1 if last else 1
        try:
            writer = await asyncio.to_thread(PartWriter, out, number, horizon.before, last["sha256"] if last else None)
            try:
                units, next_place = await _write_units(connection, writer, horizon, place, payments_max)
            except BaseException:
                writer.discard()
                raise
            if not units:
                await asyncio.to_thread(writer.discard)
                return None, next_place
            digest = await asyncio.to_thread(writer.finish)
        except ConnectionError:
            raise  # of the database
        except OSError as error:
            raise NotArchivable(
                f"cannot write {out / part_name(number)}: {error}. What it was to hold stays"
            ) from error
        try:
            return await _record(connection, units, number, horizon, digest, now), next_place
        except (_Changed, asyncpg.DeadlockDetectedError):
            continue
    raise NotArchivable("old payments keep changing while they are archived: run this again later")


async def _write_units(
    connection: asyncpg.Connection, writer: PartWriter, horizon: _Horizon, place: _Place, payments_max: int
) -> tuple[_Units, _Place]:
    units, payment_id, settlement_id = _Units(), place.payment_id, place.settlement_id
    while payment_id is not None and len(units) < payments_max:
        rows = await connection.fetch(QUERIES["archive_payments"], payment_id, horizon.before, horizon.last_id)
        lines = []
        payment_id = None
        for row in rows:
            if len(units) == payments_max:
                payment_id = row["id"]
                break
            payment_id = UUID(int=row["id"].int + 1) if row["id"].int < 2**128 - 1 else None
            if row["line"] is not None:
                lines.append(row["line"])
                units.payment_ids.append(row["id"])
                units.versions.append(row["version"])
                units.refund_ids += row["refund_ids"]
                units.transfer_ids += row["transfer_ids"]
        await asyncio.to_thread(writer.write, lines)
    while payment_id is None and settlement_id is not None and len(units) < payments_max:
        rows = await connection.fetch(QUERIES["archive_settlements"], settlement_id, horizon.before, horizon.last_id)
        rows = rows[: payments_max - len(units)]
        await asyncio.to_thread(writer.write, [row["line"] for row in rows])
        units.transfer_ids += [row["id"] for row in rows]
        units.settlements += len(rows)
        settlement_id = rows[-1]["id"] if rows else None
    return units, _Place(payment_id, settlement_id)


async def _record(
    connection: asyncpg.Connection, units: _Units, number: int, horizon: _Horizon, digest: bytes, now: datetime
) -> Part:
    """Take the units out of the ledger and record their part: one commit. Raises _Changed, and nothing has happened."""
    part = Part(
        part_name(number), len(units.payment_ids), len(units.refund_ids), units.settlements, len(units.transfer_ids)
    )
    async with connection.transaction():
        # Payments go last, so that whoever wants one of them waits for no more than that.
        taken = [
            _count(await connection.execute(QUERIES["archive_names"], units.payment_ids, units.versions)),
            _count(await connection.execute(QUERIES["archive_refund_names"], units.refund_ids)),
            await connection.fetchval(QUERIES["archive_transfers"], units.transfer_ids),
            _count(await connection.execute(QUERIES["archive_refunds"], units.refund_ids)),
            _count(await connection.execute(QUERIES["archive_delete_payments"], units.payment_ids, units.versions)),
        ]
        if taken != [part.payments, part.refunds, part.transfers, part.refunds, part.payments]:
            raise _Changed
        await connection.execute(
            QUERIES["add_archive_part"],
            number,
            horizon.before,
            part.payments,
            part.refunds,
            part.settlements,
            part.transfers,
            part.file,
            digest,
            now,
        )
    return part


def _count(command: str) -> int:
    """How many rows a command's tag, such as `DELETE 5`, says it touched."""
    return int(command.rpartition(" ")[2])
