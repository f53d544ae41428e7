"""The authorization engine at full speed, with `pgbench` on the same Postgres, in the same run, to compare with.

    python -m loadtest.bench [--only …] [--json FILE] [--html FILE] [--quick]     (make bench)

One server with its Postgres; a generator in a process of its own holds every till and every wallet (real codes, real
pushes to both). Every figure is also a ratio, to `pgbench` (TPC-B-like, prepared) on the same Postgres with the same
settings, or to another run of ours, by turns with it:

    ceiling    closed loop: every till has one payment open; over pgbench's best of 1, 8 and 32 clients, and what a
               payment costs of the machine over what a pgbench transaction does
    latency    open loop at `--rate`, from the intended time to both have heard; over `pgbench --rate` the same
    alone      one till, one payment at a time; over pgbench with one client
    hot        all payments at one merchant, over spread merchants
    zipf       some wallets pay often, most hardly ever; over all by turns
    declines   a fifth of the payments is declined; over none
    pin        at `--pin-rate`, a twentieth of the payments with a PIN: what the others notice, and how long a PIN takes
    metrics    a server that counts for /metrics, over one that does not
    two        two servers on one database, every wallet at another one than its till half the time; over one server
    overload   twice the ceiling offered: what is answered, and what still gets through
    large      a ledger of a million wallets and a million payments, over the small one (with --large)

The audit has to hold at the end.
"""

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

from loadtest.bench import scenarios as scenarios
from loadtest.bench.load import Bench, gathered, opened
from loadtest.bench.report import write_report
from loadtest.bench.scenarios import Figures
from loadtest.shared.pgbench import create_tables
from loadtest.shared.process import new_ledger, pos_server, say

# For these everybody connects for a run and leaves after it: idle connections would cost pgbench, and whoever is alone.
_BY_TURNS_WITH_PGBENCH = ("ceiling", "latency", "alone")
_IN_ONE_CROWD = ("hot", "zipf", "declines", "pin", "overload")
_WITH_OTHER_SERVERS = ("metrics", "two", "large")
_ALL = (*_BY_TURNS_WITH_PGBENCH, *_IN_ONE_CROWD, *_WITH_OTHER_SERVERS)


async def run(arguments: argparse.Namespace) -> Figures:
    """The whole bench."""
    wanted = arguments.only or [name for name in _ALL if name != "large" or arguments.large]
    async with new_ledger() as (dsn, data_dir):
        say(f"seeding {arguments.wallets} wallets and {arguments.tills} tills …")
        await create_tables(dsn)
        wallets = arguments.wallets
        async with opened(dsn, data_dir, arguments.tills, wallets, wallets, arguments.seconds) as bench:
            figures = Figures({"tills": len(bench.spread), "wallets": len(bench.wallets), "seconds": bench.seconds})
            await _play([name for name in _BY_TURNS_WITH_PGBENCH if name in wanted], bench, figures, arguments)
            in_one_crowd = [name for name in _IN_ONE_CROWD if name in wanted]
            if in_one_crowd:
                say("connecting everybody …")
                async with gathered(bench, sorted({*bench.spread, *bench.hot}), bench.wallets) as crowded:
                    await _play(in_one_crowd, crowded, figures, arguments)
            await _play([name for name in _WITH_OTHER_SERVERS if name in wanted], bench, figures, arguments)
            figures.put(server_kib=bench.servers[0].resident_kib())
        figures.put(audit=await pos_server(data_dir, "audit"))
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
        say(f"{name} …")
        await by_name[name]()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="the engine at full speed, over pgbench in the same run")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--pairs", type=int, default=3, help="alternating runs of which the median counts")
    parser.add_argument("--rate", type=float, default=1000, help="offered in the open loop")
    parser.add_argument("--pin-rate", type=float, default=200, help="offered where some need their PIN")
    parser.add_argument("--overload-seconds", type=float, default=30)
    parser.add_argument("--tills", type=int, default=800, help="each with one payment open, in the closed loop")
    parser.add_argument("--wallets", type=int, default=6_000)
    parser.add_argument("--only", nargs="+", choices=_ALL, default=[], help="these scenarios")
    parser.add_argument("--large", action="store_true", help="a ledger of a million wallets and payments too")
    parser.add_argument("--quick", action="store_true", help="short, to see that it runs")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--html", type=Path, help="write a report with plots to this file")
    arguments = parser.parse_args()
    if arguments.quick:
        small = {
            "seconds": 1,
            "pairs": 1,
            "rate": 200,
            "pin_rate": 100,
            "overload_seconds": 2,
            "wallets": 1500,
            "tills": 50,
        }
        vars(arguments).update(small)
    figures = asyncio.run(run(arguments))
    text = json.dumps(figures.values, indent=2)
    print(text)  # noqa: T201
    if arguments.json:
        arguments.json.write_text(text + "\n")
    if arguments.html:
        write_report(arguments.html, figures.values, figures.curves, figures.timelines)
        say(f"wrote {arguments.html}")


if __name__ == "__main__":
    main()
