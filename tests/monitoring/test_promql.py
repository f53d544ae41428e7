"""The evaluator that the other tests here rely on."""

import math

import pytest

from tests.monitoring.promql import Samples, UnknownSeries, evaluate


@pytest.fixture
def samples() -> Samples:
    samples = Samples()
    for le, first, last in (("0.1", 0, 50), ("1.0", 0, 90), ("+Inf", 0, 100)):
        for time_s, value in ((0, first), (10, last)):
            samples.add("t_bucket", {"le": le}, time_s, value)
    for code, last in (("a", 20), ("b", 60)):
        samples.add("n_total", {"code": code}, 0, 10)
        samples.add("n_total", {"code": code}, 10, last)
    samples.add("up", {"job": "x"}, 10, 0)
    return samples


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ('rate(n_total{code="a"}[1m])', 1.0),
        ('increase(n_total{code="b"}[1m])', 50.0),
        ("sum(rate(n_total[1m])) / 2", 3.0),
        ("max(n_total)", 60.0),
        ("histogram_quantile(0.25, sum by (le) (rate(t_bucket[1m])))", 0.05),
        ("histogram_quantile(0.7, t_bucket)", 0.1 + 0.9 * 20 / 40),
        ("histogram_quantile(0.99, t_bucket)", 1.0),
        ("min_over_time(n_total{code=~'b|c'}[1m]) > 5", 10.0),
        ('up{job="x"} == 0', 0.0),
        ("sum(n_total > 100) or vector(0)", 0.0),
    ],
)
def test_a_query_with_one_result(samples: Samples, query: str, value: float) -> None:
    result = evaluate(query, samples)
    assert isinstance(result, dict)
    assert list(result.values()) == [pytest.approx(value)]


def test_what_does_not_hold_and_what_is_not_absent_is_empty(samples: Samples) -> None:
    assert evaluate("n_total > 100", samples) == {}
    assert evaluate('absent(up{job="x"})', samples) == {}


def test_nothing_by_nothing_is_no_number(samples: Samples) -> None:
    (value,) = evaluate("sum(up) / sum(up)", samples).values()  # type: ignore[union-attr]
    assert math.isnan(value)


@pytest.mark.parametrize(
    "query", ["m_total", 'n_total{code="c"}', 'n_total{cod="a"}', "sum by (cod) (n_total)", "histogram_quantile(1, up)"]
)
def test_a_name_that_is_not_there_is_an_error(samples: Samples, query: str) -> None:
    with pytest.raises(UnknownSeries):
        evaluate(query, samples)


@pytest.mark.parametrize("query", ["deriv(n_total[1m])", "n_total offset 5m - 1", 'n_total{code!="a"}'])
def test_what_is_not_known_is_an_error(samples: Samples, query: str) -> None:
    with pytest.raises((NotImplementedError, KeyError)):
        evaluate(query, samples)
