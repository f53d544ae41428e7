"""Watches a load test from outside, a look a second: CPU, memory, the database, the server's metrics."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from loadtest.shared.machine import children_of, cpu_s, memory_kib, postgres_cpu_s, postgres_pids
from loadtest.shared.metrics import Metrics, read_metrics
from loadtest.shared.process import owner_connection

_EACH_S = 1.0


@dataclass(slots=True)
class Look:
    """What was seen at one moment. CPU in seconds since the process began, memory in MiB; 0 where there is none."""

    at_s: float
    server_pid: int = 0
    cpu_s: dict[str, float] = field(default_factory=dict)
    memory_mib: dict[str, float] = field(default_factory=dict)
    database_bytes: int = 0
    metrics: Metrics | None = None


@dataclass(slots=True)
class Watch:
    """What is watched; pids may change meanwhile. Without a `data_dir` only the metrics at `url` are."""

    url: str
    metrics_token: str | None = None
    dsn: str = ""
    data_dir: Path | None = None
    server_pid: int = 0
    locust_pid: int = 0
    looks: list[Look] = field(default_factory=list)

    async def run(self) -> None:
        """Look until canceled."""
        async with httpx.AsyncClient() as client:
            while True:
                began_s = time.monotonic()
                self.looks.append(await self._look(client))
                await asyncio.sleep(max(0.0, began_s + _EACH_S - time.monotonic()))

    async def _look(self, client: httpx.AsyncClient) -> Look:
        look = Look(time.time(), self.server_pid, metrics=await read_metrics(client, self.url, self.metrics_token))
        if self.locust_pid:
            self._add(look, "locust", [self.locust_pid, *children_of(self.locust_pid)])
        if self.data_dir is not None:
            self._add(look, "server", [self.server_pid])
            self._add(look, "postgres", postgres_pids(self.data_dir))
            # Sessions that have ended count too.
            look.cpu_s["postgres"] = postgres_cpu_s(self.data_dir)
            async with owner_connection(self.dsn) as connection:
                look.database_bytes = await connection.fetchval("select pg_database_size(current_database())")
        return look

    def _add(self, look: Look, name: str, pids: list[int]) -> None:
        look.cpu_s[name] = sum(map(cpu_s, pids))
        look.memory_mib[name] = sum(map(memory_kib, pids)) / 1024


@asynccontextmanager
async def watching(watch: Watch) -> AsyncIterator[None]:
    """Look each second, for the block."""
    task = asyncio.create_task(watch.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
