"""The composition root: every part is wired here, and nothing else happens here."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp
from uuid_utils.compat import uuid7

from .api.activations import Activations
from .api.admin import Admin
from .api.asyncapi import AsyncApi
from .api.docs import Docs
from .api.health import Health
from .api.issuer import Issuer
from .api.merchant_payments import MerchantPayments
from .api.merchant_reports import MerchantReports
from .api.merchant_stores import MerchantStores
from .api.metrics import MetricsPage
from .api.openapi import OpenApi
from .api.support.authentication import Authentication
from .api.support.dispatch import Dispatcher
from .api.support.engine_client import EngineClient
from .api.support.error_responses import ERROR_RESPONSES, answered_at_shutdown
from .api.support.idempotent_create import IdempotentCreate
from .business_days import CurrentDay
from .clock import now_ms
from .core.credentials.device_keys import Keyring
from .core.rate_limits import FailureLimit
from .core.rest.catalogue import ENDPOINTS
from .delivery.connections import Connections
from .delivery.peers import Peers
from .delivery.publisher import Publisher
from .delivery.revocation import watch_revocations
from .engine.authorizer import LANE_PAUSE_S_MAX, Authorizer
from .engine.batch_record import fan_out
from .engine.expiry import Sweeper
from .engine.risk_hook import guarded
from .gateway.admission import Admission
from .gateway.catch_up import CatchUp
from .gateway.device import Backend
from .gateway.drain import drain
from .gateway.pin_hasher import PinHasher
from .gateway.routes import device_routes
from .gateway.terminal import TerminalEndpoint
from .gateway.wallet import WalletEndpoint
from .ledger.database import create_pool
from .ledger.leadership import lead
from .ledger.reports import Reports
from .ledger.rollup import RollUp
from .settings import Settings
from .supervision import Supervisor
from .telemetry.metrics import Metrics
from .telemetry.traces import open_traces


@dataclass(frozen=True, slots=True)
class PosApp:
    """The ASGI application. `drain` ends it in order, before its sockets are closed."""

    asgi: ASGIApp
    drain: Callable[[], Awaitable[None]]


@asynccontextmanager
async def open_app(settings: Settings, keyring: Keyring, dsn: str) -> AsyncIterator[PosApp]:
    """Open the application, with its database connections and its engine running. The database is migrated already."""
    timeout_s = settings.database_connect_timeout_s
    supervisor = Supervisor()
    metrics = Metrics() if settings.metrics else None
    traces = open_traces(settings.trace_sample)
    rules = settings.rules()
    rules = replace(rules, risk=guarded(rules.risk))
    forged_codes = settings.forged_codes()
    connections = Connections(settings.outbox_limits(), metrics)
    peers = Peers(
        dsn,
        connections,
        now_ms=now_ms,
        alive_s=settings.peers_alive_s,
        queue_max=settings.peers_queue_max,
        timeout_s=timeout_s,
    )
    publisher = Publisher(connections, peers, forged_codes)
    authorizer = Authorizer(
        dsn,
        keyring,
        rules,
        settings.authorizer_limits(),
        publisher.publish,
        day_start_ms=CurrentDay(settings.time_zone).start_ms,
        watch=fan_out([part.batch for part in (metrics, traces) if part is not None]),
    )
    admission = Admission(settings.admission_limits(), is_draining=lambda: authorizer.is_closed)
    pin_hasher = PinHasher(settings.pin_hasher_limits(), keyring)
    pool = await create_pool(dsn, timeout_s=timeout_s, size_max=settings.database_pool_max)
    backend = Backend(keyring, admission, publisher, pool, authorizer)
    terminals = TerminalEndpoint(settings.device_limits(), backend, forged_codes, new_id=uuid7)
    wallets = WalletEndpoint(settings.device_limits(), backend, rules, pin_hasher)
    rest = _rest_api(settings, backend, forged_codes, connections, metrics, supervisor)
    asgi = device_routes({"/v1/terminal": terminals, "/v1/wallet": wallets}, otherwise=answered_at_shutdown(rest))
    try:
        # Before anything can be submitted: the engine's connection serves one at a time.
        await authorizer.warm_up()
        catch_up = CatchUp(
            pool,
            connections,
            [terminals, wallets],
            page_payments=settings.resume_payments_max,
            lag_ms=int(settings.notice_lag_s * 1000),
        )
        await peers.start(catch_up.request)
        sweep = Sweeper(authorizer, now_ms, settings.expiry_batch_max).sweep
        leading = partial(lead, dsn, [sweep, RollUp().step], every_s=settings.expiry_check_s, timeout_s=timeout_s)
        watching = partial(watch_revocations, pool, connections, settings.revocation_check_s)
        # Needed are the tasks that payments or safety depend on at this server: docs/operations.md gives the reasons.
        for number, lane in enumerate(authorizer.lanes(), 1):
            supervisor.start(f"lane-{number}", lane, needed=True, pause_s_max=LANE_PAUSE_S_MAX)
        supervisor.start("revocation", watching, needed=True)
        supervisor.start("peers", peers.run, needed=True)
        supervisor.start("leader", leading, needed=False)
        supervisor.start("catch-up", catch_up.run, needed=False)
        yield PosApp(asgi, partial(drain, settings.drain_limits(), authorizer, connections))
    finally:
        await supervisor.stop()
        await peers.leave()
        pin_hasher.close()
        pool.terminate()
        if traces is not None:
            await traces.close()


def _rest_api(
    settings: Settings,
    backend: Backend,
    forged_codes: FailureLimit,
    connections: Connections,
    metrics: Metrics | None,
    supervisor: Supervisor,
) -> Starlette:
    keyring, pool, publisher, authorizer = backend.keyring, backend.pool, backend.publisher, backend.authorizer
    creator = IdempotentCreate(pool, keyring)
    engine = EngineClient(authorizer)
    reports = Reports(pool, concurrent_max=settings.api_reports_max, timeout_s=settings.api_report_timeout_s)
    activation_ttl_s, probe_timeout_s = settings.activation_ttl_s, settings.probe_timeout_s
    handlers = {
        **Admin(pool, creator).handlers(),
        **Issuer(pool, creator, engine, publisher, activation_ttl_s=activation_ttl_s).handlers(),
        **MerchantStores(pool, creator, publisher, activation_ttl_s=activation_ttl_s).handlers(),
        **MerchantPayments(pool, reports, engine, publisher, forged_codes, new_id=uuid7).handlers(),
        **MerchantReports(reports, now_ms=now_ms).handlers(),
    }
    authentication = Authentication(pool, settings.wrong_api_keys())
    dispatcher = Dispatcher(settings.api_limits(), authentication, ENDPOINTS, handlers)
    activations = Activations(
        keyring,
        pool,
        publisher,
        settings.wrong_activation_codes(),
        body_bytes_max=settings.activation_body_bytes_max,
    )
    health = Health(authorizer, pool, supervisor, probe_timeout_s=probe_timeout_s)
    routes = [
        *dispatcher.routes(),
        Route("/v1/activations", activations.create, methods=["POST"]),
        Route("/asyncapi.json", AsyncApi(settings.wire_limits()).show),
        Route("/openapi.json", OpenApi().show),
        *Docs().routes(),
        Route("/healthz", health.alive),
        Route("/readyz", health.ready),
    ]
    if metrics is not None:
        token = settings.metrics_token
        page = MetricsPage(
            metrics, authorizer, connections, pool, supervisor, token=token, probe_timeout_s=probe_timeout_s
        )
        routes.append(Route("/metrics", page.show))
    return Starlette(routes=routes, exception_handlers=ERROR_RESPONSES)
