"""A device's position in the stream of its results: the time to resume from, and the versions it has seen.

The server replays changes after `since_ms` minus an overlap, so duplicates are normal. They are recognized by the
payment's key and version. A till's key is the payment_id; a wallet's key includes the merchant. The replay is oldest
first and precedes anything new. A result therefore implies that all older ones have arrived; the time in `ready`
implies it only once its replay has arrived.
"""

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from uuid import UUID

VERSIONS_MAX = 1000
"""Payments whose version is kept, to recognize duplicates. A server replays fewer (`resume_payments_max`)."""
REPLAYED_AFTER_S = 10.0
"""A session this old has received its replay. Far below the server's overlap, which covers commits in flight."""


class Resume:
    """One device's position in the stream of its results."""

    def __init__(self, since_ms: int | None = None, versions: Mapping[UUID, int] | None = None) -> None:
        self.since_ms = since_ms
        """Value of `authenticate.since_ms` (server's Unix ms); None before the first `ready`."""
        self.may_have_missed = False
        """True once a session has started without a complete replay."""
        self._versions: OrderedDict[Hashable, int] = OrderedDict((versions or {}).items())
        self._replay_until_ms: int | None = None

    def on_ready(self, server_time_ms: int, *, resumed: bool) -> None:
        """Record the start of a session. A replay follows if one was requested and `resumed` is true."""
        if self.since_ms is None or not resumed:
            self.may_have_missed |= not resumed
            self._advance(server_time_ms)
        else:
            self._replay_until_ms = server_time_ms

    def on_result(self, key: Hashable, version: int, decided_at_ms: int) -> bool:
        """Record a received result and return whether it is new."""
        self._advance(decided_at_ms)
        if version <= self._versions.get(key, 0):
            return False
        self._versions[key] = version
        self._versions.move_to_end(key)
        if len(self._versions) > VERSIONS_MAX:
            self._versions.popitem(last=False)
        return True

    def knows(self, key: Hashable) -> bool:
        """Return whether any version of this payment has been received."""
        return key in self._versions

    def on_lost(self, lasted_s: float) -> None:
        """Record the end of a session that lasted `lasted_s` seconds."""
        if self._replay_until_ms is not None and lasted_s >= REPLAYED_AFTER_S:
            self._advance(self._replay_until_ms)
        self._replay_until_ms = None

    def _advance(self, at_ms: int) -> None:
        self.since_ms = max(self.since_ms or 0, at_ms)
