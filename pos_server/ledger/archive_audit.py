"""Compare the content of the archive's files with what the ledger keeps of it: names, counts and balances.

Keys and sums are collected in temporary tables, because the archive may hold more of them than fit in memory.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain
from typing import TypeVar

import asyncpg

from .archive_file import Unit, ids_and_merchants, unit_violations
from .audit import OFFENDERS_LISTED_MAX
from .sql import QUERIES

Key = TypeVar("Key")


@asynccontextmanager
async def archive_tables(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Create temporary tables for the content of the archive; drop them after the block."""
    for statement in (
        QUERIES["create_archived_digest"],
        QUERIES["create_archived_key"],
        QUERIES["create_archived_sum"],
    ):
        await connection.execute(statement)
    try:
        yield
    finally:
        if not connection.is_closed():
            await connection.execute(QUERIES["drop_archive_tables"])


async def add_units(connection: asyncpg.Connection, units: list[Unit], file: str) -> list[str]:
    """Add units of a part to the temporary tables; return a sentence for each problem with them."""
    digests = list(chain.from_iterable(unit.digests.items() for unit in units))
    ids, values = [transfer_id for transfer_id, _ in digests], [digest for _, digest in digests]
    added = {row["id"] for row in await connection.fetch(QUERIES["add_archived_digests"], ids, values)}
    problems = [f"transfer {each} in {file} is in the archive twice" for each in _repeated(ids, added)]
    entries = list(chain.from_iterable(unit.entries for unit in units))
    await connection.execute(
        QUERIES["add_archived_sums"], [account for account, _ in entries], [amount for _, amount in entries]
    )
    payments = [unit for unit in units if unit.payment is not None]
    keys = ids_and_merchants(unit.payment for unit in payments if unit.payment is not None)
    refunds = ids_and_merchants(chain.from_iterable(unit.refunds for unit in units))
    for kind, (kind_ids, merchants) in (("payment", keys), ("refund", refunds)):
        rows = await connection.fetch(QUERIES["add_archived_keys"], kind, kind_ids, merchants)
        keys_added = {(row["id"], row["merchant_id"]) for row in rows}
        repeated = _repeated(list(zip(kind_ids, merchants, strict=True)), keys_added)
        problems += [f"{kind} {each} of merchant {merchant} is in the archive twice" for each, merchant in repeated]
    statuses, references = [unit.status for unit in payments], [unit.reference for unit in payments]
    wrong = await connection.fetch(QUERIES["wrongly_archived"], *keys, statuses, references, *refunds)
    problems += [f"{row['name']} in {file} {row['problem']}" for row in wrong]
    return problems + [f"{violation} in {file}" for unit in units for violation in unit_violations(unit)]


async def compare_totals(connection: asyncpg.Connection) -> list[str]:
    """Return the accounts and names that the ledger keeps otherwise than all files together; the first 100 of each."""
    balances = await connection.fetch(QUERIES["different_sums"], OFFENDERS_LISTED_MAX)
    names = await connection.fetch(QUERIES["names_without_file"], OFFENDERS_LISTED_MAX)
    return [
        f"account {row['account_id']} has an archived balance of {row['balance_minor']}; the parts sum to "
        f"{row['sum_minor']}"
        for row in balances
    ] + [f"{row['name']} is recorded as archived but is in no file" for row in names]


def _repeated(keys: list[Key], added: set[Key]) -> list[Key]:
    """Return the keys that were not added, or that occur again."""
    problems = []
    for key in keys:
        if key in added:
            added.remove(key)
        else:
            problems.append(key)
    return problems
