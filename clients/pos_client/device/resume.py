"""A device's position in the stream of its results: the time to resume from, and the versions it has seen.

The mark is the time up to which every result has arrived, and it never moves past a missing one. Results come in the
order of their changes, so while nothing is missing, each moves the mark. While the device is behind, only `replayed`
moves it: after the replay that follows `ready`, and after each page that `resume` requests.

The server starts a replay some time before the mark, so duplicates are normal. They are recognized by the
payment's key and version. A till's key is the payment_id; a wallet's key includes the merchant.
"""

import heapq
import itertools
from collections.abc import Hashable, Mapping
from uuid import UUID

VERSIONS_MAX = 5000
"""Payments whose version is kept to recognize duplicates: those with the latest changes."""
CURSOR_AGE_MS = 60_000
"""A cursor of an earlier connection is used if its page ended this long before `ready`: all before it is committed."""


class Resume:
    """One device's position in the stream of its results."""

    def __init__(self, since_ms: int | None = None, versions: Mapping[UUID, int] | None = None) -> None:
        self.since_ms = since_ms
        """The mark: value of `authenticate.since_ms` (server's Unix ms); None before the first `ready`."""
        self.may_have_missed = False
        """True once results are missing that the server could not replay."""
        self.is_behind = False
        """True while results are missing that `resume` has to ask for."""
        self.cursor: str | None = None
        """Cursor of the next page; None for the first page."""
        self._seen: dict[Hashable, tuple[int, int]] = {
            key: (version, since_ms or 0) for key, version in (versions or {}).items()
        }
        # A number in each entry, because keys need not have an order.
        self._numbers = itertools.count()
        self._by_time = [(at_ms, next(self._numbers), key) for key, (_, at_ms) in self._seen.items()]
        self._latest_ms = 0
        self._has_dropped = False

    def on_ready(self, server_time_ms: int, *, resumed: bool) -> None:
        """Record the start of a session. `resumed` is false if the replay has to be requested in pages."""
        if resumed or self.since_ms is None or self.since_ms > server_time_ms - CURSOR_AGE_MS:
            self.cursor = None
        self.is_behind = not resumed
        self._has_dropped = False
        self._latest_ms = 0 if resumed else server_time_ms
        if self.since_ms is None:
            self._advance(server_time_ms)

    def on_request(self) -> None:
        """Record that the next page is requested."""
        self._has_dropped = False

    def on_replayed(self, since_ms: int, next_cursor: str | None) -> None:
        """Record that the replay, or a page of it, has arrived."""
        if self._has_dropped:
            return  # part of it was dropped
        self._advance(since_ms)
        self.cursor = next_cursor
        if next_cursor is None:
            self.is_behind = False
            self._advance(self._latest_ms)

    def on_result(self, key: Hashable, version: int, decided_at_ms: int) -> bool:
        """Record a received result and return whether it is new."""
        if self.is_behind:
            self._latest_ms = max(self._latest_ms, decided_at_ms)
        else:
            self._advance(decided_at_ms)
        if version <= self._seen.get(key, (0, 0))[0]:
            return False
        self._seen[key] = (version, decided_at_ms)
        heapq.heappush(self._by_time, (decided_at_ms, next(self._numbers), key))
        if len(self._by_time) > VERSIONS_MAX:
            at_ms, _, oldest_key = heapq.heappop(self._by_time)
            # A later change of the payment has an entry of its own.
            if self._seen.get(oldest_key, (0, -1))[1] == at_ms:
                del self._seen[oldest_key]
        return True

    def knows(self, key: Hashable) -> bool:
        """Return whether any version of this payment has been received."""
        return key in self._seen

    def fall_behind(self) -> None:
        """Record that a result was dropped: all from the mark on have to be requested again."""
        self.is_behind = True
        self.cursor = None
        self._has_dropped = True

    def give_up(self) -> None:
        """Record that the server cannot replay what is missing."""
        self.may_have_missed = True
        self.is_behind = False
        self._advance(self._latest_ms)

    def _advance(self, at_ms: int) -> None:
        self.since_ms = max(self.since_ms or 0, at_ms)
