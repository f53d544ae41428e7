"""Faults of servers and of Postgres for a drill: each returns when the fault is over and its repair has started."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg

from pos_server.ledger.database import connect
from tests.end_to_end.server_process import ServerProcess, running_server
from tests.end_to_end.test_crash import free_port
from tests.faults.own_postgres import postmaster_of, stopped

RECOVERY_TIMEOUT_S = 60
POLL_S = 0.05
SERVER_STALL_S = 2.0
# Longer than an attempt of a batch (`POS_BATCH_TIMEOUT_S`).
POSTGRES_STALL_S = 6.0
NOT_CONNECTED = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
BACKENDS = "select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"


class Servers:
    """Servers that are started again after each end, as a service manager does."""

    def __init__(self, stack: AsyncExitStack, count: int, *arguments: str | Path, **variables: str) -> None:
        self.started: list[ServerProcess] = []
        self.ports = [free_port() for _ in range(count)]
        self.urls = [f"http://127.0.0.1:{port}" for port in self.ports]
        self._current: dict[int, ServerProcess] = {}
        self._stack = stack
        self._arguments = arguments
        self._variables = variables

    @property
    def log(self) -> str:
        return "".join(server.log for server in self.started)

    async def start_all(self) -> None:
        for index in range(len(self.ports)):
            await self.start(index)

    async def start(self, index: int) -> None:
        server = running_server(*self._arguments, port=self.ports[index], **self._variables)
        self._current[index] = await self._stack.enter_async_context(server)
        self.started.append(self._current[index])

    async def kill(self, index: int) -> float:
        fault_s = time.monotonic()
        assert await self._current[index].stop(signal.SIGKILL) == -signal.SIGKILL
        await self.start(index)
        return fault_s

    async def terminate(self, index: int) -> float:
        assert await self._current[index].stop() == 0
        ended_s = time.monotonic()  # until then it still answers
        await self.start(index)
        return ended_s

    async def stall(self, index: int) -> float:
        with stopped(self._current[index].process.pid):
            await asyncio.sleep(SERVER_STALL_S)
        return time.monotonic()


class DrillFaults:
    """All kinds of faults. Each returns the time from which its recovery is measured (time.monotonic)."""

    def __init__(
        self, servers: Servers, dsn: str, cluster: Path, restart_postgres: Callable[[], None] | None = None
    ) -> None:
        """`restart_postgres` starts a killed Postgres again; None: its server does."""
        self._servers = servers
        self.dsn = dsn
        self._cluster = cluster
        self._restart_postgres = restart_postgres

    def of_kind(self, kind: str) -> tuple[Callable[[], Awaitable[float]], str | None]:
        """Return a fault, and the URL of the server that it is about; None: all."""
        index = random.randrange(len(self._servers.urls))
        of_a_server = {
            "kill -9 of a server": self._servers.kill,
            "SIGTERM of a server": self._servers.terminate,
            "stalled server": self._servers.stall,
        }
        if kind in of_a_server:
            return lambda: of_a_server[kind](index), self._servers.urls[index]
        return {
            "kill -9 of the postmaster": self._kill_postmaster,
            "kill -9 of a backend": self._kill_backend,
            "terminated backend": self._terminate_backend,
            "stalled Postgres": self._stall_postgres,
        }[kind], None

    async def _kill_postmaster(self) -> float:
        fault_s = time.monotonic()
        pid = postmaster_of(self._cluster)
        os.kill(pid, signal.SIGKILL)
        if self._restart_postgres is not None:
            await asyncio.to_thread(self._restart_postgres)
        else:
            await self._until_another_postmaster(pid)
        return fault_s

    async def _until_another_postmaster(self, pid: int) -> None:
        async with asyncio.timeout(RECOVERY_TIMEOUT_S):
            while True:
                try:
                    if postmaster_of(self._cluster) != pid:
                        return
                except (OSError, IndexError, ValueError):
                    pass  # between two of them there may be no file, or a part of one
                await asyncio.sleep(POLL_S)

    async def _kill_backend(self) -> float:
        connection = await self._connection()
        try:
            pid = random.choice(await connection.fetch(BACKENDS))["pid"]
            fault_s = time.monotonic()
            os.kill(pid, signal.SIGKILL)
        finally:
            connection.terminate()
        return fault_s

    async def _terminate_backend(self) -> float:
        connection = await self._connection()
        try:
            pid = random.choice(await connection.fetch(BACKENDS))["pid"]
            fault_s = time.monotonic()
            await connection.execute("select pg_terminate_backend($1)", pid)
        finally:
            await connection.close()
        return fault_s

    async def _stall_postgres(self) -> float:
        with stopped(postmaster_of(self._cluster)):
            await asyncio.sleep(POSTGRES_STALL_S)
        return time.monotonic()

    async def _connection(self) -> asyncpg.Connection:
        async with asyncio.timeout(RECOVERY_TIMEOUT_S):
            while True:
                try:
                    return await connect(self.dsn, timeout_s=5, role=None)
                except NOT_CONNECTED:
                    await asyncio.sleep(POLL_S)
