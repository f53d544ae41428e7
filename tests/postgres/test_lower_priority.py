"""An operator's commands on the ledger have a lower priority than payments."""

import asyncio
import os
import sys

import asyncpg
import pytest

from pos_server.postgres.embedded import NICENESS

pytestmark = pytest.mark.asyncio

# In a separate process, because a process cannot raise its priority again.
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


async def test_process_and_session_have_a_lower_priority(admin: asyncpg.Connection) -> None:
    session_pid = admin.get_server_pid()
    assert os.getpriority(os.PRIO_PROCESS, session_pid) < NICENESS
    assert await _given_way(session_pid) == NICENESS
    assert os.getpriority(os.PRIO_PROCESS, session_pid) == NICENESS


async def test_an_ended_session_is_ignored() -> None:
    gone = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await gone.wait()
    assert await _given_way(gone.pid) == NICENESS


async def test_owner_connections_use_one_core_and_more_memory(
    admin: asyncpg.Connection, connection: asyncpg.Connection
) -> None:
    async def setting_of(session: asyncpg.Connection, name: str) -> str:
        value: str = await session.fetchval("select current_setting($1)", name)
        return value

    assert await setting_of(admin, "max_parallel_workers_per_gather") == "0"
    assert await setting_of(admin, "work_mem") == "64MB"
    assert await setting_of(connection, "work_mem") != "64MB"
