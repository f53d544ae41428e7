"""The report of the bench: one self-contained HTML file with plots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from hdrh.histogram import HdrHistogram
from matplotlib.figure import Figure

from loadtest.shared.html_report import STYLE, svg

_PERCENTILES = (0, 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99)
_SLOT_S = 0.5


@dataclass(frozen=True, slots=True)
class Curve:
    """Latencies in microseconds, with a label."""

    name: str
    latencies: HdrHistogram


@dataclass(frozen=True, slots=True)
class Target:
    """The required value (`must`) and the goal (`aim`) of a figure."""

    meaning: str
    must: float
    aim: float
    more_is_better: bool

    def met(self, value: float) -> bool:
        """Return whether the figure reaches the required value."""
        return value >= self.must if self.more_is_better else value <= self.must


TARGETS = {
    "ratio_pgbench": Target("payments/s relative to pgbench's transactions/s", 1.5, 3.0, more_is_better=True),
    "p99_ratio": Target(
        "p99 until both sides are notified, relative to pgbench at the same rate", 3.0, 1.5, more_is_better=False
    ),
    "cpu_ratio": Target("CPU per payment relative to a pgbench transaction", 0.6, 0.35, more_is_better=False),
    "hot_merchant_ratio": Target("one hot merchant relative to several", 0.95, 1.0, more_is_better=True),
    "large_ratio": Target("a million wallets and payments relative to a small ledger", 0.85, 0.95, more_is_better=True),
    "answered_share": Target("share answered at twice the ceiling", 1.0, 1.0, more_is_better=True),
    "goodput_ratio": Target("decided at twice the ceiling, relative to the ceiling", 0.8, 0.95, more_is_better=True),
    "alone_ratio": Target("a lone payment relative to a lone pgbench transaction", 3.0, 2.0, more_is_better=False),
}


def write_report(
    path: Path, figures: Mapping[str, Any], curves: Sequence[Curve], timelines: Mapping[str, Sequence[int]]
) -> None:
    """Write the report: targets, plots, then all figures."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>pos-server bench</title>",
        f"<style>{STYLE}</style><h1>pos-server bench</h1>",
        "<h2>Targets</h2><table><tr><th>figure<th>measured<th>must<th>aim<th></tr>",
        *(_target_row(name, target, figures[name]) for name, target in TARGETS.items() if name in figures),
        "</table>",
    ]
    if curves:
        parts += ["<h2>Latency by percentile</h2>", _percentiles_plot(curves)]
    if timelines:
        parts += ["<h2>Answers per second over time</h2>", _timelines_plot(timelines)]
    parts += ["<h2>All figures</h2><table>", *(_row(name, value) for name, value in figures.items()), "</table>"]
    path.write_text("\n".join(parts) + "\n", "utf-8")


def _target_row(name: str, target: Target, value: float) -> str:
    verdict = "<td class=met>met" if target.met(value) else "<td class=missed>missed"
    numbers = "".join(f"<td class=number>{number:g}" for number in (value, target.must, target.aim))
    return f"<tr><td>{escape(target.meaning)} (<code>{name}</code>){numbers}{verdict}</tr>"


def _row(name: str, value: object) -> str:
    return f"<tr><td><code>{escape(name)}</code><td class=number>{escape(str(value))}</tr>"


def _percentiles_plot(curves: Sequence[Curve]) -> str:
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for curve in curves:
        values_ms = [max(0.001, curve.latencies.get_value_at_percentile(percent) / 1000) for percent in _PERCENTILES]
        axes.plot(range(len(_PERCENTILES)), values_ms, marker="o", markersize=3, label=curve.name)
    axes.set_xticks(range(len(_PERCENTILES)), [f"{percent:g}" for percent in _PERCENTILES])
    axes.set_yscale("log")
    axes.set_xlabel("percentile")
    axes.set_ylabel("ms from the intended time until till and wallet are notified")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    return svg(figure)


def _timelines_plot(timelines: Mapping[str, Sequence[int]]) -> str:
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    axes = figure.subplots()
    for name, counts in timelines.items():
        axes.plot([slot * _SLOT_S for slot in range(len(counts))], [n / _SLOT_S for n in counts], label=name)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds")
    axes.set_ylabel("answers per second")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    return svg(figure)
