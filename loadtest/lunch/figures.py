"""The figures of a store day, from locust's record and the observations of the machine."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import isfinite
from typing import Any

from hdrh.histogram import HdrHistogram

from loadtest.lunch.plan import RUSH
from loadtest.lunch.watch import Observation
from loadtest.shared.histogram import ms_at, new_histogram
from loadtest.shared.metrics import Metrics, bucket_bounds, bucket_of, increase, quantile, total

SERVER_HISTOGRAMS = ("pos_authorization_seconds", "pos_push_seconds")
_QUANTILES = (0.5, 0.99)
# Steps in which a till waits for the engine and for nothing else. pos_authorization_seconds counts the same operations.
_ENGINE_STEPS = tuple(f"{step} → terminal" for step in ("scan", "rescan", "repeat", "cancel", "refund"))


def figures_of(record: Mapping[str, Any], observations: Sequence[Observation]) -> dict[str, Any]:
    """Return all figures of a run. Latencies are in milliseconds, None without any; CPU is in cores, in the rush."""
    start_s, end_s, day_s = record["start_s"], record["end_s"], record["day_s"]
    rush = (start_s + RUSH[0] * day_s, start_s + RUSH[1] * day_s)
    answers = answered_s(record)
    steps = {name: step_figures(record, name) for name in record["locust"]}
    steps.pop("Aggregated", None)
    in_day = [observation for observation in observations if start_s <= observation.at_s <= end_s]
    in_rush = [observation for observation in observations if rush[0] <= observation.at_s <= rush[1]]
    histograms = {name: histogram_of(record, name) for name in ("scan → terminal", "scan → wallet")}
    engine = histogram_of(record, *_ENGINE_STEPS)
    return {
        "payments": len(record["outcomes"]),
        "payments_per_s": round(len(answers) / max(1e-9, end_s - start_s), 2),
        "payments_per_s_rush": round(sum(rush[0] <= at_s < rush[1] for at_s in answers) / (rush[1] - rush[0]), 2),
        "outcomes": dict(Counter(f"{status} {code}" if code else status for status, code, _ in record["outcomes"])),
        "flows": record["flows"],
        "scan_terminal_p50_ms": _ms(histograms["scan → terminal"], 50),
        "scan_terminal_p99_ms": _ms(histograms["scan → terminal"], 99),
        "scan_wallet_p50_ms": _ms(histograms["scan → wallet"], 50),
        "scan_wallet_p99_ms": _ms(histograms["scan → wallet"], 99),
        "steps": sum(step["count"] for step in record["locust"].values()),
        "failed_steps": sum(step["failures"] for step in record["locust"].values()),
        "failures": record["failures"],
        "connections_lost": steps.get("connection lost", {}).get("count", 0),
        "by_step": steps,
        "engine_steps": {"count": engine.get_total_count(), "p50_ms": _ms(engine, 50), "p99_ms": _ms(engine, 99)},
        "server_histograms": server_figures(in_day),
        "cpu_cores": {name: cores(in_rush, name) for name in ("server", "postgres", "locust")},
        "memory_mib_max": {
            name: round(max((observation.memory_mib.get(name, 0.0) for observation in in_day), default=0.0), 1)
            for name in ("server", "postgres", "locust")
        },
        "database_bytes_per_million_payments": database_growth(in_day, len(record["outcomes"])),
        "books": record["books"],
    }


def answered_s(record: Mapping[str, Any]) -> list[float]:
    """Return the times at which tills received the outcomes of their payments, in Unix seconds."""
    return sorted(settled_s for _, _, settled_s in record["outcomes"] if settled_s)


def histogram_of(record: Mapping[str, Any], *names: str) -> HdrHistogram:
    """Return the exact latencies of these steps."""
    histogram = new_histogram()
    for name in names:
        for us in record["latencies"].get(name, {"us": []})["us"]:
            histogram.record_value(us)
    return histogram


def step_figures(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the exact figures of a step, and those of locust, which are rounded to whole milliseconds or more."""
    histogram = histogram_of(record, name)
    locust = record["locust"][name]
    return {
        "count": locust["count"],
        "failures": locust["failures"],
        "p50_ms": _ms(histogram, 50),
        "p95_ms": _ms(histogram, 95),
        "p99_ms": _ms(histogram, 99),
        "max_ms": _ms(histogram, 100),
        "locust_p50_ms": locust["p50_ms"],
        "locust_p99_ms": locust["p99_ms"],
    }


def _ms(histogram: HdrHistogram, percent: float) -> float | None:
    return ms_at(histogram, percent) if histogram.get_total_count() else None


def server_figures(observations: Sequence[Observation]) -> dict[str, dict[str, Any]] | None:
    """Return p50 and p99 of the server's histograms and the bounds of their buckets, in ms; None without metrics."""
    readings = [observation.metrics for observation in observations if observation.metrics is not None]
    if not readings:
        return None
    figures: dict[str, dict[str, Any]] = {}
    for name in SERVER_HISTOGRAMS:
        bounds = bucket_bounds(readings[-1], name)
        counts = [increase([_up_to(metrics, name, bound) for metrics in readings]) for bound in bounds]
        figures[name] = {}
        for share in _QUANTILES:
            value, bucket = quantile(bounds, counts, share), bucket_of(bounds, counts, share)
            figures[name] |= {
                f"p{100 * share:g}_ms": None if value is None else round(1000 * value, 3),
                f"p{100 * share:g}_bucket_ms": None if bucket is None else list(map(_bound_ms, bucket)),
            }
    return figures


def _bound_ms(bound_s: float) -> float | None:
    """Return a bound in ms, None for the infinite one."""
    return round(1000 * bound_s, 3) if isfinite(bound_s) else None


def _up_to(metrics: Metrics, name: str, bound: float) -> float:
    return sum(
        value
        for (sample, labels), value in metrics.items()
        if sample == f"{name}_bucket" and float(dict(labels)["le"]) == bound
    )


def batch_sizes(observations: Sequence[Observation]) -> list[tuple[float, float]]:
    """Return the average number of operations per batch between two observations, with the time (Unix seconds)."""
    readings = [(each.at_s, each.metrics) for each in observations if each.metrics is not None]
    sizes = []
    for (_, previous), (at_s, current) in pairwise(readings):
        batches = increase([total(metrics, "pos_batch_operations_count") for metrics in (previous, current)])
        operations = increase([total(metrics, "pos_batch_operations_sum") for metrics in (previous, current)])
        if batches:
            sizes.append((at_s, operations / batches))
    return sizes


def cpu_over_time(observations: Sequence[Observation], name: str) -> list[tuple[float, float]]:
    """Return the cores in use between two observations of the same process, with the time (Unix seconds)."""
    return [
        (current.at_s, max(0.0, current.cpu_s[name] - previous.cpu_s[name]) / (current.at_s - previous.at_s))
        for previous, current in pairwise(observations)
        if name in previous.cpu_s
        and name in current.cpu_s
        and (name != "server" or previous.server_pid == current.server_pid)
    ]


def cores(observations: Sequence[Observation], name: str) -> float | None:
    """Return the average number of cores in use, None without observations."""
    samples = [cores_in_use for _, cores_in_use in cpu_over_time(observations, name)]
    return round(sum(samples) / len(samples), 3) if samples else None


def database_growth(observations: Sequence[Observation], payments: int) -> int | None:
    """Return the growth of the database in bytes per million payments, None without observations or payments."""
    sizes = [observation.database_bytes for observation in observations if observation.database_bytes]
    if len(sizes) < 2 or not payments:
        return None
    return round((sizes[-1] - sizes[0]) * 1_000_000 / payments)
