"""Read the archive's files back: compare them with the recorded parts, names and balances.

The digests of their transfers are loaded for the check of the seals.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import chain, islice
from pathlib import Path

import asyncpg

from .archive_file import PartUnreadable, Unit, ids_and_merchants, read_header, read_units, sha256_of
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
    ledger_id = str(await connection.fetchval(QUERIES["ledger_id"]))
    for part in await connection.fetch(QUERIES["archive_parts"]):
        path = folder / part["file"]
        try:
            if await asyncio.to_thread(sha256_of, path) != part["sha256"]:
                is_foreign = await asyncio.to_thread(_ledger_of, path) not in (None, ledger_id)
                problems.append(
                    f"{path.name} belongs to another ledger"
                    if is_foreign
                    else f"{path.name} was changed: its SHA-256 differs from the recorded one"
                )
        except OSError as error:
            problems.append(f"{path.name} is missing in {folder}: {error.strerror}")
            continue
        units = read_units(path)
        try:
            while chunk := await asyncio.to_thread(_next_chunk, units):
                problems += await _load(connection, chunk, path.name)
        except PartUnreadable as error:
            problems.append(str(error))
    if problems:  # the sums would name every account of the parts above
        return problems
    return [
        f"account {row['account_id']} has an archived balance of {row['recorded']}; the parts sum to {row['in_parts']}"
        for row in await connection.fetch(QUERIES["wrong_archived_balances"])
    ]


def _ledger_of(path: Path) -> str | None:
    try:
        return read_header(path).get("ledger")
    except PartUnreadable:
        return None


def _next_chunk(units: Iterator[Unit]) -> list[Unit]:
    return list(islice(units, _UNITS_PER_CHUNK))


async def _load(connection: asyncpg.Connection, units: list[Unit], file: str) -> list[str]:
    digests = dict(chain.from_iterable(unit.digests.items() for unit in units))
    await connection.execute(QUERIES["add_archived_digests"], list(digests), list(digests.values()))
    sums = Counter[int]()
    for unit in units:
        sums.update(unit.sums)
    await connection.execute(QUERIES["add_archived_sums"], list(sums), list(sums.values()))
    payments = [unit for unit in units if unit.payment is not None]
    wrong = await connection.fetch(
        QUERIES["wrongly_archived"],
        *ids_and_merchants(unit.payment for unit in payments if unit.payment is not None),
        [unit.status for unit in payments],
        [unit.reference for unit in payments],
        *ids_and_merchants(chain.from_iterable(unit.refunds for unit in units)),
    )
    problems = [f"{row['name']} in {file} {row['problem']}" for row in wrong]
    return problems + [
        f"payment {unit.payment[1]} in {file} has another amount than its transfer"
        for unit in payments
        if unit.payment is not None and not unit.is_paid_right
    ]
