"""Whether the books hold up the tills: payments arrive while an operator settles, audits, seals and closes shifts.

    python -m loadtest.books [--rate 500] [--merchants 1000] [--sales 500] [--rounds 3] [--json FILE] [--quick]

One server and its Postgres, with a history of `merchants` x `sales` sales, spread over as many days as there are
rounds. A generator in a process of its own offers payments with Poisson arrivals, open loop; latency is from the
intended time to the result at the till, so what waits is counted in full. Within the same run quiet phases alternate
with phases in which a job runs, as the command that an operator types; a phase lasts as long as the job, which is run
again until `--phase-seconds` are over. Each round settles one more day and seals all days anew, so the first run of a
phase has its full work to do; the runs after it repeat it. A job is compared with the quiet phases beside it.
"""

import argparse
import asyncio
import json
import math
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg

from loadtest.arrivals import Plan
from loadtest.ledger import fill, shift_id_of
from loadtest.opening import open_shop
from loadtest.process import POS_SERVER, new_ledger, pos_server, say, serving
from loadtest.seed import CURRENCY, Shop, credentials_of
from pos_client import TerminalClient
from pos_client.api import ApiClient
from pos_server.core.api_keys import Role
from pos_server.core.device_keys import DeviceKind
from pos_server.core.rest.issuer import CashCreate, WalletCreate
from pos_server.core.rest.merchant_payments import PaymentQuery
from pos_server.demo.report import percentile
from pos_server.ledger.database import connect
from pos_server.operator_desk import new_key

BALANCE_MINOR = 1_000_000
LATE_S = 1.0
_WARM_UP_S = 5.0
# What a job leaves behind (dirty pages, caches of others) belongs to no phase.
_AFTERMATH_S = 2.0
# What a chain's back offices ask of the REST API beside its tills.
_API_RATE = 50
_API_S = 10.0
_START_WITHIN_S = 60.0
_END_WITHIN_S = 60.0
# The generator ends by itself after this long, should nobody be left to stop it.
_SECONDS_MAX = 3_600.0


@dataclass(frozen=True, slots=True)
class Stage:
    """What a job may use in its round: the ledger, the server, a folder, the business day that is not settled.

    And the shop where payments are offered, and an API key of each role.
    """

    dsn: str
    data_dir: Path
    url: str
    folder: Path
    business_date: str
    shop: Shop
    keys: dict[Role, str]


async def _nothing(stage: Stage) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Job:
    """What an operator runs, with `pause_s` after each run.

    `prepare` makes the first run of a round find its full work, before the quiet phase.
    """

    name: str
    run: Callable[[Stage], Awaitable[None]]
    prepare: Callable[[Stage], Awaitable[None]] = _nothing
    pause_s: float = 0.0


# --- the jobs


async def _settle(stage: Stage) -> None:
    await pos_server(stage.data_dir, "settle", "--date", stage.business_date, "--out", stage.folder)


async def _audit(stage: Stage) -> None:
    await pos_server(stage.data_dir, "audit")


async def _seal(stage: Stage) -> None:
    await pos_server(stage.data_dir, "seal")


async def _unseal(stage: Stage) -> None:
    async with owner(stage.dsn) as connection:
        await connection.execute("delete from seal")


async def _open_again(stage: Stage) -> None:
    async with owner(stage.dsn) as connection:
        await connection.execute(
            "alter table shift disable trigger shift_is_fixed; "
            "update shift set closed_at = null, counted_cash_minor = null, figures = null; "
            "update terminal t set shift_id = s.id, kid = 'load', generation = 1 "
            "from shift s where s.terminal_number = t.number; "
            "alter table shift enable trigger shift_is_fixed"
        )


async def _close_shift(stage: Stage) -> None:
    await _open_again(stage)
    async with owner(stage.dsn) as connection:
        number = await connection.fetchval("select terminal_number from shift")
    async with TerminalClient(credentials_of(DeviceKind.TERMINAL, number, stage.url)) as till:
        report = await till.close_shift(shift_id_of(1))
    if report.report != "Z":
        raise SystemExit("the shift was not closed")


async def _api(stage: Stage) -> None:
    """Back offices ask for as much at once as a chain's would: half reads, a quarter of it money."""
    async with (
        ApiClient(stage.url, stage.keys[Role.ADMIN]) as admin,
        ApiClient(stage.url, stage.keys[Role.ISSUER]) as issuer,
        ApiClient(stage.url, stage.keys[Role.MERCHANT]) as merchant,
    ):

        async def some_payments() -> None:
            payments = merchant.list_payments(PaymentQuery(limit=50))
            async for _ in payments:
                break

        def ask(number: int) -> Awaitable[object]:
            wallet = stage.shop.wallets[number % len(stage.shop.wallets)].device.number
            match number % 8:
                case 0 | 4:
                    cash = CashCreate(wallet_number=wallet, merchant_id=stage.shop.merchant_id, amount_minor=1)
                    return issuer.create_top_up(cash)
                case 1 | 5:
                    return issuer.get_wallet(wallet)
                case 2:
                    return merchant.get_balance()
                case 3:
                    return some_payments()
                case 6:
                    return admin.get_merchant(stage.shop.merchant_id)
                case _:
                    return issuer.create_wallet(WalletCreate(name=f"Customer {number}", currency=CURRENCY))

        async with asyncio.TaskGroup() as asking:
            for number in range(round(_API_RATE * _API_S)):
                asking.create_task(_awaited(ask(number)))
                await asyncio.sleep(1 / _API_RATE)


async def _awaited(answer: Awaitable[object]) -> None:
    await answer


JOBS = [
    Job("settle", _settle),
    Job("audit", _audit),
    Job("seal", _seal, _unseal),
    Job("shift close", _close_shift, pause_s=1),
    Job("api", _api),
]


# --- the phases


@dataclass(slots=True)
class Phase:
    """From when to when (monotonic seconds), and how long each run of the job took; `job` is "" for a quiet one."""

    job: str
    start_s: float
    end_s: float = math.inf
    runs_s: list[float] = field(default_factory=list)


async def quiet(seconds: float) -> Phase:
    phase = Phase("", time.monotonic())
    await asyncio.sleep(seconds)
    phase.end_s = time.monotonic()
    return phase


async def work(job: Job, stage: Stage, seconds: float) -> Phase:
    """Run the job again and again, until the phase is long enough."""
    phase = Phase(job.name, time.monotonic())
    while time.monotonic() - phase.start_s < seconds:
        started_s = time.monotonic()
        await job.run(stage)
        phase.runs_s.append(time.monotonic() - started_s)
        await asyncio.sleep(job.pause_s)
    phase.end_s = time.monotonic()
    return phase


async def play(jobs: list[Job], stages: list[Stage], seconds: float) -> list[Phase]:
    """All jobs once a round, a quiet phase before each and one after the last."""
    await asyncio.sleep(_WARM_UP_S)
    phases = []
    for number, stage in enumerate(stages):
        for job in jobs:
            await job.prepare(stage)
            await asyncio.sleep(_AFTERMATH_S)
            phases.append(await quiet(seconds))
            phases.append(await work(job, stage, seconds))
            runs_s = phases[-1].runs_s
            say(f"round {number + 1}: {job.name} took {runs_s[0]:.2f} s, {len(runs_s)} runs")
    await asyncio.sleep(_AFTERMATH_S)
    return [*phases, await quiet(seconds)]


# --- the figures


@dataclass(frozen=True, slots=True)
class Answers:
    """Payments whose intended time lies in a phase. Latencies in seconds, ascending; of the approved ones."""

    offered: int
    latencies_s: list[float]
    pushes_s: list[float]
    lags_s: list[float]

    @classmethod
    def of(cls, records: list[list[Any]], phases: list[Phase]) -> "Answers":
        mine = [record for record in records if any(phase.start_s <= record[0] < phase.end_s for phase in phases)]
        approved = [record for record in mine if record[4] == "approved"]
        pushes_s = sorted(record[3] for record in approved if record[3] is not None)
        lags_s = sorted(record[1] for record in mine)
        return cls(len(mine), sorted(record[2] for record in approved), pushes_s, lags_s)


def percentile_ms(ordered_s: list[float], percent: float) -> float:
    """Nearest rank; NaN of nothing."""
    return round(percentile(ordered_s, percent) * 1000, 2) if ordered_s else math.nan


@dataclass(frozen=True, slots=True)
class Row:
    """A job's figures. `seconds` is the median of the rounds' first runs; so are the percentiles and the ratio medians.

    `quiet_p99_ms` is of the quiet phases beside the job's; `lag_p99_ms` is how late the generator itself was.
    """

    job: str
    runs: int
    seconds: float
    offered: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    push_p99_ms: float
    lag_p99_ms: float
    quiet_p99_ms: float
    ratio: float
    answered_share: float


def row_of(job: str, phases: list[Phase], records: list[list[Any]]) -> Row:
    places = [place for place, phase in enumerate(phases) if phase.job == job]
    rounds = [Answers.of(records, [phases[place]]) for place in places]
    beside = [Answers.of(records, [phases[place - 1], phases[place + 1]]) for place in places]
    p99_ms = [percentile_ms(answers.latencies_s, 99) for answers in rounds]
    quiet_p99_ms = [percentile_ms(answers.latencies_s, 99) for answers in beside]
    offered = sum(answers.offered for answers in rounds)
    return Row(
        job=job,
        runs=sum(len(phases[place].runs_s) for place in places),
        seconds=round(median(phases[place].runs_s[0] for place in places), 2),
        offered=offered,
        p50_ms=round(median(percentile_ms(answers.latencies_s, 50) for answers in rounds), 2),
        p99_ms=round(median(p99_ms), 2),
        max_ms=max(percentile_ms(answers.latencies_s, 100) for answers in rounds),
        push_p99_ms=round(median(percentile_ms(answers.pushes_s, 99) for answers in rounds), 2),
        lag_p99_ms=round(median(percentile_ms(answers.lags_s, 99) for answers in rounds), 2),
        quiet_p99_ms=round(median(quiet_p99_ms), 2),
        ratio=round(median(busy / quiet for busy, quiet in zip(p99_ms, quiet_p99_ms, strict=True)), 2),
        answered_share=round(sum(len(answers.latencies_s) for answers in rounds) / offered, 6) if offered else 0.0,
    )


def summary(jobs: list[Job], phases: list[Phase], records: list[list[Any]]) -> dict[str, Any]:
    """All figures; those of the whole run count every payment, the warm-up's too."""
    outcomes = Counter(record[4] for record in records)
    return {
        "jobs": [asdict(row_of(job.name, phases, records)) for job in jobs],
        "offered": len(records),
        "approved": outcomes.pop("approved", 0),
        "unanswered": outcomes.pop("", 0),
        "other_outcomes": dict(outcomes),
        "late": sum(record[2] is not None and record[2] > LATE_S for record in records),
        "wallets_not_told": sum(record[4] == "approved" and record[3] is None for record in records),
    }


def table(figures: dict[str, Any]) -> str:
    """The figures for a person; milliseconds are from the intended time to the result at the till."""
    lines = ["job          runs       s   p50 ms   p99 ms   max ms  quiet p99 ms  ratio  answered"]
    lines += [
        f"{row['job']:<12} {row['runs']:>4} {row['seconds']:>7.2f} {row['p50_ms']:>8.2f} {row['p99_ms']:>8.2f} "
        f"{row['max_ms']:>8.2f} {row['quiet_p99_ms']:>13.2f} {row['ratio']:>6.2f} {row['answered_share']:>9.4%}"
        for row in figures["jobs"]
    ]
    lines.append(
        f"{figures['offered']} offered, {figures['approved']} approved, {figures['unanswered']} unanswered, "
        f"{figures['late']} later than {LATE_S:g} s, others: {figures['other_outcomes'] or 'none'}, "
        f"{figures['wallets_not_told']} wallets not told"
    )
    return "\n".join(lines)


# --- the run


@asynccontextmanager
async def owner(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that may do anything."""
    connection = await connect(dsn, timeout_s=30, role=None)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def offered(plan: Plan) -> AsyncIterator[None]:
    """Payments by `plan` while the block runs; its records are in `plan.out` afterwards."""
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "loadtest.arrivals")
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    if process.stdin is None or process.stdout is None:
        raise AssertionError("both are pipes")
    try:
        process.stdin.write(json.dumps(asdict(plan)).encode() + b"\n")
        async with asyncio.timeout(_START_WITHIN_S):
            if await process.stdout.readline() != b"started\n":
                raise SystemExit("the generator did not start")
        yield
        process.stdin.close()
        async with asyncio.timeout(_END_WITHIN_S):
            if await process.wait():
                raise SystemExit("the generator failed")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole measurement; returns the figures. The audit at the end has to be fine."""
    folder = Path(tempfile.mkdtemp(prefix="pos-books-"))
    today = datetime.now(UTC).date()
    jobs = [job for job in JOBS if job.name in (arguments.jobs or {job.name})]
    days = [(today - timedelta(days=arguments.rounds - number)).isoformat() for number in range(arguments.rounds)]
    try:
        async with new_ledger() as (dsn, data_dir):
            async with owner(dsn) as connection:
                await fill(
                    connection,
                    arguments.merchants,
                    arguments.sales,
                    arguments.rounds,
                    shifts=1,
                    shift_sales=arguments.shift,
                )
                await connection.execute("update merchant set fee_bps = 100")
                admin_key = await new_key(connection, Role.ADMIN, None, "load")
            async with serving([POS_SERVER, "run", "--port", "0"], POS_DATABASE_URL=dsn) as server:
                say(f"opening a shop with {arguments.terminals} tills and {arguments.wallets} wallets …")
                shop = await open_shop(
                    server.url,
                    admin_key,
                    terminals=arguments.terminals,
                    wallets=arguments.wallets,
                    balance_minor=BALANCE_MINOR,
                    name="Load & Sons",
                    fee_bps=100,
                )
                async with owner(dsn) as connection:
                    keys = {
                        role: await new_key(
                            connection, role, shop.merchant_id if role is Role.MERCHANT else None, "load"
                        )
                        for role in Role
                    }
                    await connection.execute("vacuum analyze")
                    await connection.execute("checkpoint")
                plan = Plan(
                    url=server.url,
                    rate=arguments.rate,
                    terminals=[device.device.number for device in shop.terminals],
                    wallets=[device.device.number for device in shop.wallets],
                    seconds_max=_SECONDS_MAX,
                    out=str(folder / "records.json"),
                )
                say(f"offering {plan.rate:g} payments a second …")
                async with offered(plan):
                    phases = await play(
                        jobs,
                        [Stage(dsn, data_dir, server.url, folder, day, shop, keys) for day in days],
                        arguments.phase_seconds,
                    )
            figures = summary(jobs, phases, json.loads(await asyncio.to_thread(Path(plan.out).read_bytes)))
            print(table(figures), flush=True)  # noqa: T201
            say(await pos_server(data_dir, "audit"))
            return figures
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="what settlement, audit and seals cost the tills meanwhile")
    parser.add_argument("--rate", type=float, default=500, help="payments offered a second")
    parser.add_argument("--merchants", type=int, default=1000, help="with a history")
    parser.add_argument("--sales", type=int, default=500, help="of each merchant in its history")
    parser.add_argument("--shift", type=int, default=100_000, help="sales of the shift that is closed")
    parser.add_argument("--terminals", type=int, default=100, help="that payments are offered at")
    parser.add_argument("--wallets", type=int, default=2500, help="that pay")
    parser.add_argument("--rounds", type=int, default=3, help="how often each job has a phase")
    parser.add_argument("--jobs", nargs="+", choices=[job.name for job in JOBS], help="only these")
    parser.add_argument("--phase-seconds", type=float, default=10, help="the least length of a phase")
    parser.add_argument("--quick", action="store_true", help="small numbers, to see that it runs")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    if arguments.quick:
        small = {"rate": 50, "merchants": 20, "sales": 50, "terminals": 10, "wallets": 200, "rounds": 1, "shift": 500}
        vars(arguments).update(small, phase_seconds=2)
    try:
        figures = asyncio.run(run(arguments))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
