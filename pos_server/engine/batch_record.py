"""The record of a finished batch, for metrics and traces: its outcomes, and when it passed each stage."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..core.payments.operations import Outcome


@dataclass(slots=True)
class BatchRecord:
    """Times are seconds of `time.monotonic`, from the last attempt if a batch was attempted more than once.

    - `loading_s`, `deciding_s`, `applying_s`, `publishing_s`: when the stage began, 0 if it was not reached.
      `publishing_s` is also when the commit was acknowledged.
    - `accepted_s`, `handed_s`: one time per operation, in the order of `outcomes`. When the queue accepted it, and when
      its notices had gone to the sockets, or to the outboxes of peers that took none then.
    - `conflicts`, `database_failures`: attempts that ended that way.
    - `may_have_committed`: whether an attempt may have been committed although it ended with an error.
    """

    loading_s: float = 0.0
    deciding_s: float = 0.0
    applying_s: float = 0.0
    publishing_s: float = 0.0
    conflicts: int = 0
    database_failures: int = 0
    may_have_committed: bool = False
    outcomes: Sequence[Outcome] = ()
    accepted_s: list[float] = field(default_factory=list)
    handed_s: list[float] = field(default_factory=list)


Watch = Callable[[BatchRecord], None]
"""Called once per batch, after every operation was answered. Must not block."""


def fan_out(watches: Sequence[Watch]) -> Watch | None:
    """Return a watch that calls all of `watches`; None if there are none."""
    if not watches:
        return None

    def watch_all(record: BatchRecord) -> None:
        for watch in watches:
            watch(record)

    return watch_all
