"""How many failures somebody may make in a while: the rule behind the bounds on guessing."""

from collections import OrderedDict
from collections.abc import Hashable


class FailureLimit:
    """Counts failures per key in windows of `window_s` that start with a first failure.

    Holds at most `keys_max` keys and forgets the oldest beyond that. Times are seconds on any one monotonic clock.
    """

    def __init__(self, failures_max: int, window_s: float, keys_max: int) -> None:
        self._failures_max = failures_max
        self._window_s = window_s
        self._keys_max = keys_max
        self._windows: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()

    def record(self, key: Hashable, now_s: float) -> None:
        """Count one failure of `key`."""
        started_s, failures = self._windows.get(key, (now_s, 0))
        if now_s - started_s >= self._window_s:
            started_s, failures = now_s, 0
            self._windows.pop(key, None)
        self._windows[key] = (started_s, failures + 1)
        if len(self._windows) > self._keys_max:
            self._windows.popitem(last=False)

    def blocked_for_s(self, key: Hashable, now_s: float) -> float:
        """Seconds until `key` may try again; 0 when it may now."""
        started_s, failures = self._windows.get(key, (now_s, 0))
        left_s = started_s + self._window_s - now_s
        return left_s if failures >= self._failures_max and left_s > 0 else 0.0
