"""What the engine tells metrics and traces of a batch that is over: its outcomes, and when it passed each stage."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..core.payments.operations import Outcome


@dataclass(slots=True)
class BatchRecord:
    """Times are seconds on the clock of `time.monotonic`. Of a batch that ran more than once they are the last run's.

    `loading_s`, `deciding_s`, `applying_s` and `publishing_s` are when that stage began, 0 when it was not reached;
    `publishing_s` is also when the commit was answered. Of each operation, in the order of `outcomes`: `accepted_s`
    when it came into the queue, `handed_s` when its notices had gone to the sockets, or to the outboxes of peers that
    took none then. `conflicts` and `database_failures` count the runs that ended so.
    """

    loading_s: float = 0.0
    deciding_s: float = 0.0
    applying_s: float = 0.0
    publishing_s: float = 0.0
    conflicts: int = 0
    database_failures: int = 0
    outcomes: Sequence[Outcome] = ()
    accepted_s: list[float] = field(default_factory=list)
    handed_s: list[float] = field(default_factory=list)


Watch = Callable[[BatchRecord], None]
"""Called once a batch, after everything was answered. Must not block."""
