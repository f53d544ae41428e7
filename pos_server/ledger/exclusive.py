"""Commands that run one at a time in a ledger, whichever machine they run on."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum

import asyncpg

from ..core.errors import PosError
from .sql import QUERIES

EXCLUSIVE_TIMEOUT_S = 60.0
_CHECK_S = 0.05


class Command(StrEnum):
    """A command that excludes itself. The lock's number is the ASCII of the value, which nothing else locks."""

    SEAL = "pos-seal"
    SETTLE = "pos-sett"
    ARCHIVE = "pos-arch"
    AUDIT = "pos-audi"


class AlreadyRunning(PosError):
    """Another run of the command did not end in time. This run has changed nothing."""

    def __init__(self, command: Command) -> None:
        super().__init__(command)
        self.command = command

    def __str__(self) -> str:
        return f"another {self.command.name.lower()} is running on this ledger. Nothing was changed. Repeat it later"


@asynccontextmanager
async def exclusive(connection: asyncpg.Connection, command: Command) -> AsyncIterator[None]:
    """Run the block while no other connection runs the same command.

    Waits for the other run between statements, so that it holds no snapshot. Raises AlreadyRunning after
    EXCLUSIVE_TIMEOUT_S, and asyncpg's errors.
    """
    key = int.from_bytes(command.value.encode())
    give_up_s = time.monotonic() + EXCLUSIVE_TIMEOUT_S
    while not await connection.fetchval(QUERIES["try_exclusive"], key):
        if time.monotonic() >= give_up_s:
            raise AlreadyRunning(command)
        await asyncio.sleep(_CHECK_S)
    try:
        yield
    finally:
        if not connection.is_closed():
            await connection.execute(QUERIES["end_exclusive"], key)
