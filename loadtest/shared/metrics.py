"""Reads the server's `/metrics`: one function for the text, and what one makes of counters that a restart sets to 0."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import httpx
from prometheus_client.parser import text_string_to_metric_families

_WITHIN_S = 2.0
# A sample's name with its labels, sorted.
Sample = tuple[str, tuple[tuple[str, str], ...]]
Metrics = Mapping[Sample, float]


async def read_metrics(client: httpx.AsyncClient, url: str, token: str | None) -> Metrics | None:
    """What the server says now to whoever has its `POS_METRICS_TOKEN`; None when it says nothing, or is away."""
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = await client.get(f"{url}/metrics", headers=headers, timeout=_WITHIN_S)
    except httpx.HTTPError:
        return None
    return parse_metrics(answer.text) if answer.status_code == httpx.codes.OK else None


def parse_metrics(text: str) -> Metrics:
    """The samples of a text in Prometheus' exposition format."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(metrics: Metrics, name: str, **labels: str) -> float:
    """The sum of all samples of this name that have these labels."""
    wanted = set(labels.items())
    return sum(value for (found, of), value in metrics.items() if found == name and wanted <= set(of))


def increase(values: Sequence[float]) -> float:
    """By how much a counter grew over its readings; one below the last began anew."""
    return sum(now - before if now >= before else now for before, now in pairwise(values))


def bucket_bounds(metrics: Metrics, name: str) -> list[float]:
    """The upper bounds of a histogram's buckets, ascending."""
    found = {dict(of)["le"] for (sample, of) in metrics if sample == f"{name}_bucket"}
    return sorted(float(bound) for bound in found)


def quantile(bounds: Sequence[float], counts: Sequence[float], share: float) -> float | None:
    """The value that `share` of the observations do not exceed, by linear interpolation within its bucket.

    `counts` are cumulative, one for each upper bound; the last bound may be infinite. None without observations.
    """
    place = _bucket(counts, share)
    if place is None:
        return None
    lower, below = (bounds[place - 1], counts[place - 1]) if place else (0.0, 0.0)
    if bounds[place] == float("inf"):
        return lower
    return lower + (bounds[place] - lower) * (share * counts[-1] - below) / max(1e-12, counts[place] - below)


def bucket_of(bounds: Sequence[float], counts: Sequence[float], share: float) -> tuple[float, float] | None:
    """Between which bounds that value lies: all that a histogram knows for sure. None without observations."""
    place = _bucket(counts, share)
    return None if place is None else (bounds[place - 1] if place else 0.0, bounds[place])


def _bucket(counts: Sequence[float], share: float) -> int | None:
    if not counts or not counts[-1]:
        return None
    return next(place for place, count in enumerate(counts) if count >= share * counts[-1])
