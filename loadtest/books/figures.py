"""The figures of `loadtest.books`, from its phases and the records of the payments."""

import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from loadtest.shared.histogram import nearest_rank

LATE_S = 1.0


@dataclass(slots=True)
class Phase:
    """A phase from `start_s` to `end_s` (monotonic), with the duration of each run. `job` is "" for a quiet phase."""

    job: str
    start_s: float
    end_s: float = math.inf
    runs_s: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PhasePayments:
    """The payments intended during a phase. Latencies are in seconds, ascending, of the approved payments."""

    offered: int
    latencies_s: list[float]
    pushes_s: list[float]
    lags_s: list[float]

    @classmethod
    def of(cls, records: list[list[Any]], phases: list[Phase]) -> "PhasePayments":
        selection = [record for record in records if any(phase.start_s <= record[0] < phase.end_s for phase in phases)]
        approved = [record for record in selection if record[4] == "approved"]
        pushes_s = sorted(record[3] for record in approved if record[3] is not None)
        lags_s = sorted(record[1] for record in selection)
        return cls(len(selection), sorted(record[2] for record in approved), pushes_s, lags_s)


def percentile_ms(ordered_s: list[float], percent: float) -> float:
    """Return the nearest-rank percentile in milliseconds, NaN for no values."""
    return round(nearest_rank(ordered_s, percent) * 1000, 2) if ordered_s else math.nan


@dataclass(frozen=True, slots=True)
class Row:
    """A job's figures: medians over the rounds, except `max_ms` and the counts. `seconds` is of the first runs.

    `quiet_p99_ms` is of the quiet phases next to the job's. `lag_p99_ms` is the delay of the generator's sends.
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
    indexes = [index for index, phase in enumerate(phases) if phase.job == job]
    rounds = [PhasePayments.of(records, [phases[index]]) for index in indexes]
    quiet_rounds = [PhasePayments.of(records, [phases[index - 1], phases[index + 1]]) for index in indexes]
    p99_ms = [percentile_ms(payments.latencies_s, 99) for payments in rounds]
    quiet_p99_ms = [percentile_ms(payments.latencies_s, 99) for payments in quiet_rounds]
    offered = sum(payments.offered for payments in rounds)
    approved = sum(len(payments.latencies_s) for payments in rounds)
    return Row(
        job=job,
        runs=sum(len(phases[index].runs_s) for index in indexes),
        seconds=round(median(phases[index].runs_s[0] for index in indexes), 2),
        offered=offered,
        p50_ms=round(median(percentile_ms(payments.latencies_s, 50) for payments in rounds), 2),
        p99_ms=round(median(p99_ms), 2),
        max_ms=max(percentile_ms(payments.latencies_s, 100) for payments in rounds),
        push_p99_ms=round(median(percentile_ms(payments.pushes_s, 99) for payments in rounds), 2),
        lag_p99_ms=round(median(percentile_ms(payments.lags_s, 99) for payments in rounds), 2),
        quiet_p99_ms=round(median(quiet_p99_ms), 2),
        ratio=round(median(busy / quiet for busy, quiet in zip(p99_ms, quiet_p99_ms, strict=True)), 2),
        answered_share=round(approved / offered, 6) if offered else 0.0,
    )


def summary(jobs: list[str], phases: list[Phase], records: list[list[Any]]) -> dict[str, Any]:
    """Return all figures. Those of the whole run count every payment, including the warm-up."""
    outcomes = Counter(record[4] for record in records)
    return {
        "jobs": [asdict(row_of(job, phases, records)) for job in jobs],
        "offered": len(records),
        "approved": outcomes.pop("approved", 0),
        "unanswered": outcomes.pop("", 0),
        "other_outcomes": dict(outcomes),
        "late": sum(record[2] is not None and record[2] > LATE_S for record in records),
        "wallets_not_notified": sum(record[4] == "approved" and record[3] is None for record in records),
    }


def table(figures: dict[str, Any]) -> str:
    """Format the figures for people. Milliseconds are from the intended time to the result at the till."""
    lines = ["job          runs       s   p50 ms   p99 ms   max ms  quiet p99 ms  ratio  answered"]
    lines += [
        f"{row['job']:<12} {row['runs']:>4} {row['seconds']:>7.2f} {row['p50_ms']:>8.2f} {row['p99_ms']:>8.2f} "
        f"{row['max_ms']:>8.2f} {row['quiet_p99_ms']:>13.2f} {row['ratio']:>6.2f} {row['answered_share']:>9.4%}"
        for row in figures["jobs"]
    ]
    lines.append(
        f"{figures['offered']} offered, {figures['approved']} approved, {figures['unanswered']} unanswered, "
        f"{figures['late']} later than {LATE_S:g} s, others: {figures['other_outcomes'] or 'none'}, "
        f"{figures['wallets_not_notified']} wallets not notified"
    )
    return "\n".join(lines)
