"""Rate limits: a token bucket for messages, and a fixed window for failures.

Times are seconds on one monotonic clock, passed by the caller.
"""

from collections import OrderedDict
from collections.abc import Hashable


class TokenBucket:
    """Allow `burst` events at once and `per_s` events per second on average."""

    __slots__ = ("_burst", "_per_s", "_tokens", "_updated_s")

    def __init__(self, per_s: float, burst: int, now_s: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._tokens = float(burst)
        self._updated_s = now_s

    def take(self, now_s: float) -> bool:
        """Return whether one more event is allowed now, and count it if so."""
        self._tokens = min(self._burst, self._tokens + (now_s - self._updated_s) * self._per_s)
        self._updated_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class FailureLimit:
    """Count failures per key in windows of `window_s` seconds; the first failure starts a window.

    Holds at most `keys_max` keys and evicts the oldest beyond that.
    """

    def __init__(self, failures_max: int, window_s: float, keys_max: int) -> None:
        self._failures_max = failures_max
        self._window_s = window_s
        self._keys_max = keys_max
        self._windows: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()

    def record(self, key: Hashable, now_s: float) -> None:
        """Count one failure for `key`."""
        started_s, failures = self._windows.get(key, (now_s, 0))
        if now_s - started_s >= self._window_s:
            started_s, failures = now_s, 0
            self._windows.pop(key, None)
        self._windows[key] = (started_s, failures + 1)
        if len(self._windows) > self._keys_max:
            self._windows.popitem(last=False)

    def blocked_for_s(self, key: Hashable, now_s: float) -> float:
        """Return the seconds until `key` may try again; 0 if it may try now."""
        started_s, failures = self._windows.get(key, (now_s, 0))
        left_s = started_s + self._window_s - now_s
        return left_s if failures >= self._failures_max and left_s > 0 else 0.0
