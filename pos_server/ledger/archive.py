"""Move old payments out of the ledger into files, so that years of payments do not slow it down (docs/archive.md).

The archive moves units: a payment with all its refunds and transfers, or the transfer of a settlement. Units are read
without locks and written to a file. Then one transaction deletes them from the ledger and records the file. It checks
that each payment still has the version that was written. If a payment has changed, the transaction is rolled back and
the part is written again without that payment. Live payments therefore wait only for the deletion itself. A crash
leaves nothing, or a file that no row refers to. The next run uses that file if it has the content of its own part, and
renames it otherwise. Any other file is never touched: it may be the only copy of another ledger's payments.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg

from ..core.errors import PosError
from ..core.payments.payment import MerchantKey
from .archive_file import PartExists, PartWriter, ids_and_merchants, part_name
from .exclusive import Command, exclusive
from .rollup import roll_up
from .settlement import first_unsettled_date
from .sql import QUERIES

# Each attempt excludes the payments that changed before it, so even a second attempt is rare.
_ATTEMPTS_MAX = 10


class NotArchivable(PosError):
    """Archiving is not possible now; the text says what to do first. Parts recorded before remain archived."""


@dataclass(frozen=True, slots=True)
class Part:
    """A file of the archive and the number of rows in it."""

    file: str
    payments: int
    refunds: int
    settlements: int
    transfers: int


@dataclass(frozen=True, slots=True)
class _Horizon:
    """The limit of what may be archived: final `before` a time, with transfers up to a sealed and rolled-up id."""

    before: datetime
    last_id: int


@dataclass(frozen=True, slots=True)
class _Position:
    """The end of the previous part: the last payment, and the transfer id of the last settlement (None: no more)."""

    payment: MerchantKey | None
    settlement_id: int | None


@dataclass(slots=True)
class _Units:
    """Keys of the rows in one part; `versions` are the versions of the payments."""

    payments: list[MerchantKey] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    refunds: list[MerchantKey] = field(default_factory=list)
    transfer_ids: list[int] = field(default_factory=list)
    settlements: int = 0

    def __len__(self) -> int:
        return len(self.payments) + self.settlements


class _PartOutdated(Exception):
    """A payment of the part has changed since it was written."""


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
    """Move rows that were final before `before` (midnight UTC) into files in `out`, and return the parts written.

    Safe to repeat, to run concurrently, and to run again after it was killed: recorded parts remain. Raises
    NotArchivable, AlreadyRunning, WriterOpen and asyncpg's errors.
    """
    async with exclusive(connection, Command.ARCHIVE):
        horizon = await _horizon(connection, before, now, min_age)
        position, parts = _Position((0, UUID(int=0)), 0), list[Part]()
        while True:
            part, position = await _move_part(connection, horizon, position, out, now, part_payments_max)
            if part is None:
                break
            progress(part)
            parts.append(part)
        if parts:
            for name in ("vacuum_archived", "desummarize_transfer_times", "summarize_transfer_times"):
                await connection.execute(QUERIES[name])
        return parts


async def _horizon(connection: asyncpg.Connection, before: date, now: datetime, min_age: timedelta) -> _Horizon:
    start = datetime.combine(before, time.min, UTC)
    if now - start < min_age:
        raise NotArchivable(
            f"payments before {before} are too recent to archive: they must be "
            f"{min_age / timedelta(days=1):g} days old (POS_ARCHIVE_MIN_AGE_DAYS). "
            f"Use --before {(now - min_age).date()} or an earlier day"
        )
    # The business day `before` must be settled too: in another time zone it began before midnight UTC.
    unsettled = await first_unsettled_date(connection, before)
    if unsettled is not None:
        raise NotArchivable(
            f"business day {unsettled} is not settled. Run `pos-server settle --date {before}`, then archive again"
        )
    if await connection.fetchval(QUERIES["first_unsealed_before"], start) is not None:
        raise NotArchivable(f"some transfers before {before} are not sealed. Run `pos-server seal`, then archive again")
    terminal = await connection.fetchval(QUERIES["open_shift_before"], start)
    if terminal is not None:
        raise NotArchivable(
            f"terminal {terminal} has a shift that was opened before {before}. Close the shift, then archive again"
        )
    await connection.execute(QUERIES["sum_up_shifts"])
    seal = await connection.fetchrow(QUERIES["last_seal"])
    last_id = seal["last_id"] if seal else 0
    if await connection.fetchval(QUERIES["rollup_horizon"]) < last_id:
        last_id = min(last_id, await roll_up(connection))
    # An incremental audit has the sums of what it audited; what leaves the ledger before would be missing in them.
    audited_id = await connection.fetchval(QUERIES["audited_last_id"])
    return _Horizon(start, last_id if audited_id is None else min(last_id, audited_id))


async def _move_part(
    connection: asyncpg.Connection, horizon: _Horizon, position: _Position, out: Path, now: datetime, payments_max: int
) -> tuple[Part | None, _Position]:
    """Write and record the part at `position`; return it (None: nothing left) and the position of the next part."""
    for _ in range(_ATTEMPTS_MAX):
        ((ledger_id, published),) = await connection.fetch(QUERIES["ledger_identity"])
        last = await connection.fetchrow(QUERIES["last_archive_part"])
        number = last["number"] + 1 if last else 1
        previous = last["sha256"] if last else None
        try:
            writer = await asyncio.to_thread(PartWriter, out, number, horizon.before, previous, ledger_id)
            try:
                units, next_position = await _write_units(connection, writer, horizon, position, payments_max)
            except BaseException:
                writer.discard()
                raise
            if not units:
                await asyncio.to_thread(writer.discard)
                return None, next_position
            digest = await asyncio.to_thread(writer.complete)
            try:
                await asyncio.to_thread(writer.make_room, published)
                # Committed before the file has its name: after a crash, this ledger recognizes the file as its own.
                await connection.execute(QUERIES["set_published_part"], digest)
                await asyncio.to_thread(writer.publish)
            finally:
                writer.discard()
        except ConnectionError:
            raise  # from the database, not from the file
        except PartExists as error:
            raise NotArchivable(str(error)) from None
        except OSError as error:
            raise NotArchivable(
                f"cannot write {out / part_name(number)}: {error}. Its payments remain in the ledger"
            ) from error
        try:
            return await _record(connection, units, number, horizon, digest, now), next_position
        except (_PartOutdated, asyncpg.DeadlockDetectedError):
            continue
    raise NotArchivable("old payments keep changing while they are being archived. Archive again later")


async def _write_units(
    connection: asyncpg.Connection, writer: PartWriter, horizon: _Horizon, position: _Position, payments_max: int
) -> tuple[_Units, _Position]:
    units, last, settlement_id = _Units(), position.payment, position.settlement_id
    while last is not None and len(units) < payments_max:
        merchant_id, payment_id = last
        rows = await connection.fetch(
            QUERIES["archive_payments"], payment_id, merchant_id, horizon.before, horizon.last_id
        )
        lines = []
        if not rows:
            last = None
        for row in rows:
            if len(units) == payments_max:
                break
            last = row["merchant_id"], row["id"]
            if row["line"] is not None:
                lines.append(row["line"])
                units.payments.append(last)
                units.versions.append(row["version"])
                units.refunds += [(row["merchant_id"], refund_id) for refund_id in row["refund_ids"]]
                units.transfer_ids += row["transfer_ids"]
        await asyncio.to_thread(writer.write, lines)
    while last is None and settlement_id is not None and len(units) < payments_max:
        rows = await connection.fetch(QUERIES["archive_settlements"], settlement_id, horizon.before, horizon.last_id)
        rows = rows[: payments_max - len(units)]
        await asyncio.to_thread(writer.write, [row["line"] for row in rows])
        units.transfer_ids += [row["id"] for row in rows]
        units.settlements += len(rows)
        settlement_id = rows[-1]["id"] if rows else None
    return units, _Position(last, settlement_id)


async def _record(
    connection: asyncpg.Connection, units: _Units, number: int, horizon: _Horizon, digest: bytes, now: datetime
) -> Part:
    """Delete the units from the ledger and record their part in one commit. Raises _PartOutdated without any effect."""
    part = Part(part_name(number), len(units.payments), len(units.refunds), units.settlements, len(units.transfer_ids))
    payments, refunds = ids_and_merchants(units.payments), ids_and_merchants(units.refunds)
    async with connection.transaction():
        # Payments are deleted last, which keeps their locks short.
        deleted = [
            _count(await connection.execute(QUERIES["archive_names"], *payments, units.versions)),
            _count(await connection.execute(QUERIES["archive_refund_names"], *refunds)),
            await connection.fetchval(QUERIES["archive_transfers"], units.transfer_ids),
            _count(await connection.execute(QUERIES["archive_refunds"], *refunds)),
            _count(await connection.execute(QUERIES["archive_delete_payments"], *payments, units.versions)),
        ]
        if deleted != [part.payments, part.refunds, part.transfers, part.refunds, part.payments]:
            raise _PartOutdated
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
    """Return the number of affected rows from a command tag such as `DELETE 5`."""
    return int(command.rpartition(" ")[2])
