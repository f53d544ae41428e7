"""`pgbench` (TPC-B-like, prepared statements) on the Postgres under measurement."""

import asyncio
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hdrh.histogram import HdrHistogram

from loadtest.shared.histogram import new_histogram
from loadtest.shared.machine import cpu_s, postgres_cpu_s
from loadtest.shared.process import owner_connection
from pos_server.ledger.database import libpq_environment
from pos_server.postgres.binaries import find_program

CLIENTS = (1, 8, 32)
_SCALE = 10
_DATABASE = "pgbench"


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds of the servers, of Postgres and of the load generator."""

    server_s: float
    postgres_s: float
    generator_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PgBench:
    """A run of pgbench. `tps` is transactions per second.

    `latencies` are in microseconds from the scheduled time, and empty without a rate.
    """

    tps: float
    transactions: int
    cost: Cost
    latencies: HdrHistogram = field(default_factory=new_histogram)

    @property
    def cpu_us(self) -> float:
        """CPU microseconds of pgbench and Postgres per transaction."""
        return 1e6 * (self.cost.postgres_s + self.cost.generator_s) / max(1, self.transactions)


def _environment(dsn: str) -> dict[str, str]:
    return os.environ | libpq_environment(dsn) | {"PGDATABASE": _DATABASE}


async def create_tables(dsn: str) -> None:
    """Create a database with pgbench's tables next to the ledger's."""
    async with owner_connection(dsn) as connection:
        await connection.execute(f"create database {_DATABASE}")
    arguments = ("--initialize", f"--scale={_SCALE}", "--quiet")
    process = await asyncio.create_subprocess_exec(
        find_program("pgbench", None), *arguments, stderr=asyncio.subprocess.PIPE, env=_environment(dsn)
    )
    _, err = await process.communicate()
    if process.returncode:
        raise SystemExit(f"pgbench failed: {err.decode()}")


async def pgbench(dsn: str, data_dir: Path, clients: int, seconds: float, *, rate: float = 0.0) -> PgBench:
    """Run pgbench at full speed, or at `rate` transactions per second. Raises SystemExit if it fails."""
    log = data_dir / "pgbench-log"
    arguments = ["--protocol=prepared", "--no-vacuum", f"--client={clients}", f"--time={max(1, round(seconds))}"]
    if rate:
        arguments += [f"--rate={rate:g}", "--log", f"--log-prefix={log}"]
    postgres_start_s = postgres_cpu_s(data_dir)
    process = await asyncio.create_subprocess_exec(
        find_program("pgbench", None),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(dsn),
    )
    generator_cpu_s = _watch_cpu_s(process)
    out, err = await process.communicate()
    if process.returncode:
        raise SystemExit(f"pgbench failed: {err.decode()}")
    tps = _number(r"tps = ([0-9.]+)", out.decode())
    transactions = int(_number(r"actually processed: (\d+)", out.decode()))
    cost = Cost(0.0, postgres_cpu_s(data_dir) - postgres_start_s, generator_cpu_s())
    return PgBench(tps, transactions, cost, _read_latencies(data_dir))


def _read_latencies(data_dir: Path) -> HdrHistogram:
    """Read and delete pgbench's logs."""
    latencies = new_histogram()
    for path in data_dir.glob("pgbench-log*"):
        # Columns: client, transaction, latency from the scheduled time in microseconds, …
        for line in path.read_text().splitlines():
            latencies.record_value(int(line.split()[2]))
        path.unlink()
    return latencies


def _number(pattern: str, text: str) -> float:
    match = re.search(pattern, text)
    if match is None:
        raise SystemExit(f"pgbench printed an unexpected result:\n{text}")
    return float(match[1])


def _watch_cpu_s(process: asyncio.subprocess.Process) -> Callable[[], float]:
    """Sample the CPU time of a process, since it cannot be read once the process has ended. Call the result to stop."""
    last_s = 0.0

    async def watch() -> None:
        nonlocal last_s
        while process.returncode is None:
            last_s = max(last_s, cpu_s(process.pid))
            await asyncio.sleep(0.1)

    task = asyncio.create_task(watch())

    def stop() -> float:
        task.cancel()
        return last_s

    return stop
