"""Traces of payments in OpenTelemetry: a span for each operation, with an event where each stage began.

A span is made after its batch is over, from the batch's record, so a payment that is not traced pays nothing. What is
traced follows from the payment's id: all operations of a payment, at every server, or none of them.
"""

import asyncio
import time
from importlib.metadata import version
from typing import TYPE_CHECKING
from uuid import UUID

from ..core.payments.operations import Cancel, Decided, Outcome, Refunded, Refused
from ..engine.batch_record import BatchRecord
from ..settings import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

_SAMPLES = 1 << 32
FLUSH_TIMEOUT_S = 5


class Traces:
    """Spans for a share of the payments, `sample` from 0 to 1. `provider` hands them to `exporter`."""

    def __init__(self, sample: float, provider: "TracerProvider", exporter: "SpanExporter") -> None:
        self._below = round(sample * _SAMPLES)
        self._provider = provider
        self._exporter = exporter
        self._tracer = provider.get_tracer("pos_server", version("pos-server"))

    def batch(self, record: BatchRecord) -> None:
        """Make the spans of a batch that is over."""
        for outcome, accepted_s, handed_s in zip(record.outcomes, record.accepted_s, record.handed_s, strict=True):
            payment_id = _payment_id(outcome)
            # The last 32 bits, which are random in an id that the client has made as it should.
            if payment_id is not None and payment_id.int % _SAMPLES < self._below:
                self._span(record, outcome, payment_id, accepted_s, handed_s)

    def _span(
        self, record: BatchRecord, outcome: Outcome, payment_id: UUID, accepted_s: float, handed_s: float
    ) -> None:
        from opentelemetry.context import Context
        from opentelemetry.trace import Status, StatusCode

        unix_ns = time.time_ns() - time.monotonic_ns()

        def at(moment_s: float) -> int:
            return unix_ns + int(moment_s * 1e9)

        attributes: dict[str, str | int] = {
            "pos.payment_id": str(payment_id),
            "pos.outcome": _outcome(outcome),
            "pos.batch_operations": len(record.outcomes),
            "pos.batch_conflicts": record.conflicts,
            "pos.database_failures": record.database_failures,
        }
        name = type(outcome.operation).__name__
        span = self._tracer.start_span(name, context=Context(), attributes=attributes, start_time=at(accepted_s))
        span.add_event("queued", timestamp=at(accepted_s))
        stages = (
            ("load", record.loading_s),
            ("decide", record.deciding_s),
            ("apply", record.applying_s),
            ("publish", record.publishing_s),
        )
        for stage, began_s in stages:
            # What is before the last run's begin is of a run before it.
            if began_s and began_s >= record.loading_s:
                span.add_event(stage, timestamp=at(began_s))
        if isinstance(outcome, Refused):
            span.set_status(Status(StatusCode.ERROR, outcome.code.value))
        span.end(at(handed_s))

    async def close(self) -> None:
        """Send what is left; what cannot be sent soon is lost."""
        flushed = asyncio.create_task(asyncio.to_thread(self._provider.shutdown))
        await asyncio.wait((flushed,), timeout=FLUSH_TIMEOUT_S)
        # Ends the exporter's attempts to send again, and with them the wait.
        self._exporter.shutdown()
        await flushed


def open_traces(sample: float) -> Traces | None:
    """Traces that go where the OTEL_… variables say; None for a share of 0. Raises SettingsError without the extra."""
    if not sample:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise SettingsError(
            'POS_TRACE_SAMPLE: traces need the extra "otel". Install it: pip install "pos-server[otel]"'
        ) from None
    return traces_to(OTLPSpanExporter(), sample)


def traces_to(exporter: "SpanExporter", sample: float) -> Traces:
    """Traces that a thread of the SDK hands to `exporter`; its queue is bounded, and what finds it full is lost."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    ours = Resource({"service.name": "pos-server", "service.version": version("pos-server")})
    provider = TracerProvider(
        sampler=ALWAYS_ON, resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Traces(sample, provider, exporter)


def _payment_id(outcome: Outcome) -> UUID | None:
    if isinstance(outcome, Decided | Refunded):
        return outcome.payment.payment_id
    operation = outcome.operation
    # A cancel that names an order has no id of a payment unless one was found.
    return operation.payment_id or (operation.tombstone_id if isinstance(operation, Cancel) else None)


def _outcome(outcome: Outcome) -> str:
    if isinstance(outcome, Refused):
        return outcome.code.value
    if isinstance(outcome, Refunded):
        return "refunded"
    return (outcome.payment.decline_code or outcome.payment.status).value
