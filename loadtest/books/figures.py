"""The figures of `loadtest.books`, from its phases and from what became of each payment."""

import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from loadtest.shared.histogram import nearest_rank

LATE_S = 1.0


@dataclass(slots=True)
class Phase:
    """From when to when (monotonic seconds), and how long each run of the job took; `job` is "" for a quiet one."""

    job: str
    start_s: float
    end_s: float = math.inf
    runs_s: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Answers:
    """Payments whose intended time lies in a phase. Latencies in seconds, ascending; of the approved ones."""

    offered: int
    latencies_s: list[float]
    pushes_s: list[float]
    lags_s: list[float]

    @classmethod
    def of(cls, records: list[list[Any]], phases: list[Phase]) -> "Answers":
        mine = [record for record in records if any(phase.start_s <= record[0] < phase.end_s for phase in phases)]
        approved = [record for record in mine if record[4] == "approved"]
        pushes_s = sorted(record[3] for record in approved if record[3] is not None)
        lags_s = sorted(record[1] for record in mine)
        return cls(len(mine), sorted(record[2] for record in approved), pushes_s, lags_s)


def percentile_ms(ordered_s: list[float], percent: float) -> float:
    """Nearest rank; NaN of nothing."""
    return round(nearest_rank(ordered_s, percent) * 1000, 2) if ordered_s else math.nan


@dataclass(frozen=True, slots=True)
class Row:
    """A job's figures. `seconds` is the median of the rounds' first runs; so are the percentiles and the ratio medians.

    `quiet_p99_ms` is of the quiet phases beside the job's; `lag_p99_ms` is how late the generator itself was.
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
    places = [place for place, phase in enumerate(phases) if phase.job == job]
    rounds = [Answers.of(records, [phases[place]]) for place in places]
    beside = [Answers.of(records, [phases[place - 1], phases[place + 1]]) for place in places]
    p99_ms = [percentile_ms(answers.latencies_s, 99) for answers in rounds]
    quiet_p99_ms = [percentile_ms(answers.latencies_s, 99) for answers in beside]
    offered = sum(answers.offered for answers in rounds)
    return Row(
        job=job,
        runs=sum(len(phases[place].runs_s) for place in places),
        seconds=round(median(phases[place].runs_s[0] for place in places), 2),
        offered=offered,
        p50_ms=round(median(percentile_ms(answers.latencies_s, 50) for answers in rounds), 2),
        p99_ms=round(median(p99_ms), 2),
        max_ms=max(percentile_ms(answers.latencies_s, 100) for answers in rounds),
        push_p99_ms=round(median(percentile_ms(answers.pushes_s, 99) for answers in rounds), 2),
        lag_p99_ms=round(median(percentile_ms(answers.lags_s, 99) for answers in rounds), 2),
        quiet_p99_ms=round(median(quiet_p99_ms), 2),
        ratio=round(median(busy / quiet for busy, quiet in zip(p99_ms, quiet_p99_ms, strict=True)), 2),
        answered_share=round(sum(len(answers.latencies_s) for answers in rounds) / offered, 6) if offered else 0.0,
    )


def summary(jobs: list[str], phases: list[Phase], records: list[list[Any]]) -> dict[str, Any]:
    """All figures; those of the whole run count every payment, the warm-up's too."""
    outcomes = Counter(record[4] for record in records)
    return {
        "jobs": [asdict(row_of(job, phases, records)) for job in jobs],
        "offered": len(records),
        "approved": outcomes.pop("approved", 0),
        "unanswered": outcomes.pop("", 0),
        "other_outcomes": dict(outcomes),
        "late": sum(record[2] is not None and record[2] > LATE_S for record in records),
        "wallets_not_told": sum(record[4] == "approved" and record[3] is None for record in records),
    }


def table(figures: dict[str, Any]) -> str:
    """The figures for a person; milliseconds are from the intended time to the result at the till."""
    lines = ["job          runs       s   p50 ms   p99 ms   max ms  quiet p99 ms  ratio  answered"]
    lines += [
        f"{row['job']:<12} {row['runs']:>4} {row['seconds']:>7.2f} {row['p50_ms']:>8.2f} {row['p99_ms']:>8.2f} "
        f"{row['max_ms']:>8.2f} {row['quiet_p99_ms']:>13.2f} {row['ratio']:>6.2f} {row['answered_share']:>9.4%}"
        for row in figures["jobs"]
    ]
    lines.append(
        f"{figures['offered']} offered, {figures['approved']} approved, {figures['unanswered']} unanswered, "
        f"{figures['late']} later than {LATE_S:g} s, others: {figures['other_outcomes'] or 'none'}, "
        f"{figures['wallets_not_told']} wallets not told"
    )
    return "\n".join(lines)
