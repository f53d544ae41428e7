"""Counters and histograms of the engine and of the outboxes, in a separate registry.

They are updated once per batch, after its outcomes were sent. Each application has its own `Metrics`.
"""

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

from ..core.credentials.device_keys import DeviceKind
from ..core.errors import ErrorCode
from ..core.payments.declines import DeclineCode
from ..core.payments.operations import Confirm, Decided, Refused
from ..core.payments.payment import PENDING, Status
from ..engine.batch_record import BatchRecord

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_OPERATIONS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
STAGES = ("load", "decide", "apply", "publish")

# Without this, each series has an additional metric with its creation time.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """Counters and histograms, in `registry` for a scrape.

    `push` is the push lag in seconds. For each outcome, it is the time from the commit until its notices were written
    to the sockets, or to the outboxes of peers that accepted none. For each message that waits in an outbox, it is the
    time until it is written to the socket. Copies to other servers are not included.

    Every label set exists from the start, with 0, because a rate needs a first value.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        payments = self._counter(
            "pos_payments", "Outcomes of payments, counted at the commit.", "outcome", "decline_code"
        )
        others = [(status, None) for status in Status if status is not Status.DECLINED]
        declines = [(Status.DECLINED, code) for code in DeclineCode]
        self._payments = {(status, code): payments.labels(status, code or "") for status, code in (*others, *declines)}
        self._authorization = self._histogram(
            "pos_authorization_seconds",
            "Time from entering the queue until the notices of an operation were written to the sockets.",
        )
        self.push = self._histogram(
            "pos_push_seconds", "Time from a commit until its notices were written to the sockets."
        )
        self._batches = self._histogram("pos_batch_operations", "Operations per batch.", buckets=_OPERATIONS)
        stages = self._histogram("pos_batch_stage_seconds", "Duration of each stage of a committed batch.", "stage")
        self._stages = [stages.labels(stage) for stage in STAGES]
        self._conflicts = self._counter(
            "pos_batch_conflicts", "Runs of a batch that lost to a commit of another server."
        )
        self._database_failures = self._counter(
            "pos_database_failures", "Runs of a batch that lost the database connection."
        )
        drops = self._counter("pos_outbox_drops", "Connections closed because the peer did not read.", "kind")
        self.outbox_drops = {kind: drops.labels(kind) for kind in DeviceKind}
        refused = self._counter("pos_operations_refused", "Operations that the engine answered with an error.", "code")
        self._refused = {code: refused.labels(code) for code in ErrorCode}
        self._rejected = 0

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def batch(self, record: BatchRecord) -> None:
        """Count a finished batch."""
        for outcome in record.outcomes:
            if isinstance(outcome, Refused):
                self._refused[outcome.code].inc()
            elif isinstance(outcome, Decided) and not outcome.replayed:
                payment = outcome.payment
                # A payment that is still pending after a wrong PIN was counted as pending before.
                if payment.status is not PENDING or not isinstance(outcome.operation, Confirm):
                    self._payments[payment.status, payment.decline_code].inc()
        if record.conflicts:
            self._conflicts.inc(record.conflicts)
        if record.database_failures:
            self._database_failures.inc(record.database_failures)
        self._batches.observe(len(record.outcomes))
        for accepted_s, handed_s in zip(record.accepted_s, record.handed_s, strict=True):
            self._authorization.observe(handed_s - accepted_s)
        committed_s = record.publishing_s
        if committed_s:
            for handed_s in record.handed_s:
                self.push.observe(handed_s - committed_s)
            began_s = (record.loading_s, record.deciding_s, record.applying_s, committed_s, record.handed_s[-1])
            for histogram, from_s, to_s in zip(self._stages, began_s, began_s[1:], strict=False):
                histogram.observe(to_s - from_s)

    def count_rejected(self, total: int) -> None:
        """Count operations that a full queue refused or that expired in it, as `busy`. `total` is since the start."""
        self._refused[ErrorCode.BUSY].inc(total - self._rejected)
        self._rejected = total
