"""Traces: the choice of payments, the contents of a span, and a collector that is unavailable."""

import asyncio
import socket
import sys
from collections.abc import Sequence
from uuid import UUID

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from pos_server.core.payments.operations import Operation
from pos_server.engine.authorizer import Authorizer
from pos_server.limits import AuthorizerLimits
from pos_server.settings import SettingsError
from pos_server.telemetry.traces import open_traces, traces_to
from tests.copies import replace
from tests.end_to_end.server_process import pos_server, running_server
from tests.engine.test_authorizer import LIMITS
from tests.proxy import proxied
from tests.support import KEYRING, MASTER_KEYS, RULES, Shop, ask, logged_in, scan_message, working

pytestmark = pytest.mark.asyncio

STAGES = ["queued", "load", "decide", "apply", "publish"]


async def spans(
    dsn: str, operations: Sequence[Operation], *, sample: float = 1, limits: AuthorizerLimits = LIMITS
) -> tuple[ReadableSpan, ...]:
    """Run the operations in one batch and return their spans."""
    exporter = InMemorySpanExporter()
    traces = traces_to(exporter, sample)
    authorizer = Authorizer(dsn, KEYRING, RULES, limits, lambda *_: None, day_start_ms=lambda _: 0, watch=traces.batch)
    for operation in operations:
        authorizer.submit(operation)
    async with working(authorizer):
        await authorizer.drained()
    await traces.close()
    return exporter.get_finished_spans()


async def test_a_payment_is_a_span_with_its_stages_in_order(dsn: str, shop: Shop) -> None:
    scan = shop.scan()
    used = shop.scan(code=scan.code)
    approved, declined = await spans(dsn, [scan, used])
    assert approved.name == "Scan"
    assert approved.attributes == {
        "pos.payment_id": str(scan.payment_id),
        "pos.merchant_id": scan.merchant_id,
        "pos.outcome": "approved",
        "pos.batch_operations": 2,
        "pos.batch_conflicts": 0,
        "pos.database_failures": 0,
    }
    assert declined.attributes is not None
    assert declined.attributes["pos.outcome"] == "code_used"
    for span in (approved, declined):
        assert [event.name for event in span.events] == STAGES
        assert span.start_time is not None
        assert span.end_time is not None
        moments = [span.start_time, *(event.timestamp for event in span.events), span.end_time]
        assert moments == sorted(moments)
        assert span.parent is None
        assert span.status.status_code is StatusCode.UNSET
        assert span.resource.attributes["service.name"] == "pos-server"
    assert scan.code not in approved.to_json()


async def test_an_undecided_operation_is_an_error_with_the_stages_that_it_reached(dsn: str, shop: Shop) -> None:
    async with proxied(dsn) as proxy:
        proxy.away = True
        (span,) = await spans(proxy.dsn, [shop.scan()], limits=replace(LIMITS, batch_attempts_max=1))
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "busy")
    assert [event.name for event in span.events] == ["queued"]


async def test_a_share_of_payments_is_traced_by_their_ids(dsn: str, shop: Shop) -> None:
    low, high = UUID(int=(7 << 76) + 1), UUID(int=(7 << 76) + (1 << 32) - 1)
    scans = [shop.scan(0, payment_id=low), shop.scan(1, payment_id=high)]
    (traced,) = await spans(dsn, scans, sample=0.5)
    assert traced.attributes is not None
    assert traced.attributes["pos.payment_id"] == str(low)


async def test_the_standard_variables_name_the_service(dsn: str, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "canteen")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    (span,) = await spans(dsn, [shop.scan()])
    assert span.resource.attributes["service.name"] == "canteen"
    assert span.resource.attributes["deployment.environment.name"] == "test"


async def test_without_the_extra_only_a_share_of_0_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert open_traces(0) is None
    with pytest.raises(SettingsError, match=r'^POS_TRACE_SAMPLE: .*"pos-server\[otel\]"$'):
        open_traces(0.1)


@pytest.mark.parametrize("value", ["-0.1", "1.1", "all"])
async def test_an_invalid_share_is_rejected_at_start(value: str) -> None:
    ended = await pos_server("run", POS_TRACE_SAMPLE=value)
    assert ended.status == 3
    assert "POS_TRACE_SAMPLE" in ended.err


async def test_spans_are_sent_to_the_collector_of_the_standard_variable(dsn: str, shop: Shop) -> None:
    arrived: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        (length,) = (line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        body = await reader.readexactly(int(length))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()
        if not arrived.done():
            arrived.set_result(head.split(b" ")[1] + body)

    collector = await asyncio.start_server(collect, "127.0.0.1", 0)
    async with collector:
        port = collector.sockets[0].getsockname()[1]
        message = scan_message(shop.wallets[0].code())
        await traced_payment(dsn, shop, message, f"http://127.0.0.1:{port}", compression="none")
        request = await asyncio.wait_for(arrived, 15)
    assert request.startswith(b"/v1/traces")
    assert message["payment_id"].encode() in request
    assert message["code"].encode() not in request


@pytest.mark.parametrize("hangs", [False, True], ids=["away", "hangs"])
async def test_without_a_collector_payments_succeed_and_the_server_stops_in_order(
    dsn: str, shop: Shop, hangs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with socket.socket() as collector:
        collector.bind(("127.0.0.1", 0))
        if hangs:
            collector.listen()
        endpoint = f"http://127.0.0.1:{collector.getsockname()[1]}"
        await traced_payment(dsn, shop, scan_message(shop.wallets[0].code()), endpoint)


async def traced_payment(
    dsn: str, shop: Shop, message: dict[str, object], endpoint: str, *, compression: str = "gzip"
) -> None:
    variables = {
        "POS_DATABASE_URL": dsn,
        "POS_MASTER_KEYS": MASTER_KEYS,
        "POS_TRACE_SAMPLE": "1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_COMPRESSION": compression,
    }
    async with running_server(**variables) as server:
        async with logged_in(server.url, shop.terminals[0]) as till:
            assert (await ask(till, message))["status"] == "approved"
        assert await server.stop() == 0
