"""The authorization engine at full speed, with `pgbench` on the same Postgres, in the same run, to compare with.

    python -m loadtest.bench [--seconds 10] [--pairs 3] [--json FILE] [--quick]     (make bench)

One server with its Postgres; a generator in a process of its own holds every till and every wallet (real codes, real
pushes to both). Every figure is also a ratio to `pgbench` (TPC-B-like, prepared) on the same Postgres with the same
settings, which runs by turns with it:

    ceiling    closed loop: every till has one payment open; over pgbench's best of 1, 8 and 32 clients, and what a
               payment costs of the machine over what a pgbench transaction does
    latency    open loop at `--rate`, from the intended time to both have heard; over `pgbench --rate` the same
    alone      one till, one payment at a time; over pgbench with one client
    hot        all payments at one merchant, over spread merchants
    overload   twice the ceiling offered: what is answered, and what still gets through

The audit has to hold at the end.
"""

import argparse
import asyncio
import json
import math
import os
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from loadtest.generator import Plan, Result
from loadtest.process import POS_SERVER, Server, new_ledger, pos_server, say, serving
from loadtest.seed import seed_shop
from pos_server.demo.report import percentile
from pos_server.ledger.binaries import program
from pos_server.ledger.database import connect, libpq_environment

BALANCE_MINOR = 1_000_000_000
MERCHANTS = 10
_CLIENTS = (1, 8, 32)
_SCALE = 10
_LIMITS_OF_PEOPLE = (
    "POS_ADDRESS_CONNECTIONS_MAX",
    "POS_CONNECTIONS_MAX",
    "POS_MESSAGES_PER_S",
    "POS_MESSAGES_BURST",
    "POS_BAD_MESSAGES_BURST",
)
_CHANNEL_BYTES_MAX = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bench:
    """What all scenarios use. `spread` are tills of several merchants by turns, `hot` as many of one."""

    server: Server
    dsn: str
    data_dir: Path
    spread: list[int]
    hot: list[int]
    wallets: list[int]
    seconds: float


@dataclass(slots=True)
class Cost:
    """CPU seconds of the server, of Postgres and of whatever offered the work."""

    server_s: float
    postgres_s: float
    generator_s: float = 0.0


def percentile_ms(values_us: list[int], percent: float) -> float:
    """Nearest rank; NaN of nothing."""
    return round(percentile(sorted(values_us), percent) / 1000, 3) if values_us else math.nan


# --- pgbench


@dataclass(frozen=True, slots=True)
class PgBench:
    """A run of pgbench: transactions a second, and latencies in milliseconds where they were logged."""

    tps: float
    transactions: int
    cost: Cost
    p50_ms: float = math.nan
    p99_ms: float = math.nan


async def pgbench(bench: Bench, clients: int, *, rate: float = 0.0, seconds: float | None = None) -> PgBench:
    """One run, in the database `pgbench` of the same Postgres."""
    seconds = bench.seconds if seconds is None else seconds
    log = bench.data_dir / "pgbench-log"
    arguments = ["--protocol=prepared", "--no-vacuum", f"--client={clients}", f"--time={seconds:g}"]
    if rate:
        arguments += [f"--rate={rate:g}", "--log", f"--log-prefix={log}"]
    before_s = postgres_cpu_s(bench.data_dir)
    process = await asyncio.create_subprocess_exec(
        program("pgbench", None),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | libpq_environment(bench.dsn) | {"PGDATABASE": "pgbench"},
    )
    own_s = await _watched_cpu_s(process)
    out, err = await process.communicate()
    if process.returncode:
        raise SystemExit(f"pgbench failed: {err.decode()}")
    tps = float(re.search(r"tps = ([0-9.]+)", out.decode())[1])  # type: ignore[index]
    done = int(re.search(r"actually processed: (\d+)", out.decode())[1])  # type: ignore[index]
    cost = Cost(0.0, postgres_cpu_s(bench.data_dir) - before_s, own_s())
    if not rate:
        return PgBench(tps, done, cost)
    latencies_us = []
    for path in bench.data_dir.glob("pgbench-log*"):
        # client, transaction, latency from the scheduled time in microseconds, …
        latencies_us += [int(line.split()[2]) for line in path.read_text().splitlines()]
        path.unlink()
    return PgBench(tps, done, cost, percentile_ms(latencies_us, 50), percentile_ms(latencies_us, 99))


async def _watched_cpu_s(process: asyncio.subprocess.Process) -> Callable[[], float]:
    """What the process has used, as last seen: it is gone when one would ask."""
    seen = 0.0

    async def watch() -> None:
        nonlocal seen
        while process.returncode is None:
            seen = max(seen, cpu_s(process.pid))
            await asyncio.sleep(0.1)

    task = asyncio.create_task(watch())

    def last() -> float:
        task.cancel()
        return seen

    return last


async def best_clients(bench: Bench) -> int:
    """How many clients pgbench is fastest with."""
    runs = {clients: await pgbench(bench, clients, seconds=max(2.0, bench.seconds / 3)) for clients in _CLIENTS}
    for clients, run in runs.items():
        say(f"  pgbench with {clients} clients: {run.tps:.0f} tps")
    return max(runs, key=lambda clients: runs[clients].tps)


# --- CPU


def cpu_s(pid: int, *, with_children: bool = False) -> float:
    """CPU seconds that a process has used; with those of its children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    ticks = sum(map(int, fields[11 : 15 if with_children else 13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def postgres_cpu_s(data_dir: Path) -> float:
    """CPU seconds of a Postgres and of all its sessions so far."""
    pid = int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return cpu_s(pid, with_children=True) + sum(cpu_s(int(child)) for child in children)


# --- the generator


@dataclass(frozen=True, slots=True)
class Load:
    """A run of the generator, and what it cost."""

    result: Result
    cost: Cost

    @property
    def per_s(self) -> float:
        """Answered payments a second, of those that were sent in the measured time."""
        return len(self.result.till_us) / self.result.seconds


async def offer(bench: Bench, terminals: list[int], wallets: list[int], **plan: Any) -> Load:
    """Run the generator once."""
    asked = Plan(
        url=bench.server.url,
        terminals=terminals,
        wallets=wallets,
        **{"seconds": bench.seconds, **plan},
        marks=str(bench.data_dir / "bench-marks"),
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "loadtest.generator"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_CHANNEL_BYTES_MAX,
    )
    if process.stdin is None or process.stdout is None:
        raise AssertionError("both are pipes")
    try:
        process.stdin.write(json.dumps(asdict(asked)).encode() + b"\n")
        if await process.stdout.readline() != b"ready\n":
            raise SystemExit("the generator could not connect")
        before = Cost(bench.server.cpu_s(), postgres_cpu_s(bench.data_dir))
        process.stdin.write(b"go\n")
        line = await process.stdout.readline()
        if not line:
            raise SystemExit("the generator failed")
        result = Result(**json.loads(line))
        after = Cost(bench.server.cpu_s(), postgres_cpu_s(bench.data_dir))
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    cost = Cost(after.server_s - before.server_s, after.postgres_s - before.postgres_s, result.cpu_s)
    return Load(result, cost)


# --- scenarios


@dataclass(slots=True)
class Figures:
    """All that was measured, by name."""

    values: dict[str, Any] = field(default_factory=dict)

    def put(self, **values: Any) -> None:
        self.values.update(values)
        say("  " + ", ".join(f"{name} {value}" for name, value in values.items() if not isinstance(value, list)))


async def ceiling(bench: Bench, figures: Figures, pairs: int) -> None:
    clients = await best_clients(bench)
    loads, baselines = [], []
    for _ in range(pairs):
        baselines.append(await pgbench(bench, clients))
        loads.append(await offer(bench, bench.spread, bench.wallets))
        say(f"  {loads[-1].per_s:.0f} payments/s, pgbench {baselines[-1].tps:.0f} tps")
    after = await pgbench(bench, clients)
    load = sorted(loads, key=lambda load: load.per_s)[len(loads) // 2]
    payments = sum(load.result.outcomes.values())
    server_us, postgres_us = (1e6 * cost / payments for cost in (load.cost.server_s, load.cost.postgres_s))
    baseline = sorted(baselines, key=lambda run: run.tps)[len(baselines) // 2]
    baseline_us = 1e6 * (baseline.cost.postgres_s + baseline.cost.generator_s) / baseline.transactions
    figures.put(
        payments_per_s=round(median(load.per_s for load in loads)),
        pgbench_tps=round(median(run.tps for run in baselines)),
        pgbench_clients=clients,
        pgbench_tps_after=round(after.tps),
        ratio_pgbench=round(median(load.per_s / run.tps for load, run in zip(loads, baselines, strict=True)), 2),
        cpu_us_server=round(server_us, 1),
        cpu_us_postgres=round(postgres_us, 1),
        cpu_us_generator=round(1e6 * load.cost.generator_s / payments, 1),
        cpu_us_pgbench=round(baseline_us, 1),
        cpu_ratio=round((server_us + postgres_us) / baseline_us, 2),
        ceiling_p50_ms=percentile_ms(load.result.both_us, 50),
        ceiling_p99_ms=percentile_ms(load.result.both_us, 99),
        ceiling_outcomes=load.result.outcomes,
        timeline=load.result.timeline,
    )


async def latency(bench: Bench, figures: Figures, rate: float) -> None:
    baseline = await pgbench(bench, 32, rate=rate)
    load = await offer(bench, bench.spread, bench.wallets, rate=rate)
    again = await pgbench(bench, 32, rate=rate)
    p99_ms = percentile_ms(load.result.both_us, 99)
    baseline_p99_ms = median([baseline.p99_ms, again.p99_ms])
    figures.put(
        rate=rate,
        p50_ms=percentile_ms(load.result.both_us, 50),
        p99_ms=p99_ms,
        p999_ms=percentile_ms(load.result.both_us, 99.9),
        pgbench_p50_ms=median([baseline.p50_ms, again.p50_ms]),
        pgbench_p99_ms=baseline_p99_ms,
        p99_ratio=round(p99_ms / baseline_p99_ms, 2),
        not_told=load.result.not_told,
        unanswered=load.result.unanswered,
    )


async def alone(bench: Bench, figures: Figures) -> None:
    baseline = await pgbench(bench, 1)
    load = await offer(bench, bench.spread[:1], bench.wallets[:500])
    alone_ms = percentile_ms(load.result.both_us, 50)
    figures.put(
        alone_p50_ms=alone_ms,
        pgbench_alone_ms=round(1000 / baseline.tps, 3),
        alone_ratio=round(alone_ms * baseline.tps / 1000, 2),
    )


async def hot_merchant(bench: Bench, figures: Figures, pairs: int) -> None:
    ratios = []
    for _ in range(pairs):
        spread = await offer(bench, bench.spread, bench.wallets)
        hot = await offer(bench, bench.hot, bench.wallets)
        ratios.append(hot.per_s / spread.per_s)
    figures.put(hot_merchant_ratio=round(median(ratios), 2))


async def overload(bench: Bench, figures: Figures, seconds: float) -> None:
    ceiling_per_s = figures.values["payments_per_s"]
    load = await offer(bench, bench.spread, bench.wallets, rate=2.0 * ceiling_per_s, seconds=seconds)
    answered = sum(load.result.outcomes.values())
    decided = sum(n for outcome, n in load.result.outcomes.items() if outcome in ("approved", "code_used"))
    figures.put(
        overload_offered_per_s=round(load.result.offered / load.result.seconds),
        answered_share=round(answered / (answered + load.result.unanswered), 5),
        overload_outcomes=load.result.outcomes,
        goodput_ratio=round(decided / (load.result.seconds + 2) / ceiling_per_s, 2),
        overload_skipped=load.result.skipped,
    )


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole bench; returns the figures."""
    async with new_ledger() as (dsn, data_dir):
        connection = await connect(dsn, timeout_s=30, role=None)
        try:
            say(f"seeding {arguments.wallets} wallets and {arguments.tills} tills …")
            shops = [
                await seed_shop(connection, terminals=arguments.tills, wallets=0, balance_minor=0)
                for _ in range(MERCHANTS)
            ]
            people = await seed_shop(connection, terminals=0, wallets=arguments.wallets, balance_minor=BALANCE_MINOR)
            await connection.execute("create database pgbench")
            await connection.execute("vacuum analyze")
        finally:
            await connection.close()
        await _pgbench_tables(dsn)
        share = arguments.tills // MERCHANTS
        spread = [device.device.number for shop in shops for device in shop.terminals[:share]]
        hot = [device.device.number for device in shops[0].terminals]
        wallets = [device.device.number for device in people.wallets]
        # One machine plays thousands of devices, and a till scans more in a second than a person in an hour.
        wide = dict.fromkeys(_LIMITS_OF_PEOPLE, "1000000")
        async with serving([POS_SERVER, "run", "--port", "0"], POS_DATABASE_URL=dsn, **wide) as server:
            bench = Bench(server, dsn, data_dir, spread, hot, wallets, arguments.seconds)
            figures = Figures({"tills": len(spread), "wallets": len(wallets)})
            scenarios: dict[str, Callable[[], Awaitable[None]]] = {
                "ceiling": lambda: ceiling(bench, figures, arguments.pairs),
                "latency": lambda: latency(bench, figures, arguments.rate),
                "alone": lambda: alone(bench, figures),
                "hot": lambda: hot_merchant(bench, figures, arguments.pairs),
                "overload": lambda: overload(bench, figures, arguments.overload_seconds),
            }
            for name, scenario in scenarios.items():
                if name in arguments.only or not arguments.only:
                    say(f"{name} …")
                    await scenario()
            figures.put(server_kib=server.resident_kib())
        said = await pos_server(data_dir, "audit")
        figures.put(audit=said)
        return figures.values


async def _pgbench_tables(dsn: str) -> None:
    environment = os.environ | libpq_environment(dsn) | {"PGDATABASE": "pgbench"}
    arguments = ("--initialize", f"--scale={_SCALE}", "--quiet")
    process = await asyncio.create_subprocess_exec(
        program("pgbench", None), *arguments, stderr=asyncio.subprocess.PIPE, env=environment
    )
    _, err = await process.communicate()
    if process.returncode:
        raise SystemExit(f"pgbench failed: {err.decode()}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="the engine at full speed, over pgbench in the same run")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--pairs", type=int, default=3, help="alternating runs of which the median counts")
    parser.add_argument("--rate", type=float, default=1000, help="offered in the open loop")
    parser.add_argument("--overload-seconds", type=float, default=30)
    parser.add_argument("--tills", type=int, default=200)
    parser.add_argument("--wallets", type=int, default=12_000)
    parser.add_argument("--only", nargs="*", default=[], help="these scenarios: ceiling latency alone hot overload")
    parser.add_argument("--quick", action="store_true", help="short, to see that it runs")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    if arguments.quick:
        small = {"seconds": 2, "pairs": 1, "rate": 200, "overload_seconds": 2, "wallets": 1500, "tills": 50}
        vars(arguments).update(small)
    text = json.dumps(asyncio.run(run(arguments)), indent=2)
    print(text)  # noqa: T201
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
