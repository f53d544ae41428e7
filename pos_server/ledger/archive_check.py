"""Read the archive's files back: compare them with the recorded parts and load the digests of their transfers."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import chain, islice
from pathlib import Path

import asyncpg

from .archive_file import PartUnreadable, Unit, ids_and_merchants, read_units, sha256_of
from .sql import QUERIES

_UNITS_PER_CHUNK = 1000


@asynccontextmanager
async def digest_table(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Create a temporary table for the digests of archived transfers; drop it after the block.

    A table, because the archive may hold more digests than fit in memory.
    """
    await connection.execute(QUERIES["create_archived_digest"])
    try:
        yield
    finally:
        if not connection.is_closed():
            await connection.execute(QUERIES["drop_archived_digest"])


async def read_archive(connection: asyncpg.Connection, folder: Path) -> list[str]:
    """Load the recorded parts in `folder` into the digest table; return a sentence for each problem.

    A changed part is loaded as well, so that the seals can name the changed transfers. Raises asyncpg's errors.
    """
    problems: list[str] = []
    for part in await connection.fetch(QUERIES["archive_parts"]):
        path = folder / part["file"]
        try:
            if await asyncio.to_thread(sha256_of, path) != part["sha256"]:
                problems.append(f"{path.name} was changed: its SHA-256 differs from the recorded one")
        except OSError as error:
            problems.append(f"{path.name} is missing in {folder}: {error.strerror}")
            continue
        units = read_units(path)
        try:
            while chunk := await asyncio.to_thread(_next_chunk, units):
                problems += await _load_digests(connection, chunk, path.name)
        except PartUnreadable as error:
            problems.append(str(error))
    return problems


def _next_chunk(units: Iterator[Unit]) -> list[Unit]:
    return list(islice(units, _UNITS_PER_CHUNK))


async def _load_digests(connection: asyncpg.Connection, units: list[Unit], file: str) -> list[str]:
    digests = dict(chain.from_iterable(unit.digests.items() for unit in units))
    await connection.execute(QUERIES["add_archived_digests"], list(digests), list(digests.values()))
    unrecorded = await connection.fetch(
        QUERIES["unrecorded_archived"],
        *ids_and_merchants(unit.payment for unit in units if unit.payment is not None),
        *ids_and_merchants(chain.from_iterable(unit.refunds for unit in units)),
    )
    return [f"{row['name']} in {file} is not recorded as archived" for row in unrecorded]
