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
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from loadtest.books.arrivals import Plan
from loadtest.books.figures import Phase, summary, table
from loadtest.books.jobs import JOBS, Job, Stage
from loadtest.shared.opening import open_shop
from loadtest.shared.process import POS_SERVER, new_ledger, owner_connection, print_progress, run_pos_server, serving
from loadtest.shared.sales_history import fill_ledger
from pos_server.cli.operator_acts import new_key
from pos_server.core.credentials.api_keys import Role

BALANCE_MINOR = 1_000_000
_WARM_UP_S = 5.0
# What a job leaves behind (dirty pages, caches of others) belongs to no phase.
_AFTERMATH_S = 2.0
_START_WITHIN_S = 60.0
_END_WITHIN_S = 60.0
# The generator ends by itself after this long, should nobody be left to stop it.
_SECONDS_MAX = 3_600.0


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
            print_progress(f"round {number + 1}: {job.name} took {runs_s[0]:.2f} s, {len(runs_s)} runs")
    await asyncio.sleep(_AFTERMATH_S)
    return [*phases, await quiet(seconds)]


@asynccontextmanager
async def offered(plan: Plan) -> AsyncIterator[None]:
    """Payments by `plan` while the block runs; its records are in `plan.out` afterwards."""
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "loadtest.books.arrivals")
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
            async with owner_connection(dsn) as connection:
                await fill_ledger(
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
                print_progress(f"opening a shop with {arguments.terminals} tills and {arguments.wallets} wallets …")
                shop = await open_shop(
                    server.url,
                    admin_key,
                    terminals=arguments.terminals,
                    wallets=arguments.wallets,
                    balance_minor=BALANCE_MINOR,
                    name="Load & Sons",
                    fee_bps=100,
                )
                async with owner_connection(dsn) as connection:
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
                print_progress(f"offering {plan.rate:g} payments a second …")
                async with offered(plan):
                    phases = await play(
                        jobs,
                        [Stage(dsn, data_dir, server.url, folder, day, shop, keys) for day in days],
                        arguments.phase_seconds,
                    )
            figures = summary(
                [job.name for job in jobs], phases, json.loads(await asyncio.to_thread(Path(plan.out).read_bytes))
            )
            print(table(figures), flush=True)  # noqa: T201
            print_progress(await run_pos_server(data_dir, "audit"))
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
