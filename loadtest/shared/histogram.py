"""Latencies as an HDR histogram: microseconds up to a minute, with three digits, in a text of a few kilobytes."""

import math
from collections.abc import Sequence

from hdrh.histogram import HdrHistogram

_LARGEST_US = 60_000_000
_DIGITS = 3


def new_histogram() -> HdrHistogram:
    """An empty one."""
    return HdrHistogram(1, _LARGEST_US, _DIGITS)


def encoded(histogram: HdrHistogram) -> str:
    """Its text."""
    text: bytes = histogram.encode()
    return text.decode()


def decoded(text: str) -> HdrHistogram:
    """The histogram of a text."""
    return HdrHistogram.decode(text)


def ms_at(histogram: HdrHistogram, percent: float) -> float:
    """The latency in milliseconds that `percent` of them did not exceed; 0 of none."""
    value_us: int = histogram.get_value_at_percentile(percent)
    return round(value_us / 1000, 3)


def nearest_rank(values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile of these values, of which there must be at least one."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
