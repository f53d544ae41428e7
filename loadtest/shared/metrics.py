"""Read the server's `/metrics`, and compute increases and quantiles. A restart resets the counters to 0."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import httpx
from prometheus_client.parser import text_string_to_metric_families

_TIMEOUT_S = 2.0
# A sample's name and its sorted labels.
Sample = tuple[str, tuple[tuple[str, str], ...]]
Metrics = Mapping[Sample, float]


async def read_metrics(client: httpx.AsyncClient, url: str, token: str | None) -> Metrics | None:
    """Read `/metrics` with this `POS_METRICS_TOKEN`. Returns None if access is denied or the server is unreachable."""
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        response = await client.get(f"{url}/metrics", headers=headers, timeout=_TIMEOUT_S)
    except httpx.HTTPError:
        return None
    return parse_metrics(response.text) if response.status_code == httpx.codes.OK else None


def parse_metrics(text: str) -> Metrics:
    """Parse a text in Prometheus' exposition format."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(metrics: Metrics, name: str, **labels: str) -> float:
    """Return the sum of all samples with this name and these labels."""
    required = set(labels.items())
    return sum(
        value
        for (sample_name, sample_labels), value in metrics.items()
        if sample_name == name and required <= set(sample_labels)
    )


def increase(values: Sequence[float]) -> float:
    """Return the increase of a counter over its readings. A decrease is a reset to 0."""
    return sum(current - previous if current >= previous else current for previous, current in pairwise(values))


def bucket_bounds(metrics: Metrics, name: str) -> list[float]:
    """Return the upper bounds of a histogram's buckets, ascending."""
    bounds = {dict(labels)["le"] for (sample_name, labels) in metrics if sample_name == f"{name}_bucket"}
    return sorted(map(float, bounds))


def quantile(bounds: Sequence[float], counts: Sequence[float], share: float) -> float | None:
    """Return the quantile `share` (0 to 1), interpolated linearly within its bucket; None without observations.

    `counts` are cumulative, one for each upper bound. The last bound may be infinite.
    """
    index = _bucket(counts, share)
    if index is None:
        return None
    lower, below = (bounds[index - 1], counts[index - 1]) if index else (0.0, 0.0)
    if bounds[index] == float("inf"):
        return lower
    return lower + (bounds[index] - lower) * (share * counts[-1] - below) / max(1e-12, counts[index] - below)


def bucket_of(bounds: Sequence[float], counts: Sequence[float], share: float) -> tuple[float, float] | None:
    """Return the bounds between which the quantile lies; None without observations."""
    index = _bucket(counts, share)
    return None if index is None else (bounds[index - 1] if index else 0.0, bounds[index])


def _bucket(counts: Sequence[float], share: float) -> int | None:
    if not counts or not counts[-1]:
        return None
    return next(index for index, count in enumerate(counts) if count >= share * counts[-1])
