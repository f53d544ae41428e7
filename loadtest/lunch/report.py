"""The report of a store day: one HTML file that needs nothing else, with its plots inside."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest.lunch.figures import answered_s, batch_sizes, cpu_over_time
from loadtest.lunch.objectives import Objective
from loadtest.lunch.watch import Look
from loadtest.shared.histogram import nearest_rank
from loadtest.shared.html_report import STYLE, svg

_SLOTS = 60
_PERCENTS = (50, 95, 99)
_NO_METRICS = "<p>no metrics: the server has no <code>/metrics</code>, or it could not be read.</p>"


def write_report(
    path: Path,
    figures: Mapping[str, Any],
    objectives: Sequence[Objective],
    record: Mapping[str, Any],
    looks: Sequence[Look],
) -> None:
    """Write it."""
    began_s = record["began_s"]
    day = [look for look in looks if began_s <= look.at_s <= record["ended_s"]]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>pos-server: the store at lunchtime</title>",
        f"<style>{STYLE}</style><h1>The store at lunchtime</h1>",
        f"<p>{figures['stores']} stores, {figures['tills']} tills, {figures['wallets']} wallets,"
        f" {figures['minutes']:g} minutes, people at {figures['speed']:g} times their speed.</p>",
        "<h2>Objectives</h2>",
        _objectives_table(objectives),
        "<h2>Payments a second</h2>",
        _throughput_plot(record),
        *(f"<h2>{name}</h2>{_latency_plot(record, name)}" for name in ("scan → terminal", "scan → wallet")),
        "<h2>Steps</h2>",
        _steps_table(figures),
        "<h2>Declines by code</h2>",
        _declines_plot(record),
        "<h2>Operations in a batch</h2>",
        _batches_plot(day, began_s),
        "<h2>CPU and memory</h2>",
        _machine_plot(day, began_s),
        "<h2>All figures</h2><table>",
        *(_row(name, value) for name, value in figures.items() if name not in ("by_step", "failures")),
        "</table>",
    ]
    path.write_text("\n".join(parts) + "\n", "utf-8")


def _objectives_table(objectives: Sequence[Objective]) -> str:
    rows = [
        f"<tr><td>{escape(objective.meaning)}<td>{escape(objective.measured)}"
        + ("<td class=met>met" if objective.is_met else "<td class=missed>missed")
        for objective in objectives
    ]
    return "\n".join(["<table><tr><th>objective<th>measured<th>", *rows, "</table>"])


def _steps_table(figures: Mapping[str, Any]) -> str:
    """Ours beside locust's, and the server's own below, where it tells."""
    names = ("count", "failures", "p50_ms", "p95_ms", "p99_ms", "max_ms", "locust_p50_ms", "locust_p99_ms")
    heads = ("step", "count", "failed", "p50 ms", "p95 ms", "p99 ms", "max ms", "locust p50", "locust p99")
    lines = ["<table><tr>" + "".join(f"<th>{head}" for head in heads)]
    for step, values in sorted(figures["by_step"].items()):
        lines.append(f"<tr><td>{escape(step)}" + "".join(f"<td class=number>{_number(values[name])}" for name in names))
    for name, values in (figures["server_histograms"] or {}).items():
        cells = ("", "", values["p50_ms"], "", values["p99_ms"], "", "", "")
        lines.append(f"<tr><td><code>{name}</code>" + "".join(f"<td class=number>{_number(cell)}" for cell in cells))
    lines.append("</table>")
    failures = "".join(f"<tr><td>{escape(text)}<td class=number>{n}" for text, n in figures["failures"].items())
    if failures:
        lines.append(f"<h3>Failures</h3><table>{failures}</table>")
    return "\n".join(lines) + ("" if figures["server_histograms"] else _NO_METRICS)


def _number(value: object) -> str:
    return "" if value is None else f"{value:.2f}" if isinstance(value, float) else escape(str(value))


def _row(name: str, value: object) -> str:
    return f"<tr><td><code>{escape(name)}</code><td>{escape(str(value))}</tr>"


def slot_s(record: Mapping[str, Any]) -> float:
    """How long a slot of a plot is: whole seconds, so that a run has at most so many slots."""
    return float(max(1, math.ceil((record["ended_s"] - record["began_s"]) / _SLOTS)))


def slotted(times_s: Sequence[float], values: Sequence[float], began_s: float, each_s: float) -> dict[int, list[float]]:
    """The values by the number of their slot since the beginning."""
    slots: dict[int, list[float]] = {}
    for at_s, value in zip(times_s, values, strict=True):
        slots.setdefault(int((at_s - began_s) // each_s), []).append(value)
    return slots


def _throughput_plot(record: Mapping[str, Any]) -> str:
    each_s, began_s = slot_s(record), record["began_s"]
    answers = answered_s(record)
    counts = Counter(int((at_s - began_s) // each_s) for at_s in answers)
    figure, axes = _plot("payments/s")
    # The last slot is not over.
    slots = range(int((record["ended_s"] - began_s) // each_s))
    axes.step([slot * each_s for slot in slots], [counts[slot] / each_s for slot in slots], where="post")
    return svg(figure)


def _latency_plot(record: Mapping[str, Any], name: str) -> str:
    kept = record["latencies"].get(name)
    if kept is None:
        return "<p>None.</p>"
    each_s = slot_s(record)
    slots = sorted(slotted(kept["at_s"], kept["us"], record["began_s"], each_s).items())
    figure, axes = _plot("ms")
    for percent in _PERCENTS:
        values = [nearest_rank(values, percent) / 1000 for _, values in slots]
        axes.plot([(slot + 0.5) * each_s for slot, _ in slots], values, marker=".", label=f"p{percent}")
    axes.set_yscale("log")
    axes.legend()
    return svg(figure)


def _declines_plot(record: Mapping[str, Any]) -> str:
    codes = Counter(code for _, code, _ in record["outcomes"] if code)
    if not codes:
        return "<p>None.</p>"
    figure = Figure(figsize=(9, 0.8 + 0.4 * len(codes)), layout="constrained")
    axes = figure.subplots()
    names, counts = zip(*codes.most_common(), strict=True)
    axes.bar_label(axes.barh(names, counts), padding=3)
    axes.invert_yaxis()
    axes.set_xlabel("payments")
    return svg(figure)


def _batches_plot(looks: Sequence[Look], began_s: float) -> str:
    sizes = batch_sizes(looks)
    if not sizes:
        return _NO_METRICS
    figure, axes = _plot("operations, on average")
    axes.plot([at_s - began_s for at_s, _ in sizes], [size for _, size in sizes])
    axes.set_ylim(bottom=0)
    return svg(figure)


def _machine_plot(looks: Sequence[Look], began_s: float) -> str:
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    for name in ("server", "postgres", "locust"):
        used = cpu_over_time(looks, name)
        if used:
            above.plot([at_s - began_s for at_s, _ in used], [share for _, share in used], label=name)
        held = [(look.at_s, look.memory_mib[name]) for look in looks if name in look.memory_mib]
        if held:
            below.plot([at_s - began_s for at_s, _ in held], [mib for _, mib in held], label=name)
    for axes, unit in ((above, "cores"), (below, "MiB")):
        axes.set_ylabel(unit)
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
    below.set_xlabel("seconds")
    return svg(figure)


def _plot(unit: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel("seconds")
    axes.set_ylabel(unit)
    axes.grid(visible=True, alpha=0.3)
    return figure, axes
