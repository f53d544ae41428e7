"""The figures of a store day, from what locust recorded and what was seen from outside."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import isfinite
from typing import Any

from hdrh.histogram import HdrHistogram

from loadtest.lunch.plan import RUSH
from loadtest.lunch.watch import Look
from loadtest.shared.histogram import ms_at, new_histogram
from loadtest.shared.metrics import Metrics, bucket_bounds, bucket_of, increase, quantile, total

SERVER_HISTOGRAMS = ("pos_authorization_seconds", "pos_push_seconds")
_QUANTILES = (0.5, 0.99)
# What the server's engine does and a till waits for, without anything else that takes long: pos_authorization_seconds
# counts the same.
_ENGINE_STEPS = tuple(f"{step} → terminal" for step in ("scan", "rescan", "repeat", "cancel", "refund"))


def figures_of(record: Mapping[str, Any], looks: Sequence[Look]) -> dict[str, Any]:
    """All figures of a run. Latencies in milliseconds, null where there are none; CPU in cores, in the rush."""
    began_s, ended_s = record["began_s"], record["ended_s"]
    minutes_s = record["day_s"]
    rush = (began_s + RUSH[0] * minutes_s, began_s + RUSH[1] * minutes_s)
    answers = answered_s(record)
    steps = {name: step_figures(record, name) for name in record["locust"]}
    steps.pop("Aggregated", None)
    day_looks = [look for look in looks if began_s <= look.at_s <= ended_s]
    rush_looks = [look for look in looks if rush[0] <= look.at_s <= rush[1]]
    histograms = {name: histogram_of(record, name) for name in ("scan → terminal", "scan → wallet")}
    engine = histogram_of(record, *_ENGINE_STEPS)
    return {
        "payments": len(record["outcomes"]),
        "payments_per_s": round(len(answers) / max(1e-9, ended_s - began_s), 2),
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
        "server_histograms": server_figures(day_looks),
        "cpu_cores": {name: cores(rush_looks, name) for name in ("server", "postgres", "locust")},
        "memory_mib_max": {
            name: round(max((look.memory_mib.get(name, 0.0) for look in day_looks), default=0.0), 1)
            for name in ("server", "postgres", "locust")
        },
        "database_bytes_per_million_payments": database_growth(day_looks, len(record["outcomes"])),
        "books": record["books"],
    }


def answered_s(record: Mapping[str, Any]) -> list[float]:
    """When tills heard the outcomes of their payments, in Unix seconds."""
    return sorted(settled_s for _, _, settled_s in record["outcomes"] if settled_s)


def histogram_of(record: Mapping[str, Any], *names: str) -> HdrHistogram:
    """The true latencies of these steps."""
    histogram = new_histogram()
    for name in names:
        for us in record["latencies"].get(name, {"us": []})["us"]:
            histogram.record_value(us)
    return histogram


def step_figures(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A step's own figures beside those of locust, which rounds from 100 ms on and has whole milliseconds below."""
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


def server_figures(looks: Sequence[Look]) -> dict[str, dict[str, Any]] | None:
    """The p50 and p99 of the server's own histograms, and the bounds of their buckets, in ms; None without metrics."""
    readings = [look.metrics for look in looks if look.metrics is not None]
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
    """None for the bound of the last bucket, which has none."""
    return round(1000 * bound_s, 3) if isfinite(bound_s) else None


def _up_to(metrics: Metrics, name: str, bound: float) -> float:
    return sum(
        value
        for (sample, labels), value in metrics.items()
        if sample == f"{name}_bucket" and float(dict(labels)["le"]) == bound
    )


def batch_sizes(looks: Sequence[Look]) -> list[tuple[float, float]]:
    """Operations in a batch, on average between two looks, over time (Unix seconds)."""
    readings = [(look.at_s, look.metrics) for look in looks if look.metrics is not None]
    sizes = []
    for (_, before), (at_s, now) in pairwise(readings):
        batches = increase([total(m, "pos_batch_operations_count") for m in (before, now)])
        operations = increase([total(m, "pos_batch_operations_sum") for m in (before, now)])
        if batches:
            sizes.append((at_s, operations / batches))
    return sizes


def cpu_over_time(looks: Sequence[Look], name: str) -> list[tuple[float, float]]:
    """Cores in use between two looks, over time. Where the process was another one by then, nothing."""
    return [
        (now.at_s, max(0.0, now.cpu_s[name] - before.cpu_s[name]) / (now.at_s - before.at_s))
        for before, now in pairwise(looks)
        if name in before.cpu_s and name in now.cpu_s and (name != "server" or before.server_pid == now.server_pid)
    ]


def cores(looks: Sequence[Look], name: str) -> float | None:
    """Cores in use on average; None when nobody looked."""
    used = [share for _, share in cpu_over_time(looks, name)]
    return round(sum(used) / len(used), 3) if used else None


def database_growth(looks: Sequence[Look], payments: int) -> int | None:
    """By how many bytes the database grew for a million payments; None when nobody looked, or for fewer than 1."""
    sizes = [look.database_bytes for look in looks if look.database_bytes]
    if len(sizes) < 2 or not payments:
        return None
    return round((sizes[-1] - sizes[0]) * 1_000_000 / payments)
