"""OpenTelemetry traces of payments: a span per operation, with an event at the start of each stage.

Spans are made from the record of a finished batch, so a payment that is not traced costs nothing. The payment's id
decides whether it is traced: either all operations of a payment are, on every server, or none.
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
    """Spans for a share of the payments: `sample`, from 0 to 1. `provider` passes them to `exporter`."""

    def __init__(self, sample: float, provider: "TracerProvider", exporter: "SpanExporter") -> None:
        self._below = round(sample * _SAMPLES)
        self._provider = provider
        self._exporter = exporter
        self._tracer = provider.get_tracer("pos_server", version("pos-server"))

    def batch(self, record: BatchRecord) -> None:
        """Make the spans of a finished batch."""
        for outcome, accepted_s, handed_s in zip(record.outcomes, record.accepted_s, record.handed_s, strict=True):
            payment_id = _payment_id(outcome)
            # The last 32 bits are random in a well-made UUIDv7.
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
            "pos.merchant_id": outcome.operation.merchant_id,
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
            # An earlier time than the load belongs to an earlier run of the batch.
            if began_s and began_s >= record.loading_s:
                span.add_event(stage, timestamp=at(began_s))
        if isinstance(outcome, Refused):
            span.set_status(Status(StatusCode.ERROR, outcome.code.value))
        span.end(at(handed_s))

    async def close(self) -> None:
        """Send the remaining spans, for at most FLUSH_TIMEOUT_S; the rest is lost."""
        flushed = asyncio.create_task(asyncio.to_thread(self._provider.shutdown))
        await asyncio.wait((flushed,), timeout=FLUSH_TIMEOUT_S)
        # Ends the exporter's retries, and so the flush.
        self._exporter.shutdown()
        await flushed


def open_traces(sample: float) -> Traces | None:
    """Return traces for the collector of the OTEL_… variables, or None if `sample` is 0.

    Raises SettingsError if the extra is not installed.
    """
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
    """Return traces that the SDK passes to `exporter` in a thread. Its queue is bounded; spans above that are lost."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    defaults = Resource({"service.name": "pos-server", "service.version": version("pos-server")})
    provider = TracerProvider(
        sampler=ALWAYS_ON, resource=defaults.merge(OTELResourceDetector().detect()), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Traces(sample, provider, exporter)


def _payment_id(outcome: Outcome) -> UUID | None:
    if isinstance(outcome, Decided | Refunded):
        return outcome.payment.payment_id
    operation = outcome.operation
    # A cancel by order reference has no payment id of its own.
    return operation.payment_id or (operation.tombstone_id if isinstance(operation, Cancel) else None)


def _outcome(outcome: Outcome) -> str:
    if isinstance(outcome, Refused):
        return outcome.code.value
    if isinstance(outcome, Refunded):
        return "refunded"
    return (outcome.payment.decline_code or outcome.payment.status).value
