"""Counters and histograms of the engine and of the outboxes, in a registry of their own.

They are updated once a batch, after its outcomes were sent. Each application has its own `Metrics`.
"""

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

from ..core.credentials.device_keys import DeviceKind
from ..core.errors import ErrorCode
from ..core.payments.operations import Confirm, Decided, Refused
from ..core.payments.payment import PENDING, DeclineCode, Status
from ..engine.batch_record import BatchRecord

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_OPERATIONS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
STAGES = ("load", "decide", "apply", "publish")

# The text format would show the time at which each series began as a metric of its own.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """What the engine and the outboxes count; `registry` holds it for a scrape.

    `push` is the push lag in seconds: for each outcome, from the commit's answer until its notices had gone to the
    sockets, or to the outboxes of peers that took none then; and for each message that had to wait in an outbox, from
    when it came there until it left for the socket. A copy for another server's devices is not in it.

    Every label set exists from the start, with 0: a rate needs a first value.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        payments = self._counter(
            "pos_payments", "Outcomes of payments, counted when they were committed.", "outcome", "decline_code"
        )
        ends = [(status, None) for status in Status if status is not Status.DECLINED]
        declines = [(Status.DECLINED, code) for code in DeclineCode]
        self._payments = {(status, code): payments.labels(status, code or "") for status, code in (*ends, *declines)}
        self._authorization = self._histogram(
            "pos_authorization_seconds",
            "From an operation's way into the queue until its notices had gone to the sockets.",
        )
        self.push = self._histogram("pos_push_seconds", "From a commit until its notices had gone to the sockets.")
        self._batches = self._histogram("pos_batch_operations", "Operations of a batch.", buckets=_OPERATIONS)
        stages = self._histogram("pos_batch_stage_seconds", "What each stage of a committed batch took.", "stage")
        self._stages = [stages.labels(stage) for stage in STAGES]
        self._conflicts = self._counter(
            "pos_batch_conflicts", "Runs of a batch that another server's commit forestalled."
        )
        self._database_failures = self._counter("pos_database_failures", "Runs of a batch that met a lost database.")
        drops = self._counter("pos_outbox_drops", "Connections that were cut because their peer did not read.", "kind")
        self.outbox_drops = {kind: drops.labels(kind) for kind in DeviceKind}
        refused = self._counter("pos_operations_refused", "Operations that the engine answered with an error.", "code")
        self._refused = {code: refused.labels(code) for code in ErrorCode}
        self._rejected = 0

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def batch(self, record: BatchRecord) -> None:
        """Count a batch that is over."""
        for outcome in record.outcomes:
            if isinstance(outcome, Refused):
                self._refused[outcome.code].inc()
            elif isinstance(outcome, Decided) and not outcome.replayed:
                payment = outcome.payment
                # A wrong PIN leaves a payment pending that was counted as such before.
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
        """Count operations that the queue did not take or keep as refused with `busy`; `total` is since the start."""
        self._refused[ErrorCode.BUSY].inc(total - self._rejected)
        self._rejected = total
