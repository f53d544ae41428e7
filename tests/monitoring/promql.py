"""Evaluates the part of PromQL that our dashboard and alerts use, over samples in memory.

promql-parser reads the expression; what this file does not know is an error, so that a query cannot pass untried. Rates
are not extrapolated to the window's ends as Prometheus does it. The field's terms: prometheus.io/docs, "Querying".
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import promql_parser as pp

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]
Value = Vector | float

_OPERATORS: dict[str, Callable[[float, float], float]] = {
    "+": lambda a, b: a + b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b if b else (math.nan if a == 0 else math.copysign(math.inf, a)),
}
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {"==": lambda a, b: a == b, ">": lambda a, b: a > b}
_AGGREGATES: dict[str, Callable[[list[float]], float]] = {"sum": sum, "max": max, "count": len}


@dataclass(slots=True)
class Samples:
    """Samples (time in seconds, value) of each series, by the metric's name and its labels."""

    series: dict[str, dict[Labels, list[tuple[float, float]]]] = field(default_factory=dict)

    def add(self, name: str, labels: Mapping[str, str], time_s: float, value: float) -> None:
        self.series.setdefault(name, {}).setdefault(frozenset(labels.items()), []).append((time_s, value))


class UnknownSeries(Exception):
    """A query names a metric that is not there, or a label or a value of one that it never has."""


def evaluate(query: str, samples: Samples) -> Value:
    """What the query is at the last sample. Raises UnknownSeries, or NotImplementedError for what is not known here."""
    return _evaluate(pp.parse(query), samples)


def _evaluate(node: Any, samples: Samples) -> Value:
    match node:
        case pp.NumberLiteral():
            return float(node.val)
        case pp.ParenExpr():
            return _evaluate(node.expr, samples)
        case pp.VectorSelector():
            return {labels: points[-1][1] for labels, points in _select(node, samples).items()}
        case pp.Call():
            return _call(node, samples)
        case pp.AggregateExpr():
            return _aggregate(node, samples)
        case pp.BinaryExpr():
            return _binary(node, samples)
    raise NotImplementedError(type(node).__name__)


def _select(selector: Any, samples: Samples) -> dict[Labels, list[tuple[float, float]]]:
    found = samples.series.get(selector.name)
    if found is None:
        raise UnknownSeries(f"no metric {selector.name}")
    for matcher in selector.matchers.matchers:
        allowed = re.compile(matcher.value if matcher.op == pp.MatchOp.Re else re.escape(matcher.value))
        if matcher.op not in (pp.MatchOp.Equal, pp.MatchOp.Re):
            raise NotImplementedError(str(matcher.op))
        found = {
            labels: points for labels, points in found.items() if allowed.fullmatch(dict(labels).get(matcher.name, ""))
        }
        if not found:
            raise UnknownSeries(f'no {selector.name} with {matcher.name} "{matcher.value}"')
    return found


def _call(node: Any, samples: Samples) -> Value:
    name, arguments = node.func.name, list(node.args)
    if name in ("rate", "increase", "min_over_time"):
        ranges = _select(arguments[0].vector_selector, samples)
        points_min = 1 if name == "min_over_time" else 2
        return {labels: _over(name, points) for labels, points in ranges.items() if len(points) >= points_min}
    if name == "histogram_quantile":
        quantile, buckets = (_evaluate(argument, samples) for argument in arguments)
        assert isinstance(quantile, float)
        assert isinstance(buckets, dict)
        return _quantiles(quantile, buckets)
    if name == "vector":
        value = _evaluate(arguments[0], samples)
        assert isinstance(value, float)
        return {frozenset(): value}
    if name == "absent":
        return {} if _evaluate(arguments[0], samples) else {frozenset(): 1.0}
    raise NotImplementedError(name)


def _over(name: str, points: list[tuple[float, float]]) -> float:
    values = [value for _, value in points]
    if name == "min_over_time":
        return min(values)
    increase = sum(max(after - before, 0) for before, after in pairwise(values))
    return increase if name == "increase" else increase / (points[-1][0] - points[0][0])


def _quantiles(quantile: float, buckets: Vector) -> Vector:
    groups: dict[Labels, list[tuple[float, float]]] = {}
    for labels, count in buckets.items():
        bounds = [float(value) for name, value in labels if name == "le"]
        if len(bounds) != 1:
            raise UnknownSeries("histogram_quantile needs the label le")
        rest = frozenset(label for label in labels if label[0] != "le")
        groups.setdefault(rest, []).append((bounds[0], count))
    return {labels: _quantile(quantile, sorted(group)) for labels, group in groups.items()}


def _quantile(quantile: float, cumulative: list[tuple[float, float]]) -> float:
    rank = quantile * cumulative[-1][1]
    if not cumulative[-1][1]:
        return math.nan
    lower_bound, lower_count = 0.0, 0.0
    for bound, count in cumulative:
        if count >= rank:
            if math.isinf(bound):
                return lower_bound
            return lower_bound + (bound - lower_bound) * (rank - lower_count) / (count - lower_count)
        lower_bound, lower_count = bound, count
    raise AssertionError("the last bucket holds all")


def _aggregate(node: Any, samples: Samples) -> Vector:
    vector = _evaluate(node.expr, samples)
    assert isinstance(vector, dict)
    if node.modifier is not None and node.modifier.type != pp.AggModifierType.By:
        raise NotImplementedError("without")
    kept = set() if node.modifier is None else set(node.modifier.labels)
    groups: dict[Labels, list[float]] = {}
    for labels, value in vector.items():
        missing = kept - {name for name, _ in labels}
        if missing:
            raise UnknownSeries(f"aggregated by {missing}, which the series lack")
        groups.setdefault(frozenset(label for label in labels if label[0] in kept), []).append(value)
    return {labels: float(_AGGREGATES[str(node.op)](values)) for labels, values in groups.items()}


def _binary(node: Any, samples: Samples) -> Value:
    operator = str(node.op)
    left, right = _evaluate(node.lhs, samples), _evaluate(node.rhs, samples)
    if node.modifier is not None and node.modifier.matching is not None:
        raise NotImplementedError("on, ignoring")
    if operator == "or":
        assert isinstance(left, dict)
        assert isinstance(right, dict)
        return {**right, **left}
    if isinstance(left, float):
        raise NotImplementedError("a number on the left")
    pairs = {
        labels: (value, right if isinstance(right, float) else right[labels])
        for labels, value in left.items()
        if isinstance(right, float) or labels in right
    }
    if operator in _COMPARISONS:
        return {labels: a for labels, (a, b) in pairs.items() if _COMPARISONS[operator](a, b)}
    return {labels: _OPERATORS[operator](a, b) for labels, (a, b) in pairs.items()}
