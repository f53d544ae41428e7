"""One request to any endpoint of the REST API: path, query and body in; a model out.

A request is retried a bounded number of times where that is safe:

- the connection was lost;
- the server is busy (503), or a gateway in front of it timed out (502, 504);
- the API key exceeded a limit (429);
- the same request is still being processed (409 `in_progress`).

Retries of a create keep its `Idempotency-Key`. A conditional replace (`If-Match`) is not retried once it may have been
processed, because the first attempt would make the second fail.
"""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx
from pydantic import ValidationError

from pos_server.core.credentials.api_keys import API_KEY_CHARS_MAX
from pos_server.core.errors import ErrorCode
from pos_server.core.rest.endpoints import IDEMPOTENCY_KEY_CHARS_MAX, Endpoint, Kind
from pos_server.core.rest.fields import PAGE_MAX, Body, Page, Parameters, Resource
from pos_server.core.rest.problems import ProblemCode, ProblemDetails

from ..device.backoff import Backoff
from ..device.credentials import parse_server_url
from ..errors import ApiError

ATTEMPTS_MAX = 8
REQUEST_TIMEOUT_S = 20.0
RETRY_AFTER_S_MAX = 10
_KEY = re.compile(rf"[!-~]{{1,{API_KEY_CHARS_MAX}}}")
_SECONDS = re.compile(r"[0-9]{1,6}")
_IDEMPOTENCY_KEY = re.compile(rf"[!-~]{{1,{IDEMPOTENCY_KEY_CHARS_MAX}}}")
_RETRY_STATUSES = {
    httpx.codes.TOO_MANY_REQUESTS,
    httpx.codes.BAD_GATEWAY,
    httpx.codes.SERVICE_UNAVAILABLE,
    httpx.codes.GATEWAY_TIMEOUT,
}
# The server returns these codes before it processes anything.
_NOT_DONE = {ErrorCode.BUSY, ErrorCode.DRAINING}
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)

AnswerT = TypeVar("AnswerT", bound=Resource)
ItemT = TypeVar("ItemT", bound=Resource)


@dataclass(frozen=True, slots=True)
class Answer(Generic[AnswerT]):
    """A response. `etag` is the resource's version for `if_match`, None for a resource without versions.

    `is_repeat`: an earlier request with the same `Idempotency-Key` created the resource.
    """

    resource: AnswerT
    etag: str | None
    is_repeat: bool


class ApiCalls:
    """Requests of one API key to the server at `url`. Use it as an async context manager.

    Raises ValueError when `url` is not a URL or `key` is not an API key.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        backoff: Backoff | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        if _KEY.fullmatch(key) is None:
            raise ValueError("an API key has 1 to 128 printable ASCII characters")
        self._url = parse_server_url(url)
        self._backoff = backoff or Backoff()
        # Following a redirect would send the key to another server.
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"}, timeout=REQUEST_TIMEOUT_S, transport=transport
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def call(
        self,
        endpoint: Endpoint,
        answer: type[AnswerT],
        path: Parameters | None = None,
        *,
        query: Parameters | None = None,
        body: Body | None = None,
        idempotency_key: str | None = None,
    ) -> AnswerT:
        """Send a request and return the resource of its response. See `ask`."""
        response = await self.ask(endpoint, answer, path, query=query, body=body, idempotency_key=idempotency_key)
        return response.resource

    async def ask(
        self,
        endpoint: Endpoint,
        answer: type[AnswerT],
        path: Parameters | None = None,
        *,
        query: Parameters | None = None,
        body: Body | None = None,
        idempotency_key: str | None = None,
        if_match: str | None = None,
    ) -> Answer[AnswerT]:
        """Send a request to `endpoint` and return its response with a resource of the type `answer`.

        A create without `idempotency_key` gets a new one. Raises ApiError; ValueError for an invalid `idempotency_key`.
        """
        if endpoint.kind is Kind.CREATE and idempotency_key is None:
            idempotency_key = str(uuid4())
        if idempotency_key is not None and _IDEMPOTENCY_KEY.fullmatch(idempotency_key) is None:
            raise ValueError(f"an Idempotency-Key has 1 to {IDEMPOTENCY_KEY_CHARS_MAX} printable ASCII characters")
        request = self._request(endpoint, path, query, body, idempotency_key, if_match)
        maybe_done = False
        for attempt in range(ATTEMPTS_MAX):
            wait_s = 0
            try:
                response = await self._client.send(request)
            except httpx.RequestError as error:
                reason = f"no answer from {self._url}: {error or type(error).__name__}"
                failure = ApiError(None, None, reason, idempotency_key=idempotency_key)
                failure.maybe_done = endpoint.kind is not Kind.READ and not isinstance(error, _NOT_SENT)
                may_repeat = True
            else:
                if response.is_success:
                    return self._answer(answer, response, endpoint, idempotency_key)
                failure, may_repeat = self._refusal(response, endpoint, idempotency_key)
                wait_s = _retry_after_s(response)
            # Any attempt counts, because the last one may have been refused before processing.
            maybe_done = failure.maybe_done = maybe_done or failure.maybe_done
            if maybe_done and endpoint.kind is Kind.REPLACE:
                may_repeat = False
            if not may_repeat or wait_s > RETRY_AFTER_S_MAX or attempt + 1 == ATTEMPTS_MAX:
                break
            await self._backoff.sleep(max(wait_s, self._backoff.delay_s(attempt)))
        raise failure from None

    async def items(
        self,
        endpoint: Endpoint,
        page: type[Page[ItemT]],
        path: Parameters | None = None,
        *,
        query: Parameters | None = None,
    ) -> AsyncIterator[ItemT]:
        """Iterate over all items of a list, fetching each page when it is needed. Raises ApiError."""
        query = query or endpoint.query.model_validate({"limit": PAGE_MAX})
        while True:
            items_page = await self.call(endpoint, page, path, query=query)
            for item in items_page.items:
                yield item
            if items_page.next_cursor is None:
                return
            query = query.model_copy(update={"cursor": items_page.next_cursor})

    def _request(
        self,
        endpoint: Endpoint,
        path: Parameters | None,
        query: Parameters | None,
        body: Body | None,
        idempotency_key: str | None,
        if_match: str | None,
    ) -> httpx.Request:
        values = {} if path is None else path.model_dump(mode="json")
        url = self._url + endpoint.path.format(**{name: quote(str(value), safe="") for name, value in values.items()})
        headers = {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        if if_match is not None:
            headers["If-Match"] = if_match
        return self._client.build_request(
            endpoint.method,
            url,
            params=None if query is None else query.model_dump(mode="json", by_alias=True, exclude_none=True),
            # Omitted fields keep their values; null would change them.
            content=None if body is None else body.model_dump_json(exclude_unset=True),
            headers=headers,
        )

    def _answer(
        self, answer: type[AnswerT], response: httpx.Response, endpoint: Endpoint, idempotency_key: str | None
    ) -> Answer[AnswerT]:
        try:
            resource = answer.model_validate_json(response.content)
        except ValidationError:
            # The cause would show the response, which may contain a key.
            detail = f"{self._url} did not return a {answer.__name__}: is it a pos-server of this version?"
            raise ApiError(
                response.status_code,
                None,
                detail,
                request_id=response.headers.get("X-Request-Id"),
                idempotency_key=idempotency_key,
                maybe_done=endpoint.kind is not Kind.READ,
            ) from None
        is_repeat = endpoint.kind is Kind.CREATE and response.status_code == httpx.codes.OK
        return Answer(resource, response.headers.get("ETag"), is_repeat)

    def _refusal(
        self, response: httpx.Response, endpoint: Endpoint, idempotency_key: str | None
    ) -> tuple[ApiError, bool]:
        """Return the error of a failed response, and whether the same request may be retried."""
        status = response.status_code
        try:
            problem = ProblemDetails.model_validate_json(response.content)
        except ValidationError:
            problem = None
        code = None if problem is None else problem.code
        failure = ApiError(
            status,
            code,
            f"{self._url} returned HTTP {status}, is it a pos-server?" if problem is None else problem.detail,
            pointer=None if problem is None else problem.pointer,
            request_id=response.headers.get("X-Request-Id"),
            idempotency_key=idempotency_key,
        )
        is_in_progress = code == ProblemCode.IN_PROGRESS
        is_unclear = is_in_progress or (status >= httpx.codes.INTERNAL_SERVER_ERROR and code not in _NOT_DONE)
        failure.maybe_done = is_unclear and endpoint.kind is not Kind.READ
        # The same request would take too long again.
        may_repeat = code != ProblemCode.TAKES_TOO_LONG and (is_in_progress or status in _RETRY_STATUSES)
        return failure, may_repeat


def _retry_after_s(response: httpx.Response) -> int:
    """Return the `Retry-After` of a response in seconds, 0 without one."""
    text = response.headers.get("Retry-After", "")
    return int(text) if _SECONDS.fullmatch(text) else 0
