"""What a device has heard: since when it may have missed results, and which ones it knows already.

A server replays what changed after `since_ms`, less an overlap, so duplicates are normal and are told apart by
(payment_id, version). It replays oldest first and before anything new. A result therefore says that all older ones
have come; the time in a `ready` says so only once its replay has arrived.
"""

from collections import OrderedDict
from collections.abc import Mapping
from uuid import UUID

VERSIONS_MAX = 1000
"""Payments remembered to tell a repeated result from a new one; a server replays fewer (`resume_payments_max`)."""
REPLAYED_AFTER_S = 10.0
"""A session that lasts this long has had its replay. Far below the server's overlap, which covers what is in flight."""


class Resume:
    """One device's place in the stream of its results."""

    def __init__(self, since_ms: int | None = None, versions: Mapping[UUID, int] | None = None) -> None:
        self.since_ms = since_ms
        """What to send as `authenticate.since_ms` (server's Unix ms); None before the first `ready`."""
        self.may_have_missed = False
        """Whether the server has ever said that it could not replay everything."""
        self._versions: OrderedDict[UUID, int] = OrderedDict(versions or {})
        self._replay_until_ms: int | None = None

    def on_ready(self, server_time_ms: int, *, resumed: bool) -> None:
        """A session begins: with a replay if one was asked for and `resumed` does not deny it."""
        if self.since_ms is None or not resumed:
            self.may_have_missed |= not resumed
            self._advance(server_time_ms)
        else:
            self._replay_until_ms = server_time_ms

    def on_result(self, payment_id: UUID, version: int, decided_at_ms: int) -> bool:
        """A result was heard; returns whether it is new."""
        self._advance(decided_at_ms)
        if version <= self._versions.get(payment_id, 0):
            return False
        self._versions[payment_id] = version
        self._versions.move_to_end(payment_id)
        if len(self._versions) > VERSIONS_MAX:
            self._versions.popitem(last=False)
        return True

    def knows(self, payment_id: UUID) -> bool:
        """Whether any version of this payment was heard before."""
        return payment_id in self._versions

    def on_lost(self, lasted_s: float) -> None:
        """The session is over, after this many seconds."""
        if self._replay_until_ms is not None and lasted_s >= REPLAYED_AFTER_S:
            self._advance(self._replay_until_ms)
        self._replay_until_ms = None

    def _advance(self, at_ms: int) -> None:
        self.since_ms = max(self.since_ms or 0, at_ms)
