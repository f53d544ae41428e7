"""Latencies as HDR histograms: microseconds up to a minute, with three digits, encoded in a few kilobytes of text."""

import math
from collections.abc import Sequence

from hdrh.histogram import HdrHistogram

_LARGEST_US = 60_000_000
_DIGITS = 3


def new_histogram() -> HdrHistogram:
    """Return an empty histogram."""
    return HdrHistogram(1, _LARGEST_US, _DIGITS)


def encode(histogram: HdrHistogram) -> str:
    """Encode a histogram as text."""
    text: bytes = histogram.encode()
    return text.decode()


def decode(text: str) -> HdrHistogram:
    """Decode the text of `encode`."""
    return HdrHistogram.decode(text)


def ms_at(histogram: HdrHistogram, percent: float) -> float:
    """Return a percentile in milliseconds, 0 for an empty histogram."""
    value_us: int = histogram.get_value_at_percentile(percent)
    return round(value_us / 1000, 3)


def nearest_rank(values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile of one or more values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
