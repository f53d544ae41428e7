"""ApiClient against a fake server; tests/api/test_client.py uses the real one."""

import inspect
import json
import logging
import re
from collections.abc import AsyncIterator
from typing import Any, get_args, get_origin, get_type_hints

import httpx
import pytest

from pos_client import ApiClient, ApiError
from pos_client.rest.calls import ATTEMPTS_MAX, ApiCalls
from pos_client.rest.calls import Answer as AnAnswer
from pos_server.core.credentials.api_keys import Role
from pos_server.core.rest.admin import ApiKeyCreate, ApiKeyCreated, MerchantChange, MerchantCreate
from pos_server.core.rest.catalogue import ENDPOINTS
from pos_server.core.rest.endpoints import Endpoint, Kind
from pos_server.core.rest.fields import Body, Page, Resource
from tests.pos_client.device.test_activation import Answer, problem
from tests.pos_client.fake_time import RecordedSleeps, no_wait

KEY = "pos_admin_" + "k" * 52
KIOSK = MerchantCreate(name="Kiosk", currency="EUR")
MERCHANT = {
    "merchant_id": 7,
    "name": "Kiosk",
    "currency": "EUR",
    "status": "active",
    "fee_bps": 0,
    "fee_fixed_minor": 0,
    "time_zone": "UTC",
    "cut_off": "00:00",
}
CREATED = httpx.Response(201, json=MERCHANT | {"field of a newer server": 1})


class Server(httpx.MockTransport):
    """A server that returns its answers in order and records the requests."""

    def __init__(self, *answers: Answer) -> None:
        self.requests: list[httpx.Request] = []
        self._answers = list(answers)
        super().__init__(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def idempotency_keys(self) -> list[str | None]:
        return [request.headers.get("Idempotency-Key") for request in self.requests]


def client(server: Server, sleeps: RecordedSleeps | None = None) -> ApiClient:
    return ApiClient("http://pos.test/", KEY, backoff=no_wait(sleeps), transport=server)


def test_every_endpoint_has_a_method_with_its_models() -> None:
    for operation in ENDPOINTS:
        method = getattr(ApiClient, re.sub(r"(?<!^)(?=[A-Z])", "_", operation.name).lower())
        assert method.__doc__, operation.name
        hints = get_type_hints(method)
        answer = hints["return"]
        if issubclass(operation.response, Page):
            assert get_origin(answer) is AsyncIterator, operation.name
            assert operation.response is Page[get_args(answer)[0]]  # type: ignore[misc]
        else:
            assert answer == (AnAnswer[operation.response] if operation.versioned else operation.response)  # type: ignore[name-defined]
            assert ("if_match" in hints) == (operation.kind is Kind.REPLACE), operation.name
        bodies = [hint for hint in hints.values() if inspect.isclass(hint) and issubclass(hint, Body)]
        assert bodies == ([] if operation.body is None else [operation.body]), operation.name
        assert ("idempotency_key" in hints) == (operation.kind is Kind.CREATE), operation.name


@pytest.mark.asyncio
async def test_requests_and_responses() -> None:
    server = Server(CREATED, httpx.Response(200, json=MERCHANT), httpx.Response(200, json=MERCHANT))
    async with client(server) as api:
        assert (await api.create_merchant(KIOSK, idempotency_key="first")).merchant_id == 7
        await api.get_merchant(7)
        await api.change_merchant(7, MerchantChange(fee_bps=3))
    sent = [
        (request.method, str(request.url), json.loads(request.content or "null"), request.headers["Authorization"])
        for request in server.requests
    ]
    bearer = f"Bearer {KEY}"
    assert sent == [
        ("POST", "http://pos.test/v1/merchants", {"name": "Kiosk", "currency": "EUR"}, bearer),
        ("GET", "http://pos.test/v1/merchants/7", None, bearer),
        # Omitted fields keep their values.
        ("PATCH", "http://pos.test/v1/merchants/7", {"fee_bps": 3}, bearer),
    ]
    assert server.idempotency_keys == ["first", None, None]


@pytest.mark.asyncio
async def test_retries_keep_the_idempotency_key_until_there_is_an_answer() -> None:
    sleeps = RecordedSleeps()
    server = Server(
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        problem(409, "in_progress", **{"Retry-After": "1"}),
        problem(429, "too_many_requests", **{"Retry-After": "3"}),
        problem(503, "busy", **{"Retry-After": "1"}),
        httpx.Response(502, text="<html>"),
        CREATED,
    )
    async with client(server, sleeps) as api:
        assert (await api.create_merchant(KIOSK)).name == "Kiosk"
    [key] = set(server.idempotency_keys)
    assert key is not None
    assert sleeps.seconds == [0.25, 0.5, 1, 3, 4, 8]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("last", "code", "maybe_done"),
    [
        (httpx.ConnectError("refused"), None, False),
        (httpx.ReadTimeout("slow"), None, True),
        (problem(503, "busy"), "busy", False),
        (problem(503, "unknown_outcome"), "unknown_outcome", True),
        (problem(409, "in_progress"), "in_progress", True),
    ],
)
async def test_the_last_error_says_whether_the_request_may_be_done(
    last: Answer, code: str | None, maybe_done: bool
) -> None:
    server = Server(*[last] * (ATTEMPTS_MAX + 1))
    async with client(server) as api:
        with pytest.raises(ApiError) as error:
            await api.create_merchant(KIOSK, idempotency_key="mine")
        assert (error.value.code, error.value.maybe_done) == (code, maybe_done)
        assert error.value.idempotency_key == "mine"
        assert len(server.requests) == ATTEMPTS_MAX


@pytest.mark.asyncio
async def test_a_later_refusal_does_not_clear_maybe_done() -> None:
    server = Server(httpx.ReadError("cut"), *[problem(503, "busy")] * ATTEMPTS_MAX)
    async with client(server) as api:
        with pytest.raises(ApiError) as error:
            await api.create_merchant(KIOSK)
    assert (error.value.status, error.value.maybe_done) == (503, True)
    assert error.value.idempotency_key == server.idempotency_keys[0]


@pytest.mark.asyncio
async def test_a_read_is_never_maybe_done() -> None:
    async with client(Server(*[httpx.ReadTimeout("slow")] * ATTEMPTS_MAX)) as api:
        with pytest.raises(ApiError, match=r"^no answer from http://pos\.test: slow$") as error:
            await api.get_merchant(7)
    assert (error.value.status, error.value.maybe_done) == (None, False)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            httpx.Response(
                400,
                json={
                    "type": "about:blank",
                    "title": "Bad Request",
                    "status": 400,
                    "detail": "no such time zone",
                    "code": "bad_field",
                    "pointer": "/time_zone",
                },
                headers={"X-Request-Id": "r1"},
            ),
            "no such time zone (HTTP 400, bad_field, /time_zone, request r1)",
        ),
        (problem(422, "idempotency_key_reused", "taken"), "taken (HTTP 422, idempotency_key_reused)"),
        (problem(429, "too_many_attempts", "wait", **{"Retry-After": "60"}), "wait (HTTP 429, too_many_attempts)"),
        (problem(503, "takes_too_long", "less"), "less (HTTP 503, takes_too_long)"),
        (problem(409, "already_refunded", "no"), "no (HTTP 409, already_refunded)"),
        (httpx.Response(500, text="oh"), "http://pos.test returned HTTP 500, is it a pos-server? (HTTP 500)"),
        (httpx.Response(307, headers={"Location": "http://elsewhere.test"}), "returned HTTP 307"),
        (httpx.Response(201, text="<html>"), "did not return a Merchant: is it a pos-server of this version?"),
    ],
)
async def test_a_refused_request_is_not_retried(answer: httpx.Response, text: str) -> None:
    server = Server(answer)
    async with client(server) as api:
        with pytest.raises(ApiError) as error:
            await api.create_merchant(KIOSK)
    assert text in str(error.value)
    assert error.value.status == answer.status_code
    assert len(server.requests) == 1


@pytest.mark.asyncio
async def test_a_list_is_fetched_page_by_page() -> None:
    def page(numbers: range, cursor: str | None) -> httpx.Response:
        items = [MERCHANT | {"merchant_id": number} for number in numbers]
        return httpx.Response(200, json={"items": items, "next_cursor": cursor})

    server = Server(page(range(1, 3), "2"), problem(503, "busy"), page(range(3, 4), None))
    async with client(server) as api:
        merchants = api.list_merchants()
        assert (await anext(merchants)).merchant_id == 1
        assert len(server.requests) == 1
        assert [merchant.merchant_id async for merchant in merchants] == [2, 3]
    queries = [dict(request.url.params) for request in server.requests]
    assert queries == [{"limit": "100"}, *[{"limit": "100", "cursor": "2"}] * 2]


class Note(Body):
    """A request body for this test."""

    text: str


class Noted(Resource):
    """The response of this test's endpoint."""

    text: str


REPLACING = Endpoint(
    name="replaceNote",
    role=Role.ADMIN,
    kind=Kind.REPLACE,
    method="PUT",
    path="/v1/note",
    summary="Replace it.",
    body=Note,
    response=Noted,
    versioned=True,
)


@pytest.mark.asyncio
async def test_a_conditional_replace_is_not_retried_once_it_may_be_done() -> None:
    note = Note(text="new")
    changed = httpx.Response(200, json={"text": "new"}, headers={"ETag": '"2"'})
    server = Server(problem(503, "busy"), changed, httpx.ReadError("cut"))
    async with ApiCalls("http://pos.test", KEY, backoff=no_wait(), transport=server) as api:
        answer = await api.ask(REPLACING, Noted, body=note, if_match='"1"')
        assert (answer.resource, answer.etag, answer.is_repeat) == (Noted(text="new"), '"2"', False)
        with pytest.raises(ApiError) as error:
            await api.ask(REPLACING, Noted, body=note, if_match='"2"')
    assert error.value.maybe_done
    assert [request.headers["If-Match"] for request in server.requests] == ['"1"', '"1"', '"2"']


@pytest.mark.asyncio
async def test_no_log_or_text_contains_a_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    api_key: dict[str, Any] = {
        "key_id": 1,
        "role": "admin",
        "merchant_id": None,
        "name": "x",
        "created_at": "2026-03-02T12:15:12Z",
        "last_used_at": None,
        "ends_at": None,
        "key": "pos_admin_" + "n" * 52,
    }
    answers = [httpx.Response(201, json=api_key), httpx.Response(201, json=api_key | {"role": "king"})]
    async with client(Server(*answers, httpx.ReadError("cut"), problem(401, "unauthorized"))) as api:
        body = ApiKeyCreate(role=Role.ADMIN, name="x")
        texts = [repr(await api.create_api_key(body)), repr(api)]
        for _ in range(2):
            with pytest.raises(ApiError) as error:
                await api.create_api_key(body)
            texts += [str(error.value), repr(error.value), repr(error.value.__cause__)]
    for secret in (KEY, api_key["key"]):
        assert secret not in "".join(texts) + caplog.text
    assert ApiKeyCreated.model_validate(api_key).key == api_key["key"]


@pytest.mark.parametrize("key", ["", "pos admin", "schlüssel", "k" * 129, "k\n"])
def test_an_invalid_key_is_a_value_error_that_does_not_show_it(key: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII") as error:
        ApiClient("http://pos.test", key)
    assert not key or key not in str(error.value)
    with pytest.raises(ValueError, match="URL"):
        ApiClient("pos.test", KEY)


@pytest.mark.asyncio
async def test_an_invalid_idempotency_key_is_a_value_error() -> None:
    async with client(Server()) as api:
        for key in ("", "a b", "x" * 65, "é"):
            with pytest.raises(ValueError, match="printable ASCII"):
                await api.create_merchant(KIOSK, idempotency_key=key)
