"""Dispatch of REST requests: checks, handler, response.

A request is checked in this order: API key (401), rate limit of the key (429), role (403), path (404), query, headers
and body (400, 413, 415), and the limit on concurrent requests (503). The handler receives an `ApiCall` with validated
models, and returns a `Reply` or raises Problem.
"""

import asyncio
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Generic, TypeVar

import structlog
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ...core.credentials.api_keys import ApiKey
from ...core.errors import ErrorCode
from ...core.protocol.codec import first_problem
from ...core.rate_limits import TokenBucket
from ...core.rest.endpoints import IDEMPOTENCY_KEY_CHARS_MAX, Endpoint, Kind
from ...core.rest.fields import Body, Parameters, Resource
from ...core.rest.idempotency import fingerprint
from ...core.rest.problems import ProblemCode
from ...ledger.failures import DATABASE_ERRORS, Phase, classify, report
from ...ledger.reports import QueryTimeout
from ...limits import ApiLimits
from ...telemetry.logs import about_payment, about_request
from .authentication import Authentication
from .bodies import read_json_body
from .languages import accepted_language
from .problems import RETRY_AFTER_S, Problem, database_problem, json_pointer, problem

log = structlog.get_logger(__name__)

ParametersT = TypeVar("ParametersT", bound=Parameters)
QueryT = TypeVar("QueryT", bound=Parameters)
BodyT = TypeVar("BodyT", bound=Body | None)

_PRINTABLE = re.compile(rf"[!-~]{{1,{IDEMPOTENCY_KEY_CHARS_MAX}}}")
QUERY_PARAMETERS_MAX = 20


@dataclass(frozen=True, slots=True)
class ApiCall(Generic[ParametersT, QueryT, BodyT]):
    """A validated request.

    - `idempotency_key`: empty unless the endpoint creates an object.
    - `if_match`: `ETag` of the version that the client has read; empty unless the endpoint replaces an object.
    - `language`: language of texts for people.
    """

    endpoint: Endpoint
    key: ApiKey
    parameters: ParametersT
    query: QueryT
    body: BodyT
    idempotency_key: str
    if_match: str
    language: str

    @property
    def fingerprint(self) -> bytes:
        """16 bytes that are equal for a request and its repeats."""
        body = "" if self.body is None else self.body.model_dump_json()
        return fingerprint(self.endpoint.name, self.parameters.model_dump_json(), body)


@dataclass(frozen=True, slots=True)
class Reply:
    """A successful result. `etag` is the version of the resource, for endpoints with versions."""

    resource: Resource
    status: HTTPStatus = HTTPStatus.OK
    etag: str | None = None


Handler = Callable[[ApiCall[Any, Any, Any]], Awaitable[Reply]]


class Dispatcher:
    """Dispatcher of requests to handlers. There is exactly one handler for the name of each endpoint."""

    def __init__(
        self,
        limits: ApiLimits,
        authentication: Authentication,
        endpoints: Sequence[Endpoint],
        handlers: Mapping[str, Handler],
    ) -> None:
        names = [endpoint.name for endpoint in endpoints]
        if sorted(names) != sorted(handlers):
            raise AssertionError(f"endpoints without a handler, or handlers without one: {set(names) ^ set(handlers)}")
        self._limits = limits
        self._authentication = authentication
        self._endpoints = endpoints
        self._handlers = handlers
        self._rates: OrderedDict[int, TokenBucket] = OrderedDict()
        self._running = 0

    def routes(self) -> list[Route]:
        """Return a route for each path. Fixed paths come before paths with parameters."""
        by_path: dict[str, dict[str, Endpoint]] = {}
        for endpoint in sorted(self._endpoints, key=lambda endpoint: endpoint.path.count("{")):
            by_path.setdefault(endpoint.path, {})[endpoint.method] = endpoint
        return [Route(path, self._endpoint(endpoints), methods=list(endpoints)) for path, endpoints in by_path.items()]

    def _endpoint(self, endpoints: Mapping[str, Endpoint]) -> Callable[[Request], Awaitable[Response]]:
        async def serve(request: Request) -> Response:
            # Starlette also routes HEAD requests to a GET endpoint.
            endpoint = endpoints["GET" if request.method == "HEAD" else request.method]
            started_s = time.monotonic()
            response = await self._respond(endpoint, request)
            log.info(
                "api_request",
                endpoint=endpoint.name,
                status=int(response.status_code),
                seconds=round(time.monotonic() - started_s, 4),
            )
            return response

        return serve

    async def _respond(self, endpoint: Endpoint, request: Request) -> Response:
        request.state.request_id = request_id_of(request)
        about_request(request.state.request_id)
        phase = Phase.READ
        try:
            key = await self._authentication.require(request)
            self._check_rate(key)
            if key.role is not endpoint.role:
                raise problem(ProblemCode.ROLE_MISSING)
            call = await self._read(endpoint, key, request)
            about_payment(getattr(call.parameters, "payment_id", None))
            if endpoint.kind is not Kind.READ:
                phase = Phase.WRITE
            reply = await self._handle(endpoint, call)
        except Problem as error:
            return error.response(request.state.request_id)
        except QueryTimeout:
            return problem(ProblemCode.TAKES_TOO_LONG).response(request.state.request_id)
        except DATABASE_ERRORS as error:
            failure = report(error, phase, during=endpoint.name)
            return database_problem(failure).response(request.state.request_id)
        except Exception as fault:
            log.exception("api_request_failed", endpoint=endpoint.name)
            answer = classify(fault, phase).answer
            return problem(answer, retry_after_s=RETRY_AFTER_S).response(request.state.request_id)
        headers = {"X-Request-Id": request.state.request_id, "Cache-Control": "no-store"}
        if reply.etag is not None:
            headers["ETag"] = reply.etag
        if endpoint.localized:
            headers["Content-Language"] = call.language
        return Response(reply.resource.model_dump_json(), reply.status, headers, media_type="application/json")

    async def _handle(self, endpoint: Endpoint, call: ApiCall[Any, Any, Any]) -> Reply:
        if self._running >= self._limits.requests_max:
            raise problem(ErrorCode.BUSY, retry_after_s=RETRY_AFTER_S)
        self._running += 1
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                return await self._handlers[endpoint.name](call)
        finally:
            self._running -= 1

    def _check_rate(self, key: ApiKey) -> None:
        now_s = time.monotonic()
        rate = self._rates.get(key.key_id)
        if rate is None:
            rate = TokenBucket(self._limits.requests_per_s, self._limits.requests_burst, now_s)
            self._rates[key.key_id] = rate
            if len(self._rates) > self._limits.keys_tracked_max:
                self._rates.popitem(last=False)
        if not rate.take(now_s):
            raise problem(ProblemCode.TOO_MANY_REQUESTS, retry_after_s=RETRY_AFTER_S)

    async def _read(self, endpoint: Endpoint, key: ApiKey, request: Request) -> ApiCall[Any, Any, Any]:
        try:
            parameters = endpoint.parameters.model_validate(request.path_params)
        except ValidationError:
            raise problem(ProblemCode.NOT_FOUND) from None
        query = _query(endpoint, request)
        idempotency_key, if_match = "", ""
        if endpoint.kind is Kind.CREATE:
            idempotency_key = request.headers.get("idempotency-key", "")
            if _PRINTABLE.fullmatch(idempotency_key) is None:
                raise problem(ProblemCode.IDEMPOTENCY_KEY_MISSING)
        if endpoint.kind is Kind.REPLACE:
            if_match = request.headers.get("if-match", "")
            if not if_match:
                raise problem(ProblemCode.PRECONDITION_REQUIRED)
        body = None
        if endpoint.body is not None:
            body = await read_json_body(request, endpoint.body, self._limits.body_bytes_max)
        return ApiCall(
            endpoint,
            key,
            parameters,
            query,
            body,
            idempotency_key,
            if_match,
            accepted_language(request.headers.get("accept-language", "")),
        )


def _query(endpoint: Endpoint, request: Request) -> Parameters:
    # Before anything reads the string: each name costs a step, and an unknown one an error of its own.
    if request.scope["query_string"].count(b"&") >= QUERY_PARAMETERS_MAX:
        raise problem(ProblemCode.BAD_FIELD, f"The query has more than {QUERY_PARAMETERS_MAX} parameters.")
    parameters = dict[str, str]()
    for name, value in request.query_params.multi_items():
        if name in parameters:
            raise problem(ProblemCode.BAD_FIELD, "The parameter occurs more than once.", pointer=json_pointer([name]))
        parameters[name] = value
    try:
        return endpoint.query.model_validate(parameters)
    except ValidationError as error:
        field, text = first_problem(error)
    raise problem(ProblemCode.BAD_FIELD, text, pointer=json_pointer(field))


def request_id_of(request: Request) -> str:
    """Return the client's `X-Request-Id` if it is safe to log, else a new id."""
    request_id = request.headers.get("x-request-id", "")
    return request_id if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", request_id) else secrets.token_hex(8)
