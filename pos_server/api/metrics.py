"""`/metrics`: the server's metrics in Prometheus' text format, for requests with the token."""

import asyncio
import hmac
from collections.abc import Iterator
from http import HTTPStatus
from importlib.metadata import version

import asyncpg
from prometheus_client import GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0
from prometheus_client.registry import Collector
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ..core.credentials.device_keys import DeviceKind
from ..delivery.connections import Connections
from ..engine.authorizer import Authorizer
from ..ledger.database import is_available
from ..ledger.failures import alarms
from ..supervision import Supervisor
from ..telemetry.metrics import Metrics


class MetricsPage(Collector):
    """The metrics page. Scrapes run one after another, so that they use at most one connection from the pool."""

    def __init__(
        self,
        metrics: Metrics,
        authorizer: Authorizer,
        connections: Connections,
        pool: asyncpg.Pool,
        supervisor: Supervisor,
        *,
        token: SecretStr | None,
        probe_timeout_s: float,
    ) -> None:
        self._authorization = None if token is None else f"Bearer {token.get_secret_value()}".encode()
        self._probe_timeout_s = probe_timeout_s
        self._metrics = metrics
        self._authorizer = authorizer
        self._connections = connections
        self._pool = pool
        self._supervisor = supervisor
        self._database_up = False
        self._one_at_a_time = asyncio.Lock()
        metrics.registry.register(self)
        self._process = ProcessCollector(registry=None)
        self._process_metrics: list[Metric] = []
        GCCollector(registry=metrics.registry)

    async def show(self, request: Request) -> Response:
        """Respond 200 with the metrics, 401 without the token, or 403 if no token is configured."""
        if self._authorization is None:
            return PlainTextResponse(
                "/metrics is disabled. Set POS_METRICS_TOKEN and send it as a bearer token.\n", HTTPStatus.FORBIDDEN
            )
        authorization = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(authorization, self._authorization):
            headers = {"WWW-Authenticate": "Bearer"}
            return PlainTextResponse(
                "The token is missing or wrong. Send POS_METRICS_TOKEN as a bearer token.\n",
                HTTPStatus.UNAUTHORIZED,
                headers,
            )
        async with self._one_at_a_time:
            self._database_up = await is_available(self._pool, timeout_s=self._probe_timeout_s)
            # In a thread, because it lists the open files: with ten thousand connections, most of a scrape's time.
            self._process_metrics = await asyncio.to_thread(lambda: [*self._process.collect()])
            self._metrics.count_rejected(self._authorizer.rejected)
            text = generate_latest(self._metrics.registry)
        return Response(text, headers={"Content-Type": CONTENT_TYPE_PLAIN_1_0_0, "Cache-Control": "no-store"})

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics whose values are read at the scrape."""
        yield from self._process_metrics
        yield GaugeMetricFamily("pos_queue_operations", "Operations that wait in the queue.", self._authorizer.queued)
        connections = GaugeMetricFamily("pos_connections", "Devices that are connected.", labels=["kind"])
        by_kind = self._connections.by_kind()
        for kind in DeviceKind:
            connections.add_metric([kind.value], by_kind[kind])
        yield connections
        yield GaugeMetricFamily(
            "pos_database_up",
            "Whether the database answered at the scrape and accepts writes: 1 or 0.",
            int(self._database_up),
        )
        restarts = CounterMetricFamily(
            "pos_task_restarts", "Long-lived tasks that ended by a failure and are started again.", labels=["task"]
        )
        down = GaugeMetricFamily(
            "pos_task_down", "Whether a task has failed and waits for its restart: 1 or 0.", labels=["task"]
        )
        for name, state in self._supervisor.states.items():
            restarts.add_metric([name], state.restarts)
            down.add_metric([name], int(state.is_down))
        yield restarts
        yield down
        yield CounterMetricFamily("pos_database_errors", "Database errors after which a person has to act.", alarms())
        build = GaugeMetricFamily("pos_build_info", "1, with the server's version.", labels=["version"])
        build.add_metric([version("pos-server")], 1)
        yield build
