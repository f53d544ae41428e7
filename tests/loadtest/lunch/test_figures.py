"""The figures, the objectives and the metrics of a store day, from literal data."""

from typing import Any

import pytest

from loadtest.lunch.figures import answered_s, batch_sizes, cores, database_growth, figures_of, server_figures
from loadtest.lunch.objectives import objectives_of
from loadtest.lunch.watch import Observation
from loadtest.shared.metrics import increase, parse_metrics, quantile, total

RECORD: dict[str, Any] = {
    "start_s": 100.0,
    "end_s": 112.0,
    "day_s": 10.0,
    "books": {"payments": 3, "wallets": 2, "problems": 0, "first": []},
    "flows": {"approve": 2},
    "failures": {},
    "outcomes": [
        ["approved", None, 101.0],
        ["approved", None, 103.0],
        ["declined", "insufficient_funds", 105.0],
        ["unknown", None, 0.0],
    ],
    "latencies": {
        "scan → terminal": {"at_s": [101.0, 103.0], "us": [2000, 4000]},
        "resume → terminal": {"at_s": [105.0], "us": [9000]},
        "scan → wallet": {"at_s": [101.0], "us": [3000]},
    },
    "locust": {
        name: {"count": count, "failures": 0, "p50_ms": 2, "p99_ms": 4}
        for name, count in {"scan → terminal": 2, "resume → terminal": 1, "scan → wallet": 1}.items()
    },
}


def figures(**changes: Any) -> dict[str, Any]:
    return figures_of(RECORD, []) | {"audit": None} | changes


def verdicts(**changes: Any) -> list[bool]:
    objectives = objectives_of(figures(**changes), error_share_max=0.001, p99_ms_max=250, outside_ms_max=50)
    return [objective.is_met for objective in objectives]


def test_the_rush_is_counted_separately() -> None:
    assert answered_s(RECORD) == [101.0, 103.0, 105.0]
    day = figures()
    assert (day["payments"], day["payments_per_s"], day["payments_per_s_rush"]) == (
        4,
        0.25,
        0.36,
    )
    assert (day["scan_terminal_p50_ms"], day["scan_terminal_p99_ms"]) == (2.0, 4.001)
    assert day["outcomes"] == {"approved": 2, "declined insufficient_funds": 1, "unknown": 1}
    assert day["server_histograms"] is None
    assert day["engine_steps"] == {"count": 2, "p50_ms": 2.0, "p99_ms": 4.001}
    assert day["cpu_cores"] == {"server": None, "postgres": None, "locust": None}


def test_objectives_are_met_or_missed_one_by_one() -> None:
    assert verdicts() == [True, True, True]
    assert verdicts(audit="audit ok: 3 payments") == [True, True, True, True]
    assert verdicts(audit="pos-server audit failed:\nwallet 7") == [True, True, True, False]
    assert verdicts(steps=1000, failed_steps=1) == [True, True, True]
    assert verdicts(steps=1000, failed_steps=2) == [False, True, True]
    assert verdicts(scan_terminal_p99_ms=250.1) == [True, False, True]
    assert verdicts(books={"payments": 3, "wallets": 2, "problems": 1}) == [True, True, False]


@pytest.mark.parametrize(
    ("p50_ms", "p99_ms", "met"),
    [
        (5.6, 13.2, True),
        (2.5, 10.0, True),
        (55.0, 75.0, True),
        (2.4, 13.2, False),
        (55.1, 75.0, False),
        (5.6, 9.9, False),
        (5.6, 75.1, False),
    ],
)
def test_the_tills_and_the_server_agree_within_bounds(p50_ms: float, p99_ms: float, met: bool) -> None:
    server = {"pos_authorization_seconds": {"p50_bucket_ms": [2.5, 5.0], "p99_bucket_ms": [10.0, 25.0]}}
    steps = {"count": 1_000, "p50_ms": p50_ms, "p99_ms": p99_ms}
    assert verdicts(engine_steps=steps, server_histograms=server) == [True, True, True, met]


def test_few_steps_are_not_compared_and_missing_server_counts_do_not_agree() -> None:
    server = {"pos_authorization_seconds": {"p50_bucket_ms": None, "p99_bucket_ms": None}}
    steps = {"count": 999, "p50_ms": 5.6, "p99_ms": 13.2}
    assert verdicts(engine_steps=steps, server_histograms=server) == [True, True, True]
    assert verdicts(engine_steps=steps | {"count": 1_000}, server_histograms=server) == [True, True, True, False]


def test_a_run_without_payments_meets_no_objective() -> None:
    no_payments = {"payments": 0, "wallets": 2, "problems": 0}
    assert verdicts(steps=0, scan_terminal_p99_ms=None, books=no_payments) == [False, False, False]


def observation(at_s: float, pid: int, cpu_s: float, metrics: str = "", database_bytes: int = 0) -> Observation:
    return Observation(at_s, pid, {"server": cpu_s}, {}, database_bytes, parse_metrics(metrics) if metrics else None)


def test_cores_are_counted_within_one_process() -> None:
    observations = [observation(1, 7, 1.0), observation(2, 7, 1.5), observation(3, 8, 0.1), observation(5, 8, 1.1)]
    assert cores(observations, "server") == 0.5
    assert cores(observations, "postgres") is None


def test_database_growth_is_per_payment() -> None:
    assert database_growth([observation(1, 7, 0, "", 1000), observation(2, 7, 0, "", 3000)], payments=4) == 500_000_000
    assert database_growth([observation(1, 7, 0, "", 1000)], payments=4) is None


def exposition(small: int, large: int, batches: int, operations: int) -> str:
    return f"""\
# TYPE pos_authorization_seconds histogram
pos_authorization_seconds_bucket{{le="0.01"}} {small}
pos_authorization_seconds_bucket{{le="0.02"}} {large}
pos_authorization_seconds_bucket{{le="+Inf"}} {large}
pos_authorization_seconds_count {large}
pos_authorization_seconds_sum 1
# TYPE pos_batch_operations histogram
pos_batch_operations_bucket{{le="+Inf"}} {batches}
pos_batch_operations_count {batches}
pos_batch_operations_sum {operations}
# TYPE pos_payments counter
pos_payments_total{{outcome="approved",decline_code=""}} 5
pos_payments_total{{outcome="declined",decline_code="code_used"}} 2
"""


def test_metrics_are_read_by_name_and_label() -> None:
    metrics = parse_metrics(exposition(1, 2, 1, 4))
    assert total(metrics, "pos_payments_total") == 7
    assert total(metrics, "pos_payments_total", outcome="declined") == 2
    assert total(metrics, "pos_nothing_total") == 0


def test_the_increase_of_a_counter_survives_its_reset() -> None:
    assert increase([10, 15, 3, 4]) == 9


def test_the_infinite_bucket_has_only_a_lower_bound() -> None:
    slow = exposition(0, 0, 1, 1).replace('seconds_bucket{le="+Inf"} 0', 'seconds_bucket{le="+Inf"} 9')
    histograms = server_figures([observation(1, 7, 0, exposition(0, 0, 1, 1)), observation(2, 7, 0, slow)])
    assert histograms is not None
    assert histograms["pos_authorization_seconds"]["p99_bucket_ms"] == [20.0, None]
    for p99_ms, met in ((1_000.0, True), (19.9, False)):
        steps = {"count": 1_000, "p50_ms": p99_ms, "p99_ms": p99_ms}
        assert verdicts(engine_steps=steps, server_histograms=histograms) == [True, True, True, met]


def test_quantiles_lie_in_their_bucket() -> None:
    assert quantile([1.0, 2.0, float("inf")], [50, 100, 100], 0.75) == 1.5
    assert quantile([1.0, 2.0, float("inf")], [0, 0, 10], 0.5) == 2.0
    assert quantile([1.0], [0], 0.5) is None


def test_the_server_histogram_covers_the_observed_time_only() -> None:
    observations = [
        observation(1, 7, 0, exposition(1000, 1000, 5, 5)),
        observation(2, 7, 0, exposition(1050, 1100, 15, 45)),
    ]
    histograms = server_figures(observations)
    assert histograms is not None
    assert histograms["pos_authorization_seconds"] == {
        **{"p50_ms": 10.0, "p50_bucket_ms": [0.0, 10.0]},
        **{"p99_ms": 19.8, "p99_bucket_ms": [10.0, 20.0]},
    }
    assert batch_sizes(observations) == [(2, 4.0)]
    assert server_figures([observation(1, 7, 0)]) is None
