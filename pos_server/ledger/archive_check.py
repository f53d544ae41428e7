"""Reads the archive's files back: are they the recorded ones, how were their transfers, are their names kept."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import chain, islice
from pathlib import Path

import asyncpg

from .archive_file import PartUnreadable, Unit, read_units, sha256_of
from .sql import QUERIES

_UNITS_AT_ONCE = 1000


@asynccontextmanager
async def room_for_digests(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """A table of this connection's own for the digests of archived transfers, however many; gone after the block."""
    await connection.execute(QUERIES["create_archived_digest"])
    try:
        yield
    finally:
        if not connection.is_closed():
            await connection.execute(QUERIES["drop_archived_digest"])


async def read_archive(connection: asyncpg.Connection, folder: Path) -> list[str]:
    """Fill that table from the recorded parts in `folder`; returns what is wrong with them, in words.

    A part that was changed is read all the same, so that the seals can name what was changed in it. Raises asyncpg's
    errors.
    """
    problems: list[str] = []
    for part in await connection.fetch(QUERIES["archive_parts"]):
        path = folder / part["file"]
        try:
            if await asyncio.to_thread(sha256_of, path) != part["sha256"]:
                problems.append(f"{path.name} was changed: its SHA-256 is not the recorded one")
        except OSError as error:
            problems.append(f"{path.name} is missing in {folder}: {error.strerror}")
            continue
        units = read_units(path)
        try:
            while chunk := await asyncio.to_thread(_next, units):
                problems += await _take_in(connection, chunk, path.name)
        except PartUnreadable as error:
            problems.append(str(error))
    return problems


def _next(units: Iterator[Unit]) -> list[Unit]:
    return list(islice(units, _UNITS_AT_ONCE))


async def _take_in(connection: asyncpg.Connection, units: list[Unit], file: str) -> list[str]:
    digests = dict(chain.from_iterable(unit.digests.items() for unit in units))
    await connection.execute(QUERIES["add_archived_digests"], list(digests), list(digests.values()))
    nameless = await connection.fetch(
        QUERIES["nameless_archived"],
        [unit.payment_id for unit in units if unit.payment_id is not None],
        list(chain.from_iterable(unit.refund_ids for unit in units)),
    )
    return [f"{row['name']} of {file} is not known as archived" for row in nameless]
