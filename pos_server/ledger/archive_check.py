"""Read the archive's files back: compare them with the recorded parts and load their content for further checks."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import asyncpg

from .archive_audit import add_units, compare_totals
from .archive_file import PartUnreadable, Unit, read_header, read_units, sha256_of
from .sql import QUERIES

_UNITS_PER_CHUNK = 1000


async def read_archive(connection: asyncpg.Connection, folder: Path) -> list[str]:
    """Load the recorded parts in `folder` into the temporary tables; return a sentence for each problem.

    A changed part is loaded as well, so that the seals can name the changed transfers. Raises asyncpg's errors.
    """
    problems: list[str] = []
    ledger_id = str(await connection.fetchval(QUERIES["ledger_identity"]))
    previous: bytes | None = None
    for part in await connection.fetch(QUERIES["archive_parts"]):
        path = folder / part["file"]
        try:
            if await asyncio.to_thread(sha256_of, path) != part["sha256"]:
                problems.append(f"{path.name} was changed: its SHA-256 differs from the recorded one")
        except OSError as error:
            problems.append(f"{path.name} is missing in {folder}: {error.strerror}")
        else:
            expected = {"part": part["number"], "previous_sha256": previous and previous.hex()}
            problems += await _read_part(connection, path, part, ledger_id, expected)
        previous = part["sha256"]
    return problems + await compare_totals(connection)


async def _read_part(
    connection: asyncpg.Connection, path: Path, part: asyncpg.Record, ledger_id: str, expected: dict[str, object]
) -> list[str]:
    problems, counts = list[str](), Counter[str]()
    try:
        header = await asyncio.to_thread(read_header, path)
        if header.get("ledger", ledger_id) != ledger_id:  # files of version 1 do not name their ledger
            problems.append(f"{path.name} belongs to another ledger")
        problems += [
            f"{path.name} has the {name} {header.get(name)} in its header instead of {value}"
            for name, value in expected.items()
            if header.get(name) != value
        ]
        units = read_units(path)
        while chunk := await asyncio.to_thread(_next_chunk, units):
            problems += await add_units(connection, chunk, path.name)
            for unit in chunk:
                counts["payments" if unit.payment else "settlements"] += 1
                counts["refunds"] += len(unit.refunds)
                counts["transfers"] += len(unit.digests)
    except PartUnreadable as error:
        return [*problems, str(error)]
    return problems + [
        f"{path.name} has {counts[name]} {name}, but {part[name]} are recorded"
        for name in ("payments", "refunds", "settlements", "transfers")
        if counts[name] != part[name]
    ]


def _next_chunk(units: Iterator[Unit]) -> list[Unit]:
    return list(islice(units, _UNITS_PER_CHUNK))
