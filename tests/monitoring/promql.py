"""Check a PromQL query against a scrape: every metric, label and label value that it names must exist there."""

import re
from typing import Any

import promql_parser as pp
from prometheus_client.parser import text_string_to_metric_families

Series = dict[str, list[dict[str, str]]]
"""The label sets of each sample name, such as `pos_push_seconds_bucket`."""


class UnknownName(Exception):
    """A query names a metric, a label or a label value that no series has."""


def series_of(exposition: str, target: dict[str, str]) -> Series:
    """Return the series of a scrape, with the labels and the `up` that Prometheus adds for the scraped `target`."""
    series: Series = {"up": [target]}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            series.setdefault(sample.name, []).append(sample.labels | target)
    return series


def result_labels(query: str, series: Series) -> set[str]:
    """Return the label names of the query's result. Raise `UnknownName`, or `ValueError` for a syntax error."""
    return _labels(pp.parse(query), series)


def _labels(node: Any, series: Series) -> set[str]:
    match node:
        case pp.NumberLiteral():
            return set()
        case pp.ParenExpr():
            return _labels(node.expr, series)
        case pp.MatrixSelector():
            return _selected(node.vector_selector, series)
        case pp.VectorSelector():
            return _selected(node, series)
        case pp.Call():
            labels = set[str]().union(*(_labels(argument, series) for argument in node.args))
            return labels - _known({"le"}, labels) if node.func.name == "histogram_quantile" else labels
        case pp.AggregateExpr():
            labels, modifier = _labels(node.expr, series), node.modifier
            named = _known(set(modifier.labels), labels) if modifier else set()
            return labels - named if modifier and modifier.type == pp.AggModifierType.Without else named
        case pp.BinaryExpr():
            return _combined(node, _labels(node.lhs, series), _labels(node.rhs, series))
    raise NotImplementedError(type(node).__name__)


def _selected(selector: Any, series: Series) -> set[str]:
    if selector.name not in series:
        raise UnknownName(f"no metric {selector.name}")
    selected = series[selector.name]
    labels = set(selected[0])
    for matcher in selector.matchers.matchers:
        _known({matcher.name}, labels)
        is_pattern = matcher.op in (pp.MatchOp.Re, pp.MatchOp.NotRe)
        # Each alternative by itself: a wrong one must not hide behind the others.
        values = matcher.value.split("|") if is_pattern else [re.escape(matcher.value)]
        matches = [[one for one in selected if re.fullmatch(value, one[matcher.name])] for value in values]
        if not all(matches):
            raise UnknownName(f'no {selector.name} with {matcher.name} "{matcher.value}"')
        if matcher.op in (pp.MatchOp.Equal, pp.MatchOp.Re):
            selected = [one for several in matches for one in several]
    return labels


def _combined(node: Any, left: set[str], right: set[str]) -> set[str]:
    if str(node.op) == "or" or pp.NumberLiteral in (type(node.lhs), type(node.rhs)):
        return left | right
    matching = node.modifier and node.modifier.matching
    if matching:
        return left | _known(set(matching.labels), left & right)
    # Without `on` or `ignoring`, only series with equal labels match.
    _known(left | right, left & right)
    return left


def _known(names: set[str], labels: set[str]) -> set[str]:
    if not names <= labels:
        raise UnknownName(f"no label {', '.join(sorted(names - labels))} among {sorted(labels)}")
    return names
