"""The composition root: everything is wired here, and only here."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

import structlog
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from .admission import Admission
from .api.activations import Activations
from .api.asyncapi import AsyncApi
from .api.health import Health
from .api.problems import Problem
from .authorizer import Authorizer, AuthorizerLimits
from .connections import Connections, OutboxLimits
from .core.device_keys import Keyring
from .core.errors import CloseCode
from .core.lockout import FailureLimit
from .core.messages import Draining, encode
from .core.notices import Outcome, notices
from .core.payments import Decided, DeclineCode
from .gateway.terminal import TerminalEndpoint
from .gateway.wallet import WalletEndpoint
from .ledger.database import create_pool
from .revocation import watch_revocations
from .settings import Settings

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
    connections = Connections(OutboxLimits(settings.outbox_messages_max, settings.outbox_bytes_max))
    bad_codes = FailureLimit(settings.bad_codes_max, settings.bad_codes_window_s, settings.addresses_tracked_max)

    def publish(outcome: Outcome, reply_to: str) -> None:
        if (
            isinstance(outcome, Decided)
            and not outcome.replayed
            and outcome.payment.decline_code is DeclineCode.CODE_INVALID
        ):
            bad_codes.record(outcome.scan.terminal_number, time.monotonic())
        for recipient, message in notices(outcome, reply_to):
            connections.deliver(recipient, encode(message))

    limits = AuthorizerLimits(
        queue_scans_max=settings.queue_scans_max,
        terminal_scans_max=settings.terminal_scans_max,
        batch_scans_max=settings.batch_scans_max,
        batch_attempts_max=settings.batch_attempts_max,
        batch_timeout_s=settings.batch_timeout_s,
        scan_deadline_s=settings.scan_deadline_s,
        connect_timeout_s=settings.database_connect_timeout_s,
        code_expired_steps=settings.code_expired_steps,
    )
    authorizer = Authorizer(dsn, keyring, limits, publish)
    pool = await create_pool(dsn, timeout_s=settings.database_connect_timeout_s, size_max=settings.database_pool_max)
    terminals = TerminalEndpoint(settings, keyring, admission, connections, pool, authorizer, bad_codes)
    wallets = WalletEndpoint(settings, keyring, admission, connections, pool)
    activations = Activations(settings, keyring, pool, connections)
    health = Health(admission, pool)
    rest = Starlette(
        routes=[
            Route("/v1/activations", activations.create, methods=["POST"]),
            Route("/asyncapi.json", AsyncApi(settings).show),
            Route("/healthz", health.alive),
            Route("/readyz", health.ready),
        ],
        exception_handlers={Problem: _problem_response, ClientDisconnect: _gone},
    )
    devices = {"/v1/terminal": terminals.serve, "/v1/wallet": wallets.serve}

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        # Past Starlette's routes and middleware, whose frames every idle connection would keep: see docs/benchmarks.md.
        serve = devices.get(scope["path"]) if scope["type"] == "websocket" else None
        if serve is None:
            await rest(scope, receive, send)
        else:
            await serve(WebSocket(scope, receive, send))

    tasks = [
        asyncio.create_task(authorizer.run(), name="authorizer"),
        asyncio.create_task(watch_revocations(pool, connections, settings.revocation_check_s), name="revocation"),
    ]
    try:
        await authorizer.warm_up()
        yield PosApp(asgi, admission, authorizer, connections, settings)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        pool.terminate()


async def _problem_response(request: Request, error: Exception) -> Response:
    if not isinstance(error, Problem):
        raise error
    return error.response()


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=HTTPStatus.BAD_REQUEST)  # nobody is there to read it
