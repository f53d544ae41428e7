"""The responses to exceptions that no handler turned into an answer."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...core.errors import ErrorCode
from ...core.rest.problems import ProblemCode
from ...ledger.failures import Phase, classify
from .dispatch import request_id_of
from .problems import RETRY_AFTER_S, Problem, problem


async def _problem(request: Request, error: Exception) -> Response:
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


async def _fault(request: Request, error: Exception) -> Response:
    """Return the response to a bug, which Starlette raises again afterwards, so that it is logged."""
    phase = Phase.READ if request.method in ("GET", "HEAD") else Phase.WRITE
    return problem(classify(error, phase).answer, retry_after_s=RETRY_AFTER_S).response(request_id_of(request))


async def _client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=HTTPStatus.BAD_REQUEST)  # nobody is there to read it


def answered_at_shutdown(app: ASGIApp) -> ASGIApp:
    """Return an application that answers requests which are cut off at the end of a drain."""

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        has_started = False

        async def send_and_note(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await app(scope, receive, send_and_note)
        except asyncio.CancelledError:
            if scope["type"] != "http" or has_started:
                raise
            is_read = scope["method"] in ("GET", "HEAD")
            code = ErrorCode.BUSY if is_read else ErrorCode.UNKNOWN_OUTCOME
            await problem(code, retry_after_s=1).response()(scope, receive, send)

    return asgi


ERROR_RESPONSES: Mapping[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    Problem: _problem,
    HTTPException: _no_route,
    ClientDisconnect: _client_gone,
    Exception: _fault,
}
