"""What is counted while payments are made, and how a scrape sees it.

Payments meet no lock and no look-up of labels here: plain numbers in plain containers, added to once a batch.
prometheus-client makes the text of them when somebody asks. Each application has its own `Metrics`.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from ..core.credentials.device_keys import DeviceKind
from ..core.errors import ErrorCode
from ..core.payments.operations import Confirm, Decided, Refused
from ..core.payments.payment import DeclineCode, Status
from ..engine.batch_record import BatchRecord

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_OPERATIONS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
STAGES = ("load", "decide", "apply", "publish")


class Histogram:
    """Counts of values up to each of `bounds`, and their sum."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def observe_all(self, values: list[float]) -> None:
        """Count many: to sort them is cheaper than to find the bucket of each."""
        ordered, below = sorted(values), 0
        self._sum += sum(ordered)
        for place, bound in enumerate(self._bounds):
            up_to = bisect_right(ordered, bound, below)
            self._counts[place] += up_to - below
            below = up_to
            if below == len(ordered):
                return
        self._counts[-1] += len(ordered) - below

    def add_to(self, family: HistogramMetricFamily, *labels: str) -> None:
        """Show what was counted under these labels."""
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        family.add_metric(labels, list(zip(names, accumulate(self._counts), strict=True)), self._sum)


class Metrics(Collector):
    """What the engine and the outboxes count.

    `push` is the push lag in seconds: for each outcome, from the commit's answer until its notices had gone to the
    sockets, or to the outboxes of peers that took none then; and for each message that had to wait in an outbox, from
    when it came there until it left for the socket. A copy for another server's devices is not in it.
    """

    def __init__(self) -> None:
        self.push = Histogram(_SECONDS)
        self.outbox_drops = Counter[DeviceKind]()
        self._payments = Counter[tuple[Status, DeclineCode | None]]()
        self._refused = Counter[ErrorCode]()
        self._authorization = Histogram(_SECONDS)
        self._batches = Histogram(_OPERATIONS)
        self._stages = {stage: Histogram(_SECONDS) for stage in STAGES}
        self._conflicts = 0
        self._database_failures = 0

    def batch(self, record: BatchRecord) -> None:
        """Count a batch that is over."""
        pending = Status.PENDING
        # One list and one update cost less than a look-up and an addition for each.
        self._payments.update(
            [
                (payment.status, payment.decline_code)
                for outcome in record.outcomes
                if isinstance(outcome, Decided)
                and not outcome.replayed
                # A wrong PIN leaves a payment pending that was counted as such before.
                and ((payment := outcome.payment).status is not pending or not isinstance(outcome.operation, Confirm))
            ]
        )
        self._refused.update([outcome.code for outcome in record.outcomes if isinstance(outcome, Refused)])
        self._conflicts += record.conflicts
        self._database_failures += record.database_failures
        self._batches.observe(len(record.outcomes))
        self._authorization.observe_all([h - a for h, a in zip(record.handed_s, record.accepted_s, strict=True)])
        committed_s = record.publishing_s
        if committed_s:
            self.push.observe_all([handed_s - committed_s for handed_s in record.handed_s])
            began_s = (record.loading_s, record.deciding_s, record.applying_s, committed_s, record.handed_s[-1])
            for stage, from_s, to_s in zip(STAGES, began_s, began_s[1:], strict=False):
                self._stages[stage].observe(to_s - from_s)

    def refused(self, rejected: int) -> CounterMetricFamily:
        """Operations that were answered with an error; `rejected` is what the queue did not take or keep."""
        return _counters(
            "pos_operations_refused",
            "Operations that the engine answered with an error.",
            ("code",),
            (((code.value,), self._refused[code] + (rejected if code is ErrorCode.BUSY else 0)) for code in ErrorCode),
        )

    def collect(self) -> Iterator[Metric]:
        """Everything that is here, as prometheus-client wants it. What has not happened yet is 0, not missing."""
        ends = [(status, None) for status in Status if status is not Status.DECLINED]
        declines = [(Status.DECLINED, code) for code in DeclineCode]
        yield _counters(
            "pos_payments",
            "Outcomes of payments, counted when they were committed.",
            ("outcome", "decline_code"),
            (((s.value, c.value if c else ""), self._payments[s, c]) for s, c in (*ends, *declines)),
        )
        yield _histograms(
            "pos_authorization_seconds",
            "From an operation's way into the queue until its notices had gone to the sockets.",
            self._authorization,
        )
        yield _histograms("pos_push_seconds", "From a commit until its notices had gone to the sockets.", self.push)
        yield _histograms("pos_batch_operations", "Operations of a batch.", self._batches)
        stages = HistogramMetricFamily(
            "pos_batch_stage_seconds", "What each stage of a committed batch took.", labels=["stage"]
        )
        for stage, histogram in self._stages.items():
            histogram.add_to(stages, stage)
        yield stages
        yield CounterMetricFamily(
            "pos_batch_conflicts", "Runs of a batch that another server's commit forestalled.", self._conflicts
        )
        yield CounterMetricFamily(
            "pos_database_failures", "Runs of a batch that met a lost database.", self._database_failures
        )
        yield _counters(
            "pos_outbox_drops",
            "Connections that were cut because their peer did not read.",
            ("kind",),
            (((kind.value,), self.outbox_drops[kind]) for kind in DeviceKind),
        )


def _counters(
    name: str, text: str, labels: tuple[str, ...], samples: Iterable[tuple[tuple[str, ...], int]]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in samples:
        family.add_metric(values, count)
    return family


def _histograms(name: str, text: str, histogram: Histogram) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=())
    histogram.add_to(family)
    return family
