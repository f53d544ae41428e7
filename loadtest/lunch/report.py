"""The report of a store day: one self-contained HTML file with plots."""

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
from loadtest.lunch.watch import Observation
from loadtest.shared.histogram import nearest_rank
from loadtest.shared.html_report import STYLE, svg

_SLOTS_MAX = 60
_PERCENTS = (50, 95, 99)
_NO_METRICS = "<p>No metrics: the server's <code>/metrics</code> could not be read.</p>"


def write_report(
    path: Path,
    figures: Mapping[str, Any],
    objectives: Sequence[Objective],
    record: Mapping[str, Any],
    observations: Sequence[Observation],
) -> None:
    """Write the report: objectives, plots, tables, then all figures."""
    start_s = record["start_s"]
    in_day = [observation for observation in observations if start_s <= observation.at_s <= record["end_s"]]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>pos-server: the store at lunchtime</title>",
        f"<style>{STYLE}</style><h1>The store at lunchtime</h1>",
        f"<p>{figures['stores']} stores, {figures['tills']} tills, {figures['wallets']} wallets,"
        f" {figures['minutes']:g} minutes, speed of people {figures['speed']:g}.</p>",
        "<h2>Objectives</h2>",
        _objectives_table(objectives),
        "<h2>Payments per second</h2>",
        _throughput_plot(record),
        *(f"<h2>{name}</h2>{_latency_plot(record, name)}" for name in ("scan → terminal", "scan → wallet")),
        "<h2>Steps</h2>",
        _steps_table(figures),
        "<h2>Declines by code</h2>",
        _declines_plot(record),
        "<h2>Operations per batch</h2>",
        _batches_plot(in_day, start_s),
        "<h2>CPU and memory</h2>",
        _machine_plot(in_day, start_s),
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
    """Return a table of exact figures and locust's, with the server's own histograms below, if available."""
    names = ("count", "failures", "p50_ms", "p95_ms", "p99_ms", "max_ms", "locust_p50_ms", "locust_p99_ms")
    headings = ("step", "count", "failed", "p50 ms", "p95 ms", "p99 ms", "max ms", "locust p50", "locust p99")
    lines = ["<table><tr>" + "".join(f"<th>{heading}" for heading in headings)]
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
    """Return the length of a plot's slot in whole seconds, such that a run has at most _SLOTS_MAX slots."""
    return float(max(1, math.ceil((record["end_s"] - record["start_s"]) / _SLOTS_MAX)))


def values_by_slot(
    times_s: Sequence[float], values: Sequence[float], start_s: float, length_s: float
) -> dict[int, list[float]]:
    """Group the values by the number of their slot since the start."""
    slots: dict[int, list[float]] = {}
    for at_s, value in zip(times_s, values, strict=True):
        slots.setdefault(int((at_s - start_s) // length_s), []).append(value)
    return slots


def _throughput_plot(record: Mapping[str, Any]) -> str:
    length_s, start_s = slot_s(record), record["start_s"]
    answers = answered_s(record)
    counts = Counter(int((at_s - start_s) // length_s) for at_s in answers)
    figure, axes = _plot("payments/s")
    # The last slot is incomplete.
    slots = range(int((record["end_s"] - start_s) // length_s))
    axes.step([slot * length_s for slot in slots], [counts[slot] / length_s for slot in slots], where="post")
    return svg(figure)


def _latency_plot(record: Mapping[str, Any], name: str) -> str:
    latencies = record["latencies"].get(name)
    if latencies is None:
        return "<p>None.</p>"
    length_s = slot_s(record)
    slots = sorted(values_by_slot(latencies["at_s"], latencies["us"], record["start_s"], length_s).items())
    figure, axes = _plot("ms")
    for percent in _PERCENTS:
        values = [nearest_rank(values, percent) / 1000 for _, values in slots]
        axes.plot([(slot + 0.5) * length_s for slot, _ in slots], values, marker=".", label=f"p{percent}")
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


def _batches_plot(observations: Sequence[Observation], start_s: float) -> str:
    sizes = batch_sizes(observations)
    if not sizes:
        return _NO_METRICS
    figure, axes = _plot("operations (average)")
    axes.plot([at_s - start_s for at_s, _ in sizes], [size for _, size in sizes])
    axes.set_ylim(bottom=0)
    return svg(figure)


def _machine_plot(observations: Sequence[Observation], start_s: float) -> str:
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    cpu_axes, memory_axes = figure.subplots(2, sharex=True)
    for name in ("server", "postgres", "locust"):
        cpu = cpu_over_time(observations, name)
        if cpu:
            cpu_axes.plot([at_s - start_s for at_s, _ in cpu], [cores for _, cores in cpu], label=name)
        memory = [(each.at_s, each.memory_mib[name]) for each in observations if name in each.memory_mib]
        if memory:
            memory_axes.plot([at_s - start_s for at_s, _ in memory], [mib for _, mib in memory], label=name)
    for axes, unit in ((cpu_axes, "cores"), (memory_axes, "MiB")):
        axes.set_ylabel(unit)
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
    memory_axes.set_xlabel("seconds")
    return svg(figure)


def _plot(unit: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel("seconds")
    axes.set_ylabel(unit)
    axes.grid(visible=True, alpha=0.3)
    return figure, axes
