"""Tests of the check that `test_queries.py` relies on."""

import pytest

from tests.monitoring.promql import Series, UnknownName, result_labels, series_of

EXPOSITION = """\
# TYPE n_total counter
n_total{code="busy"} 1
n_total{code="unknown_outcome"} 0
# TYPE queue gauge
queue 3
# TYPE t_seconds histogram
t_seconds_bucket{stage="load",le="0.1"} 1
t_seconds_bucket{stage="load",le="+Inf"} 2
t_seconds_count{stage="load"} 2
t_seconds_sum{stage="load"} 1.5
"""
TARGET = {"job", "instance"}


@pytest.fixture
def series() -> Series:
    return series_of(EXPOSITION, {"job": "pos-server", "instance": "one"})


@pytest.mark.parametrize(
    ("query", "labels"),
    [
        ("queue", TARGET),
        ('up{job="pos-server"} == 0 or absent(up{job="pos-server"})', TARGET),
        ('rate(n_total{code="busy"}[1m])', TARGET | {"code"}),
        ('sum by (code) (increase(n_total{code=~"busy|unknown_outcome"}[10m])) > 5', {"code"}),
        ("sum without (instance) (n_total)", {"job", "code"}),
        ("(sum(queue) or vector(0)) == 0", set()),
        ('n_total{code!="busy"} / on (job) queue{job=~"pos-.*"}', TARGET | {"code"}),
        ("t_seconds_sum / t_seconds_count", TARGET | {"stage"}),
        ("histogram_quantile(0.9, sum by (stage, le) (rate(t_seconds_bucket[1m])))", {"stage"}),
    ],
)
def test_names_that_exist_and_the_labels_of_the_result(series: Series, query: str, labels: set[str]) -> None:
    assert result_labels(query, series) == labels


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("m_total", "no metric m_total"),
        ("t_seconds", "no metric t_seconds"),
        ("sum(rate(t_seconds_buckets[1m]))", "no metric t_seconds_buckets"),
        ('n_total{cod="busy"}', "no label cod"),
        ('n_total{code="late"}', 'no n_total with code "late"'),
        ('n_total{code!="late"}', 'no n_total with code "late"'),
        ('n_total{code=~"busy|late"}', r'no n_total with code "busy\|late"'),
        ('n_total{code=~"bus"}', 'no n_total with code "bus"'),
        ('queue{job="pos"}', 'no queue with job "pos"'),
        ('t_seconds_bucket{le="0.2"}', 'no t_seconds_bucket with le "0.2"'),
        ("sum by (cod) (n_total)", "no label cod"),
        ("sum without (cod) (n_total)", "no label cod"),
        ("sum by (code) (sum(n_total))", "no label code"),
        ("n_total / on (code) queue", "no label code"),
        ("n_total / queue", "no label code"),
        ("sum by (stage) (t_seconds_sum) / sum(t_seconds_count)", "no label stage"),
        ("histogram_quantile(0.9, sum(t_seconds_bucket))", "no label le"),
    ],
)
def test_a_name_that_does_not_exist_is_an_error(series: Series, query: str, problem: str) -> None:
    with pytest.raises(UnknownName, match=problem):
        result_labels(query, series)


@pytest.mark.parametrize(
    ("query", "error"), [("sum(", ValueError), ("no_such_function(queue)", ValueError), ("-queue", NotImplementedError)]
)
def test_a_query_that_cannot_be_read_is_an_error(series: Series, query: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        result_labels(query, series)
