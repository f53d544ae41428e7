"""Observe a load test from outside once a second: CPU, memory, the database, the server's metrics."""

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

_INTERVAL_S = 1.0


@dataclass(slots=True)
class Observation:
    """One observation. CPU is in seconds since the start of the process, memory in MiB; 0 for a missing process."""

    at_s: float
    server_pid: int = 0
    cpu_s: dict[str, float] = field(default_factory=dict)
    memory_mib: dict[str, float] = field(default_factory=dict)
    database_bytes: int = 0
    metrics: Metrics | None = None


@dataclass(slots=True)
class Watch:
    """The processes to observe, whose pids may change. Without a `data_dir`, only locust and the metrics at `url`."""

    url: str
    metrics_token: str | None = None
    dsn: str = ""
    data_dir: Path | None = None
    server_pid: int = 0
    locust_pid: int = 0
    observations: list[Observation] = field(default_factory=list)

    async def run(self) -> None:
        """Observe once a second until canceled."""
        async with httpx.AsyncClient() as client:
            while True:
                start_s = time.monotonic()
                self.observations.append(await self._observe(client))
                await asyncio.sleep(max(0.0, start_s + _INTERVAL_S - time.monotonic()))

    async def _observe(self, client: httpx.AsyncClient) -> Observation:
        metrics = await read_metrics(client, self.url, self.metrics_token)
        observation = Observation(time.time(), self.server_pid, metrics=metrics)
        if self.locust_pid:
            self._add(observation, "locust", [self.locust_pid, *children_of(self.locust_pid)])
        if self.data_dir is not None:
            self._add(observation, "server", [self.server_pid])
            self._add(observation, "postgres", postgres_pids(self.data_dir))
            # This includes sessions that have ended.
            observation.cpu_s["postgres"] = postgres_cpu_s(self.data_dir)
            async with owner_connection(self.dsn) as connection:
                observation.database_bytes = await connection.fetchval("select pg_database_size(current_database())")
        return observation

    def _add(self, observation: Observation, name: str, pids: list[int]) -> None:
        observation.cpu_s[name] = sum(map(cpu_s, pids))
        observation.memory_mib[name] = sum(map(memory_kib, pids)) / 1024


@asynccontextmanager
async def watching(watch: Watch) -> AsyncIterator[None]:
    """Observe once a second for the duration of the block."""
    task = asyncio.create_task(watch.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
