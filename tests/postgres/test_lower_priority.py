"""What an operator runs on the ledger leaves the machine to payments."""

import asyncio
import os
import sys

import asyncpg
import pytest

from pos_server.postgres.embedded import NICENESS

pytestmark = pytest.mark.asyncio

# In a process of its own: a process cannot take its niceness back.
_GIVE_WAY = """
import os, sys
from pos_server.postgres.embedded import lower_priority
lower_priority(int(sys.argv[1]))
print(os.getpriority(os.PRIO_PROCESS, 0))
"""


async def _given_way(session_pid: int) -> int:
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _GIVE_WAY, str(session_pid), stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await program.communicate()
    assert program.returncode == 0
    return int(printed)


async def test_the_process_and_its_session_run_behind_the_others(admin: asyncpg.Connection) -> None:
    session_pid = admin.get_server_pid()
    assert os.getpriority(os.PRIO_PROCESS, session_pid) < NICENESS
    assert await _given_way(session_pid) == NICENESS
    assert os.getpriority(os.PRIO_PROCESS, session_pid) == NICENESS


async def test_a_session_that_is_gone_is_left_out() -> None:
    gone = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await gone.wait()
    assert await _given_way(gone.pid) == NICENESS


async def test_the_owner_takes_one_core_and_memory_of_its_own(
    admin: asyncpg.Connection, connection: asyncpg.Connection
) -> None:
    async def told(session: asyncpg.Connection, name: str) -> str:
        value: str = await session.fetchval("select current_setting($1)", name)
        return value

    assert await told(admin, "max_parallel_workers_per_gather") == "0"
    assert await told(admin, "work_mem") == "64MB"
    assert await told(connection, "work_mem") != "64MB"
