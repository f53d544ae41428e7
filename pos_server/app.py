"""The composition root: everything is wired here, and only here."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket
from uuid_utils.compat import uuid7

from .api.activations import Activations
from .api.admin import Admin
from .api.asyncapi import AsyncApi
from .api.health import Health
from .api.issuer import Issuer
from .api.merchant_payments import MerchantPayments
from .api.merchant_reports import MerchantReports
from .api.merchant_stores import MerchantStores
from .api.metrics import MetricsPage
from .api.openapi import OpenApi
from .api.support.authentication import Authentication
from .api.support.dispatch import Dispatcher, request_id_of
from .api.support.engine_client import EngineClient
from .api.support.idempotent_create import IdempotentCreate
from .api.support.problems import Problem, problem
from .clock import BusinessDays, now_ms
from .core.credentials.device_keys import DeviceKind, Keyring
from .core.errors import CloseCode
from .core.payments.operations import Decided, Outcome, Scan
from .core.payments.payment import DeclineCode, Status
from .core.payments.rules import Risk, RiskHook
from .core.payments.snapshot import Wallet
from .core.protocol.codec import encode
from .core.protocol.notices import Notice, Recipient, notices
from .core.protocol.server_messages import Draining
from .core.rate_limits import FailureLimit
from .core.rest.catalogue import ENDPOINTS
from .core.rest.problems import ProblemCode
from .delivery.connections import Connection, Connections, OutboxLimits
from .delivery.peers import Peers
from .delivery.revocation import watch_revocations
from .engine.authorizer import Authorizer, AuthorizerLimits
from .engine.batch_record import BatchRecord
from .engine.expiry import Sweeper
from .gateway.admission import Admission
from .gateway.pin_hasher import PinHasher
from .gateway.terminal import TerminalEndpoint
from .gateway.wallet import WalletEndpoint
from .ledger.database import create_pool
from .ledger.leadership import lead
from .ledger.reports import Reports
from .ledger.rollup import RollUp
from .settings import Settings
from .telemetry.metrics import Metrics
from .telemetry.traces import open_traces

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PosApp:
    """The ASGI application, and how to end it in order before its sockets are closed."""

    asgi: ASGIApp
    admission: Admission
    authorizer: Authorizer
    connections: Connections
    settings: Settings

    async def drain(self) -> None:
        """Take nothing new, finish what was accepted, push it, and send every device away. Bounded by a setting."""
        self.admission.draining = True
        self.authorizer.close()
        try:
            async with asyncio.timeout(self.settings.drain_timeout_s):
                await self.authorizer.drained()
                goodbye = encode(Draining(reconnect_within_s=self.settings.drain_reconnect_within_s))
                for connection in self.connections:
                    connection.deliver(goodbye)
                    connection.close(CloseCode.DRAINING, "the server is restarting")
                await self.connections.all_gone()
        except TimeoutError:
            log.warning("drain_timed_out", connections=len(self.connections))


@asynccontextmanager
async def open_app(settings: Settings, keyring: Keyring, dsn: str) -> AsyncIterator[PosApp]:
    """The application with its database connections and its engine running. The database is migrated already."""
    admission = Admission(settings)
    metrics = Metrics() if settings.metrics else None
    traces = open_traces(settings.trace_sample)
    connections = Connections(OutboxLimits(settings.outbox_messages_max, settings.outbox_bytes_max), metrics)
    bad_codes = FailureLimit(settings.bad_codes_max, settings.bad_codes_window_s, settings.addresses_tracked_max)

    def is_online(recipient: Recipient) -> bool:
        return connections.is_online(recipient) or peers.is_online(recipient)

    def tell(notice: Notice) -> None:
        connections.deliver(notice.recipient, lambda language: encode(notice.render(language)))
        peers.tell(notice)

    async def catch_up(connection: Connection, since_ms: int) -> None:
        endpoint = terminals if connection.device.kind is DeviceKind.TERMINAL else wallets
        missed = await endpoint.missed(connection.device.number, connection.language, since_ms)
        if missed is None:
            connection.close(CloseCode.UNAVAILABLE, "too much was missed, come back")
        for message in missed or ():
            connection.deliver(encode(message))

    def publish(outcome: Outcome, reply_to: str | None) -> None:
        wallet_online = True
        if isinstance(outcome, Decided):
            if not outcome.replayed and outcome.payment.decline_code is DeclineCode.CODE_INVALID:
                bad_codes.record(outcome.payment.terminal_number, time.monotonic())
            if outcome.wallet is not None and outcome.payment.status is Status.PENDING:
                wallet_online = is_online(Recipient(DeviceKind.WALLET, outcome.wallet.number))
        for notice in notices(outcome, reply_to, wallet_online=wallet_online):
            tell(notice)

    watches = [watching.batch for watching in (metrics, traces) if watching is not None]

    def watch(record: BatchRecord) -> None:
        for told in watches:
            told(record)

    limits = AuthorizerLimits(
        queue_operations_max=settings.queue_operations_max,
        device_operations_max=settings.device_operations_max,
        lanes=settings.batch_lanes,
        batch_operations_max=settings.batch_operations_max,
        batch_attempts_max=settings.batch_attempts_max,
        batch_timeout_s=settings.batch_timeout_s,
        operation_deadline_s=settings.operation_deadline_s,
        connect_timeout_s=settings.database_connect_timeout_s,
    )
    rules = settings.rules()
    rules = replace(rules, risk=_guarded(rules.risk))
    days = BusinessDays(settings.time_zone)
    authorizer = Authorizer(
        dsn, keyring, rules, limits, publish, day_start_ms=days.start_ms, watch=watch if watches else None
    )
    sweeper = Sweeper(authorizer, now_ms, settings.expiry_batch_max)
    pins = PinHasher(settings, keyring)
    peers = Peers(
        dsn,
        connections,
        catch_up,
        now_ms=now_ms,
        alive_s=settings.peers_alive_s,
        queue_max=settings.peers_queue_max,
        timeout_s=settings.database_connect_timeout_s,
    )
    pool = await create_pool(dsn, timeout_s=settings.database_connect_timeout_s, size_max=settings.database_pool_max)
    terminals = TerminalEndpoint(
        settings,
        keyring,
        admission,
        connections,
        peers,
        pool,
        authorizer,
        bad_codes,
        new_id=uuid7,
        is_online=is_online,
    )
    wallets = WalletEndpoint(settings, keyring, admission, connections, peers, pool, authorizer, rules, pins, tell=tell)
    activations = Activations(settings, keyring, pool, connections, peers)
    authentication = Authentication(settings, pool)
    health = Health(admission, pool, probe_timeout_s=settings.probe_timeout_s)
    openapi = OpenApi()
    page = None if metrics is None else MetricsPage(settings, metrics, authorizer, connections, pool)
    creating = IdempotentCreate(pool, keyring)
    engine = EngineClient(authorizer, admission)
    reports = Reports(pool, at_once_max=settings.api_reports_max, timeout_s=settings.api_report_timeout_s)
    issuer = Issuer(settings, pool, creating, engine, connections, peers, tell=tell)
    places = MerchantStores(pool, creating, activation_ttl_s=settings.activation_ttl_s, tell=tell)
    payments = MerchantPayments(pool, reports, engine, bad_codes, new_id=uuid7, is_online=is_online)
    books = MerchantReports(reports, now_ms=now_ms)
    handlers = {
        **Admin(pool, creating).handlers(),
        **issuer.handlers(),
        **places.handlers(),
        **payments.handlers(),
        **books.handlers(),
    }
    dispatcher = Dispatcher(settings, authentication, ENDPOINTS, handlers)
    rest = Starlette(
        routes=[
            *dispatcher.routes(),
            Route("/v1/activations", activations.create, methods=["POST"]),
            Route("/asyncapi.json", AsyncApi(settings).show),
            Route("/openapi.json", openapi.show),
            Route("/docs", openapi.page),
            Route("/healthz", health.alive),
            Route("/readyz", health.ready),
            *([] if page is None else [Route("/metrics", page.show)]),
        ],
        exception_handlers={Problem: _problem_response, HTTPException: _no_route, ClientDisconnect: _gone},
    )
    devices = {"/v1/terminal": terminals.serve, "/v1/wallet": wallets.serve}

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        # Past Starlette's routes and middleware, whose frames every idle connection would keep: see docs/benchmarks.md.
        serve = devices.get(scope["path"]) if scope["type"] == "websocket" else None
        if serve is None:
            await rest(scope, receive, send)
        else:
            await serve(WebSocket(scope, receive, send))

    tasks = list[asyncio.Task[None]]()
    try:
        # Before anything can be submitted: the engine's connection serves one at a time.
        await authorizer.warm_up()
        await peers.start()
        leading = lead(
            dsn,
            [sweeper.sweep, RollUp().step],
            every_s=settings.expiry_check_s,
            timeout_s=settings.database_connect_timeout_s,
        )
        tasks += [
            asyncio.create_task(authorizer.run(), name="authorizer"),
            asyncio.create_task(watch_revocations(pool, connections, settings.revocation_check_s), name="revocation"),
            asyncio.create_task(leading, name="expiry"),
            asyncio.create_task(peers.run(), name="peers"),
        ]
        yield PosApp(asgi, admission, authorizer, connections, settings)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        pins.close()
        pool.terminate()
        if traces is not None:
            await traces.close()


def _guarded(hook: RiskHook) -> RiskHook:
    """A hook that fails asks for the PIN: neither a free pass nor a closed shop."""

    def guarded(scan: Scan, wallet: Wallet) -> Risk:
        try:
            risk = hook(scan, wallet)
            return risk if type(risk) is Risk else Risk(risk)
        except Exception:
            log.exception("risk_hook_failed", payment_id=str(scan.payment_id))
            return Risk.ASK_PIN

    return guarded


async def _problem_response(request: Request, error: Exception) -> Response:
    if not isinstance(error, Problem):
        raise error
    return error.response()


async def _no_route(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    code = (
        ProblemCode.METHOD_NOT_ALLOWED if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED else ProblemCode.NOT_FOUND
    )
    response = problem(code).response(request_id_of(request))
    response.headers.update(error.headers or {})
    return response


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=HTTPStatus.BAD_REQUEST)  # nobody is there to read it
