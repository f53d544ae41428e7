"""The figures of `loadtest.books`, from literal phases and records."""

from loadtest.books.figures import Phase, percentile_ms, row_of, summary

JOBS = ["audit", "settle"]

PHASES = [
    Phase("", 0, 10),
    Phase("audit", 10, 20, [6.0, 4.0]),
    Phase("", 20, 30),
    Phase("audit", 30, 40, [8.0]),
    Phase("", 40, 50),
]


def record(intended_s: float, result_s: float | None, outcome: str = "approved") -> list[object]:
    push_s = None if outcome != "approved" else result_s
    return [intended_s, 0.001, result_s, push_s, outcome]


RECORDS = [
    record(1, 0.010),
    record(11, 0.030),
    record(19.999, 0.020),
    record(20, 0.020),
    record(31, 0.040),
    record(32, 1.5, "busy"),
    record(33, None, ""),
    record(41, 0.010),
    record(60, 0.500),
]


def test_a_job_is_compared_with_the_quiet_phases_next_to_it() -> None:
    row = row_of("audit", PHASES, RECORDS)
    assert (row.runs, row.seconds, row.offered) == (3, 7.0, 5)
    assert (row.p50_ms, row.p99_ms, row.max_ms, row.push_p99_ms) == (30.0, 35.0, 40.0, 35.0)
    assert (row.quiet_p99_ms, row.lag_p99_ms) == (20.0, 1.0)
    assert row.ratio == 1.75, "the median of 30 / 20 and 40 / 20"
    assert row.answered_share == 0.6


def test_refused_and_unanswered_payments_are_counted() -> None:
    figures = summary(JOBS, [*PHASES[:1], *(Phase(job, 10, 20, [1.0]) for job in JOBS), PHASES[2]], RECORDS)
    assert (figures["offered"], figures["approved"], figures["unanswered"]) == (9, 7, 1)
    assert (figures["other_outcomes"], figures["late"], figures["wallets_not_notified"]) == ({"busy": 1}, 1, 0)


def test_percentiles_are_nearest_rank() -> None:
    assert percentile_ms([0.001, 0.002, 0.003, 0.004], 50) == 2.0
    assert percentile_ms([0.001, 0.002, 0.003, 0.004], 99) == 4.0
