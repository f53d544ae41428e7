"""The servers under test, and runs of the load generator against them."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from loadtest.bench.crowd import CrowdPlan
from loadtest.bench.generator import Plan, Result
from loadtest.shared.machine import postgres_cpu_s
from loadtest.shared.metrics import read_metrics, total
from loadtest.shared.pgbench import Cost
from loadtest.shared.process import METRICS_TOKEN, POS_SERVER, Server, owner_connection, serving
from loadtest.shared.seed import seed_shop

_BALANCE_MINOR = 1_000_000_000
_MERCHANTS = 10
_DEVICE_LIMITS = (
    "POS_ADDRESS_CONNECTIONS_MAX",
    "POS_CONNECTIONS_MAX",
    "POS_MESSAGES_PER_S",
    "POS_MESSAGES_BURST",
    "POS_BAD_MESSAGES_BURST",
)
# One machine plays thousands of devices, each far busier than a person.
WIDE_LIMITS = dict.fromkeys(_DEVICE_LIMITS, "1000000")
# A device shows ten codes in 30 s, so 6,000 wallets with six devices can pay 12,000 times a second.
_DEVICES_PER_WALLET = 6


class Generator:
    """The process of `loadtest.bench.generator`, with its connected devices."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def send(self, line: str, answer: str) -> None:
        """Write a line and wait for this answer. Raises SystemExit if the process fails."""
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("both are pipes")
        self._process.stdin.write(line.encode() + b"\n")
        if (await self._process.stdout.readline()).decode().rstrip() != answer:
            raise SystemExit(f"the load generator failed before it answered {answer!r}")


@dataclass(frozen=True, slots=True)
class Bench:
    """A ledger and its servers. `spread` are tills of several merchants, `hot` as many tills of one.

    `generator` keeps devices connected. Without it, devices connect for one run only.
    """

    servers: list[Server]
    dsn: str
    data_dir: Path
    spread: list[int]
    hot: list[int]
    wallets: list[int]
    seconds: float
    generator: Generator | None = None


@asynccontextmanager
async def open_bench(
    dsn: str, data_dir: Path, tills: int, wallets: int, connected: int, seconds: float
) -> AsyncIterator[Bench]:
    """Run a server on a ledger with shops of `tills` tills and `wallets` wallets, of which `connected` have devices."""
    async with owner_connection(dsn) as connection:
        shops = [await seed_shop(connection, terminals=tills, wallets=0, balance_minor=0) for _ in range(_MERCHANTS)]
        wallet_shop = await seed_shop(
            connection, terminals=0, wallets=wallets, balance_minor=_BALANCE_MINOR, devices=_DEVICES_PER_WALLET
        )
        await connection.execute("vacuum analyze")
    share = tills // _MERCHANTS
    async with serving([POS_SERVER, "run", "--port", "0"], POS_DATABASE_URL=dsn, **WIDE_LIMITS) as server:
        yield Bench(
            [server],
            dsn,
            data_dir,
            spread=[device.device.number for shop in shops for device in shop.terminals[:share]],
            hot=[device.device.number for device in shops[0].terminals[: share * _MERCHANTS]],
            wallets=[device.device.number for device in wallet_shop.wallets[:: max(1, wallets // connected)]],
            seconds=seconds,
        )


@dataclass(frozen=True, slots=True)
class Load:
    """A run of the generator, its cost, and the average number of operations per batch of all servers."""

    result: Result
    cost: Cost
    batch: float

    @property
    def per_s(self) -> float:
        """Answered payments per second, of those sent in the measured time."""
        return self.result.answered / self.result.seconds

    @property
    def server_us(self) -> float:
        """CPU microseconds of the servers per payment."""
        return 1e6 * self.cost.server_s / self.payments

    @property
    def postgres_us(self) -> float:
        """CPU microseconds of Postgres per payment."""
        return 1e6 * self.cost.postgres_s / self.payments

    @property
    def payments(self) -> int:
        """Number of answered payments."""
        return sum(self.result.outcomes.values())


@asynccontextmanager
async def with_crowd(bench: Bench, terminals: list[int], wallets: list[int]) -> AsyncIterator[Bench]:
    """Yield the bench with these tills and wallets connected, for all runs in the block. One crowd at a time."""
    urls, marks = [server.url for server in bench.servers], str(bench.data_dir / "bench-marks")
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "loadtest.bench.generator")
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    try:
        generator = Generator(process)
        plan = CrowdPlan(urls, terminals, wallets, _DEVICES_PER_WALLET, marks)
        await generator.send(json.dumps(asdict(plan)), "connected")
        yield replace(bench, generator=generator)
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def offer(bench: Bench, terminals: list[int], wallets: list[int], **fields: Any) -> Load:
    """Run the generator once. `fields` are further fields of its `Plan`."""
    if bench.generator is None:
        async with with_crowd(bench, terminals, wallets) as crowd_bench:
            return await offer(crowd_bench, terminals, wallets, **fields)
    out = bench.data_dir / "bench-result"
    plan = Plan(**{"terminals": terminals, "wallets": wallets, "seconds": bench.seconds, "out": str(out), **fields})
    await bench.generator.send(json.dumps(asdict(plan)), "ready")
    start_cost, start_counts = _cost(bench), await _batch_counts(bench)
    await bench.generator.send("go", "done")
    end_cost, end_counts = _cost(bench), await _batch_counts(bench)
    result = Result(**json.loads(await asyncio.to_thread(out.read_bytes)))
    cost = Cost(end_cost.server_s - start_cost.server_s, end_cost.postgres_s - start_cost.postgres_s, result.cpu_s)
    operations, batches = (end - start for end, start in zip(end_counts, start_counts, strict=True))
    return Load(result, cost, operations / max(1.0, batches))


def _cost(bench: Bench) -> Cost:
    return Cost(sum(server.cpu_s() for server in bench.servers), postgres_cpu_s(bench.data_dir))


async def _batch_counts(bench: Bench) -> tuple[float, float]:
    """Return the numbers of operations and batches so far, 0 for a server without metrics."""
    async with httpx.AsyncClient() as client:
        readings = [await read_metrics(client, server.url, METRICS_TOKEN) or {} for server in bench.servers]
    operations, batches = (
        sum(total(reading, f"pos_batch_operations_{part}") for reading in readings) for part in ("sum", "count")
    )
    return operations, batches
