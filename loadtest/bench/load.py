"""What is benchmarked, and runs of the load generator against it."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from loadtest.bench.crowd import People
from loadtest.bench.generator import Plan, Result
from loadtest.shared.machine import postgres_cpu_s
from loadtest.shared.metrics import read_metrics, total
from loadtest.shared.pgbench import Cost
from loadtest.shared.process import METRICS_TOKEN, POS_SERVER, Server, owner, serving
from loadtest.shared.seed import seed_shop

_BALANCE_MINOR = 1_000_000_000
_MERCHANTS = 10
_LIMITS_OF_PEOPLE = (
    "POS_ADDRESS_CONNECTIONS_MAX",
    "POS_CONNECTIONS_MAX",
    "POS_MESSAGES_PER_S",
    "POS_MESSAGES_BURST",
    "POS_BAD_MESSAGES_BURST",
)
# One machine plays thousands of devices, and a till scans more in a second than a person in an hour.
WIDE = dict.fromkeys(_LIMITS_OF_PEOPLE, "1000000")
# Of a wallet: each shows ten codes in 30 s, so 6,000 wallets can pay 12,000 times a second.
_DEVICES = 6


class Generator:
    """The process of `loadtest.bench.generator`, with the people it has connected."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def tell(self, line: str, answer: str) -> None:
        """Say this and wait for the answer to it. Raises SystemExit when the process has failed instead."""
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("both are pipes")
        self._process.stdin.write(line.encode() + b"\n")
        if (await self._process.stdout.readline()).decode().rstrip() != answer:
            raise SystemExit(f"the generator failed before it said {answer!r}")


@dataclass(frozen=True, slots=True)
class Bench:
    """A ledger and what serves it. `spread` are tills of several merchants by turns, `hot` as many of one.

    `generator` has some of them connected; without it, everybody connects for each run, and leaves after it.
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
async def opened(
    dsn: str, data_dir: Path, tills: int, wallets: int, connected: int, seconds: float
) -> AsyncIterator[Bench]:
    """A server on a ledger with shops of `tills` tills and `wallets` wallets, of which `connected` have phones."""
    async with owner(dsn) as connection:
        shops = [await seed_shop(connection, terminals=tills, wallets=0, balance_minor=0) for _ in range(_MERCHANTS)]
        people = await seed_shop(
            connection, terminals=0, wallets=wallets, balance_minor=_BALANCE_MINOR, devices=_DEVICES
        )
        await connection.execute("vacuum analyze")
    share = tills // _MERCHANTS
    async with serving([POS_SERVER, "run", "--port", "0"], POS_DATABASE_URL=dsn, **WIDE) as server:
        yield Bench(
            [server],
            dsn,
            data_dir,
            spread=[device.device.number for shop in shops for device in shop.terminals[:share]],
            hot=[device.device.number for device in shops[0].terminals[: share * _MERCHANTS]],
            wallets=[device.device.number for device in people.wallets[:: max(1, wallets // connected)]],
            seconds=seconds,
        )


@dataclass(frozen=True, slots=True)
class Load:
    """A run of the generator, what it cost, and how many operations a batch had on average, of all servers."""

    result: Result
    cost: Cost
    batch: float

    @property
    def per_s(self) -> float:
        """Answered payments a second, of those that were sent in the measured time."""
        return self.result.answered / self.result.seconds

    @property
    def server_us(self) -> float:
        """CPU microseconds of the servers for one payment."""
        return 1e6 * self.cost.server_s / self.payments

    @property
    def postgres_us(self) -> float:
        """The same of Postgres."""
        return 1e6 * self.cost.postgres_s / self.payments

    @property
    def payments(self) -> int:
        """All that were answered."""
        return sum(self.result.outcomes.values())


@asynccontextmanager
async def gathered(bench: Bench, terminals: list[int], wallets: list[int]) -> AsyncIterator[Bench]:
    """The bench with these tills and wallets connected, for all runs in the block. One crowd at a time."""
    urls, marks = [server.url for server in bench.servers], str(bench.data_dir / "bench-marks")
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "loadtest.bench.generator")
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    try:
        generator = Generator(process)
        await generator.tell(json.dumps(asdict(People(urls, terminals, wallets, _DEVICES, marks))), "connected")
        yield replace(bench, generator=generator)
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def offer(bench: Bench, terminals: list[int], wallets: list[int], **plan: Any) -> Load:
    """One run: `plan` are other fields of `Plan`."""
    if bench.generator is None:
        async with gathered(bench, terminals, wallets) as crowded:
            return await offer(crowded, terminals, wallets, **plan)
    out = bench.data_dir / "bench-result"
    asked = Plan(**{"terminals": terminals, "wallets": wallets, "seconds": bench.seconds, "out": str(out), **plan})
    await bench.generator.tell(json.dumps(asdict(asked)), "ready")
    before, batches_before = _cost(bench), await _batches(bench)
    await bench.generator.tell("go", "done")
    after, batches_after = _cost(bench), await _batches(bench)
    result = Result(**json.loads(await asyncio.to_thread(out.read_bytes)))
    cost = Cost(after.server_s - before.server_s, after.postgres_s - before.postgres_s, result.cpu_s)
    operations, batches = (now - then for now, then in zip(batches_after, batches_before, strict=True))
    return Load(result, cost, operations / max(1.0, batches))


def _cost(bench: Bench) -> Cost:
    return Cost(sum(server.cpu_s() for server in bench.servers), postgres_cpu_s(bench.data_dir))


async def _batches(bench: Bench) -> tuple[float, float]:
    """Operations and batches so far; 0 of a server whose metrics are off."""
    async with httpx.AsyncClient() as client:
        readings = [await read_metrics(client, server.url, METRICS_TOKEN) or {} for server in bench.servers]
    operations, batches = (
        sum(total(reading, f"pos_batch_operations_{part}") for reading in readings) for part in ("sum", "count")
    )
    return operations, batches
