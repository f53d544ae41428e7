"""Measure the authorization engine at full speed, relative to `pgbench` on the same Postgres in the same run.

    python -m loadtest.bench [--only …] [--json FILE] [--html FILE] [--quick]     (make bench)

There is one server with its Postgres. A generator in a process of its own holds every till and every wallet, with real
codes and real notices to both. Every figure is also a ratio: to `pgbench` (TPC-B-like, prepared statements) with the
same settings, or to another run that alternates with it.

    ceiling    closed loop, one open payment per till; relative to pgbench's best of 1, 8 and 32 clients, in throughput
               and in CPU per payment
    latency    open loop at `--rate`, from the intended time until till and wallet are notified; relative to
               `pgbench --rate`
    alone      one till, one payment at a time; relative to pgbench with one client
    hot        all payments at one merchant; relative to several merchants
    zipf       few wallets make most payments; relative to all wallets alternately
    declines   a fifth of the payments is declined; relative to none
    pin        at `--pin-rate`, a twentieth of the payments needs a PIN: the latency of the others, and of a PIN
    metrics    a server that counts for /metrics; relative to one that does not
    two        two servers on one database, with half of the wallets not at their till's server; relative to one server
    overload   twice the ceiling offered: the share of answers, and the goodput
    large      a ledger of a million wallets and a million payments; relative to the small one (with --large)

The audit must pass at the end.
"""

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

from loadtest.bench import scenarios as scenarios
from loadtest.bench.load import Bench, open_bench, with_crowd
from loadtest.bench.report import write_report
from loadtest.bench.scenarios import Figures
from loadtest.shared.pgbench import create_tables
from loadtest.shared.process import new_ledger, print_progress, run_pos_server

# In these scenarios the devices connect for one run only, because idle connections would slow down pgbench.
_WITH_PGBENCH = ("ceiling", "latency", "alone")
_IN_ONE_CROWD = ("hot", "zipf", "declines", "pin", "overload")
_WITH_OTHER_SERVERS = ("metrics", "two", "large")
_ALL = (*_WITH_PGBENCH, *_IN_ONE_CROWD, *_WITH_OTHER_SERVERS)


async def run(arguments: argparse.Namespace) -> Figures:
    """Run the bench and return its figures."""
    selection = arguments.only or [name for name in _ALL if name != "large" or arguments.large]
    async with new_ledger() as (dsn, data_dir):
        print_progress(f"seeding {arguments.wallets} wallets and {arguments.tills} tills …")
        await create_tables(dsn)
        wallets = arguments.wallets
        async with open_bench(dsn, data_dir, arguments.tills, wallets, wallets, arguments.seconds) as bench:
            figures = Figures({"tills": len(bench.spread), "wallets": len(bench.wallets), "seconds": bench.seconds})
            await _play([name for name in _WITH_PGBENCH if name in selection], bench, figures, arguments)
            crowd_scenarios = [name for name in _IN_ONE_CROWD if name in selection]
            if crowd_scenarios:
                print_progress("connecting all devices …")
                async with with_crowd(bench, sorted({*bench.spread, *bench.hot}), bench.wallets) as crowd_bench:
                    await _play(crowd_scenarios, crowd_bench, figures, arguments)
            await _play([name for name in _WITH_OTHER_SERVERS if name in selection], bench, figures, arguments)
            figures.put(server_kib=bench.servers[0].resident_kib())
        figures.put(audit=await run_pos_server(data_dir, "audit"))
    return figures


async def _play(names: list[str], bench: Bench, figures: Figures, arguments: argparse.Namespace) -> None:
    pairs: int = arguments.pairs
    by_name: dict[str, Callable[[], Awaitable[None]]] = {
        "ceiling": lambda: scenarios.ceiling(bench, figures, pairs),
        "latency": lambda: scenarios.latency(bench, figures, arguments.rate, pairs),
        "alone": lambda: scenarios.alone(bench, figures, pairs),
        "hot": lambda: scenarios.hot_merchant(bench, figures, pairs),
        "zipf": lambda: scenarios.zipf(bench, figures, pairs),
        "declines": lambda: scenarios.declines(bench, figures, pairs),
        "pin": lambda: scenarios.pins(bench, figures, arguments.pin_rate, pairs),
        "overload": lambda: scenarios.overload(bench, figures, arguments.overload_seconds, pairs),
        "metrics": lambda: scenarios.metrics(bench, figures, pairs),
        "two": lambda: scenarios.two_servers(bench, figures, pairs),
        "large": lambda: scenarios.large(bench, figures, pairs),
    }
    for name in names:
        print_progress(f"{name} …")
        await by_name[name]()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="the engine at full speed, relative to pgbench in the same run")
    parser.add_argument("--seconds", type=float, default=10, help="duration of each measurement (default 10)")
    parser.add_argument("--pairs", type=int, default=3, help="alternating runs, of which the median counts (default 3)")
    parser.add_argument("--rate", type=float, default=1000, help="payments/s in the open loop (default 1000)")
    parser.add_argument("--pin-rate", type=float, default=200, help="payments/s in the pin scenario (default 200)")
    parser.add_argument("--overload-seconds", type=float, default=30, help="duration of the overload (default 30)")
    parser.add_argument("--tills", type=int, default=800, help="tills, each with one open payment (default 800)")
    parser.add_argument("--wallets", type=int, default=6_000, help="wallets (default 6000)")
    parser.add_argument("--only", nargs="+", choices=_ALL, default=[], help="run these scenarios only")
    parser.add_argument("--large", action="store_true", help="also run with a million wallets and payments")
    parser.add_argument("--quick", action="store_true", help="a short run, to check that it works")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--html", type=Path, help="write a report with plots to this file")
    arguments = parser.parse_args()
    if arguments.quick:
        small_values = {
            "seconds": 1,
            "pairs": 1,
            "rate": 200,
            "pin_rate": 100,
            "overload_seconds": 2,
            "wallets": 1500,
            "tills": 50,
        }
        vars(arguments).update(small_values)
    figures = asyncio.run(run(arguments))
    text = json.dumps(figures.values, indent=2)
    print(text)  # noqa: T201
    if arguments.json:
        arguments.json.write_text(text + "\n")
    if arguments.html:
        write_report(arguments.html, figures.values, figures.curves, figures.timelines)
        print_progress(f"wrote {arguments.html}")


if __name__ == "__main__":
    main()
