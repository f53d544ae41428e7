"""The scenarios of the bench, described in `__main__`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from loadtest.bench.load import WIDE_LIMITS, Bench, Load, offer, open_bench
from loadtest.bench.report import Curve
from loadtest.shared.histogram import decode, ms_at
from loadtest.shared.pgbench import CLIENTS, pgbench
from loadtest.shared.process import POS_SERVER, new_ledger, owner_connection, print_progress, run_pos_server, serving
from loadtest.shared.sales_history import fill_ledger
from loadtest.shared.seed import seed_pins
from pos_server.settings import load_settings

_DECLINED_SHARE = 0.2
_ZIPF = 1.0
_PIN_SHARE = 0.05
_PIN_WALLETS = 200
_LARGE_WALLETS = 1_000_000
_LARGE_MERCHANTS = 1_000


@dataclass(slots=True)
class Figures:
    """All figures by name, and the curves of the report."""

    values: dict[str, Any] = field(default_factory=dict)
    curves: list[Curve] = field(default_factory=list)
    timelines: dict[str, list[int]] = field(default_factory=dict)

    def put(self, **values: Any) -> None:
        self.values.update(values)
        print_progress("  " + ", ".join(f"{name} {value}" for name, value in values.items()))


async def ceiling(bench: Bench, figures: Figures, pairs: int) -> None:
    trials = {clients: await pgbench(bench.dsn, bench.data_dir, clients, bench.seconds / 3) for clients in CLIENTS}
    for number, run in trials.items():
        print_progress(f"  pgbench with {number} clients: {run.tps:.0f} tps")
    clients = max(trials, key=lambda number: trials[number].tps)
    loads, baselines = [], []
    for _ in range(pairs):
        baselines.append(await pgbench(bench.dsn, bench.data_dir, clients, bench.seconds))
        loads.append(await offer(bench, bench.spread, bench.wallets))
        print_progress(f"  {loads[-1].per_s:.0f} payments/s, pgbench {baselines[-1].tps:.0f} tps")
    final_baseline = await pgbench(bench.dsn, bench.data_dir, clients, bench.seconds)
    cpu_ratios = [(load.server_us + load.postgres_us) / run.cpu_us for load, run in zip(loads, baselines, strict=True)]
    load = sorted(loads, key=lambda load: load.per_s)[len(loads) // 2]
    both = decode(load.result.both)
    figures.curves.append(Curve("at the ceiling", both))
    figures.timelines["ceiling"] = load.result.timeline
    figures.put(
        payments_per_s=round(median(load.per_s for load in loads)),
        pgbench_tps=round(median(run.tps for run in baselines)),
        pgbench_clients=clients,
        pgbench_tps_after=round(final_baseline.tps),
        ratio_pgbench=round(median(load.per_s / run.tps for load, run in zip(loads, baselines, strict=True)), 2),
        cpu_us_server=round(median(load.server_us for load in loads), 1),
        cpu_us_postgres=round(median(load.postgres_us for load in loads), 1),
        cpu_us_generator=round(median(1e6 * load.cost.generator_s / load.payments for load in loads), 1),
        cpu_us_pgbench=round(median(run.cpu_us for run in baselines), 1),
        cpu_ratio=round(median(cpu_ratios), 2),
        batch_operations=round(median(load.batch for load in loads), 1),
        ceiling_p50_ms=ms_at(both, 50),
        ceiling_p99_ms=ms_at(both, 99),
        ceiling_outcomes=load.result.outcomes,
    )


async def latency(bench: Bench, figures: Figures, rate: float, pairs: int) -> None:
    baselines, loads = [], []
    for _ in range(pairs):
        baselines.append(await pgbench(bench.dsn, bench.data_dir, 32, bench.seconds, rate=rate))
        loads.append(await offer(bench, bench.spread, bench.wallets, rate=rate))
        p99s_ms = [ms_at(latencies, 99) for latencies in (decode(loads[-1].result.both), baselines[-1].latencies)]
        print_progress(f"  p99 {p99s_ms[0]} ms, pgbench {p99s_ms[1]} ms")
    histograms = [decode(load.result.both) for load in loads]
    ratios = [
        ms_at(histogram, 99) / max(0.001, ms_at(run.latencies, 99))
        for histogram, run in zip(histograms, baselines, strict=True)
    ]
    figures.curves += [
        Curve(f"at {rate:g} payments/s", histograms[-1]),
        Curve(f"pgbench at {rate:g}/s", baselines[-1].latencies),
    ]
    figures.put(
        rate=rate,
        p50_ms=round(median(ms_at(histogram, 50) for histogram in histograms), 3),
        p99_ms=round(median(ms_at(histogram, 99) for histogram in histograms), 3),
        p999_ms=round(median(ms_at(histogram, 99.9) for histogram in histograms), 3),
        pgbench_p50_ms=round(median(ms_at(run.latencies, 50) for run in baselines), 3),
        pgbench_p99_ms=round(median(ms_at(run.latencies, 99) for run in baselines), 3),
        p99_ratio=round(median(ratios), 2),
        not_notified=sum(load.result.not_notified for load in loads),
        unanswered=sum(load.result.unanswered for load in loads),
        late=sum(load.result.late for load in loads),
        dropped=sum(load.result.skipped for load in loads),
    )


async def alone(bench: Bench, figures: Figures, pairs: int) -> None:
    payment_ms, pgbench_ms = [], []
    for _ in range(pairs):
        baseline = await pgbench(bench.dsn, bench.data_dir, 1, bench.seconds)
        load = await offer(bench, bench.spread[:1], bench.wallets[:1000])
        pgbench_ms.append(1000 / baseline.tps)
        payment_ms.append(ms_at(decode(load.result.both), 50))
    figures.curves.append(Curve("alone", decode(load.result.both)))
    figures.put(
        alone_p50_ms=round(median(payment_ms), 3),
        pgbench_alone_ms=round(median(pgbench_ms), 3),
        alone_ratio=round(median(ms / base_ms for ms, base_ms in zip(payment_ms, pgbench_ms, strict=True)), 2),
    )


async def run_pairs(bench: Bench, pairs: int, run: Callable[[], Awaitable[Load]]) -> list[tuple[Load, Load]]:
    """Run `run` and the plain closed loop in pairs, with alternating order. Returns (run, plain) for each pair."""
    loads = []
    for number in range(pairs):
        if number % 2:
            plain, other = await offer(bench, bench.spread, bench.wallets), await run()
        else:
            other, plain = await run(), await offer(bench, bench.spread, bench.wallets)
        if not plain.per_s:
            raise SystemExit("the wallets have run out of codes: use more --wallets or fewer --seconds")
        print_progress(f"  {other.per_s:.0f} against {plain.per_s:.0f} payments/s")
        loads.append((other, plain))
    return loads


async def throughput_ratio(bench: Bench, pairs: int, run: Callable[[], Awaitable[Load]]) -> tuple[float, Load]:
    """Return the throughput of `run` relative to the plain closed loop, the median of `pairs`, and its last run."""
    loads = await run_pairs(bench, pairs, run)
    return round(median(other.per_s / plain.per_s for other, plain in loads), 2), loads[-1][0]


async def hot_merchant(bench: Bench, figures: Figures, pairs: int) -> None:
    # Identical runs differ by as much as the expected effect, so this takes twice as many.
    loads = await run_pairs(bench, 2 * pairs, lambda: offer(bench, bench.hot, bench.wallets))
    figures.put(
        hot_merchant_ratio=round(median(hot.per_s / plain.per_s for hot, plain in loads), 2),
        hot_merchant_cpu_ratio=round(median(hot.server_us / plain.server_us for hot, plain in loads), 2),
        hot_merchant_postgres_ratio=round(median(hot.postgres_us / plain.postgres_us for hot, plain in loads), 2),
    )


async def zipf(bench: Bench, figures: Figures, pairs: int) -> None:
    ratio, load = await throughput_ratio(bench, pairs, lambda: offer(bench, bench.spread, bench.wallets, zipf=_ZIPF))
    figures.put(zipf_ratio=ratio, zipf_outcomes=load.result.outcomes)


async def declines(bench: Bench, figures: Figures, pairs: int) -> None:
    ratio, load = await throughput_ratio(
        bench, pairs, lambda: offer(bench, bench.spread, bench.wallets, declined_share=_DECLINED_SHARE)
    )
    figures.put(declines_ratio=ratio, declines_outcomes=load.result.outcomes)


async def pins(bench: Bench, figures: Figures, rate: float, pairs: int) -> None:
    settings = load_settings()
    pin_wallets = bench.wallets[:_PIN_WALLETS]
    async with owner_connection(bench.dsn) as connection:
        await seed_pins(connection, pin_wallets, settings)
    fields = {
        "pin_share": _PIN_SHARE,
        "pin_wallets": len(pin_wallets),
        "pin_amount_minor": settings.pin_free_minor_max + 1,
    }
    ratios, loads = [], []
    for _ in range(pairs):
        plain = await offer(bench, bench.spread, bench.wallets, rate=rate)
        loads.append(await offer(bench, bench.spread, bench.wallets, rate=rate, **fields))
        p99s_ms = [ms_at(decode(load.result.both), 99) for load in (loads[-1], plain)]
        print_progress(f"  p99 of payments without a PIN {p99s_ms[0]} ms, if no payment needs one {p99s_ms[1]} ms")
        ratios.append(p99s_ms[0] / p99s_ms[1])
    pin_histograms = [decode(load.result.pin) for load in loads]
    figures.curves.append(Curve("from the PIN", pin_histograms[-1]))
    figures.put(
        pin_rate=rate,
        pin_others_p99_ratio=round(median(ratios), 2),
        pin_p50_ms=round(median(ms_at(histogram, 50) for histogram in pin_histograms), 3),
        pin_p99_ms=round(median(ms_at(histogram, 99) for histogram in pin_histograms), 3),
        pin_payments=sum(histogram.total_count for histogram in pin_histograms),
        pin_outcomes=loads[-1].result.outcomes,
    )


async def metrics(bench: Bench, figures: Figures, pairs: int) -> None:
    command: list[str | Path] = [POS_SERVER, "run", "--port", "0"]
    async with serving(command, POS_DATABASE_URL=bench.dsn, POS_METRICS="false", **WIDE_LIMITS) as server:
        without_metrics = replace(bench, servers=[server])
        # Twice as many pairs, as for the hot merchant.
        loads = await run_pairs(bench, 2 * pairs, lambda: offer(without_metrics, bench.spread, bench.wallets))
    figures.put(
        metrics_ratio=round(median(counting.per_s / bare.per_s for bare, counting in loads), 2),
        metrics_cpu_ratio=round(median(counting.server_us / bare.server_us for bare, counting in loads), 2),
    )


async def two_servers(bench: Bench, figures: Figures, pairs: int) -> None:
    async with serving([POS_SERVER, "run", "--port", "0"], POS_DATABASE_URL=bench.dsn, **WIDE_LIMITS) as second:
        both = replace(bench, servers=[*bench.servers, second])
        ratio, load = await throughput_ratio(bench, pairs, lambda: offer(both, both.spread, both.wallets))
    figures.put(
        two_servers_ratio=ratio,
        two_servers_cpu_us=round(load.server_us, 1),
        two_servers_outcomes=load.result.outcomes,
        two_servers_not_notified=load.result.not_notified,
    )


async def overload(bench: Bench, figures: Figures, seconds: float, pairs: int) -> None:
    ceilings = [(await offer(bench, bench.spread, bench.wallets)).per_s for _ in range(pairs)]
    ceiling_per_s = median(ceilings)
    load = await offer(bench, bench.spread, bench.wallets, rate=2.0 * ceiling_per_s, seconds=seconds, warm_up_s=2.0)
    result = load.result
    # Only answers during the offered time count, not the backlog that is processed afterwards.
    offered_s = result.seconds + 2.0
    refused_count = sum(count for outcome, count in result.outcomes.items() if outcome == "busy")
    answers_in_time = sum(result.timeline[: round(offered_s * 2)])
    goodput_per_s = (answers_in_time - refused_count) / offered_s
    figures.timelines["overload (answers)"] = result.timeline
    figures.put(
        overload_offered_per_s=round(result.offered / result.seconds),
        overload_ceiling_per_s=round(ceiling_per_s),
        answered_share=round(load.payments / (load.payments + result.unanswered), 5),
        overload_outcomes=result.outcomes,
        goodput_ratio=round(goodput_per_s / ceiling_per_s, 2),
        overload_late=result.late,
        overload_dropped=result.skipped,
    )


async def large(bench: Bench, figures: Figures, pairs: int) -> None:
    print_progress(f"  seeding {_LARGE_WALLETS} wallets and {_LARGE_MERCHANTS * 1000} payments …")
    async with new_ledger() as (dsn, data_dir):
        async with owner_connection(dsn) as connection:
            await fill_ledger(connection, _LARGE_MERCHANTS, 1000, 1)
        connected = len(bench.wallets)
        async with open_bench(dsn, data_dir, len(bench.spread), _LARGE_WALLETS, connected, bench.seconds) as big:
            ratio, _ = await throughput_ratio(bench, pairs, lambda: offer(big, big.spread, big.wallets))
        figures.put(large_ratio=ratio, large_audit=await run_pos_server(data_dir, "audit"))
