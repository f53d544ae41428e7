import json
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from pos_client.device.activation import ATTEMPTS_MAX, activate, request_id_for
from pos_client.errors import ActivationError, CredentialsError
from pos_server.core.credentials.device_keys import DeviceKind
from tests.pos_client.fake_server import DEVICE_KEY, credentials
from tests.pos_client.fake_time import RecordedSleeps, no_wait

CODE = "4F7K-20QX-M8ZD-9T3C"
REQUEST_ID = UUID("01890000-0000-7000-8000-000000000001")
ACTIVATION = {
    "kind": "terminal",
    "number": 7,
    "slot": 0,
    "kid": "k1",
    "device_key": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    "currency": "EUR",
    "name": "A device",
}
Answer = httpx.Response | Exception


def problem(status: int, code: str, detail: str = "", **headers: str) -> httpx.Response:
    body = {"type": "about:blank", "title": "No", "status": status, "detail": detail, "code": code}
    return httpx.Response(
        status, content=json.dumps(body), headers={"Content-Type": "application/problem+json", **headers}
    )


class Server(httpx.MockTransport):
    """A server that returns its answers in order and records the request bodies."""

    def __init__(self, *answers: Answer) -> None:
        self.bodies: list[dict[str, str]] = []
        self._answers = list(answers)
        super().__init__(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        assert (request.method, str(request.url)) == ("POST", "http://pos.test/v1/activations")
        self.bodies.append(json.loads(request.content))
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.asyncio
async def test_a_code_becomes_credentials() -> None:
    server = Server(httpx.Response(200, json=ACTIVATION))
    issued = await activate("http://pos.test/", CODE, request_id=REQUEST_ID, transport=server)
    assert issued == credentials(DeviceKind.TERMINAL, "http://pos.test")
    assert issued.device_key == DEVICE_KEY
    assert server.bodies == [{"activation_code": CODE, "request_id": str(REQUEST_ID)}]


@pytest.mark.asyncio
async def test_a_retry_uses_the_same_request_id() -> None:
    sleeps = RecordedSleeps()
    server = Server(
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        problem(503, "unavailable"),
        problem(429, "too_many_requests", **{"Retry-After": "3"}),
        httpx.Response(200, json=ACTIVATION),
    )
    await activate("http://pos.test", CODE, request_id=REQUEST_ID, backoff=no_wait(sleeps), transport=server)
    assert {body["request_id"] for body in server.bodies} == {str(REQUEST_ID)}
    assert sleeps.seconds == [0.25, 0.5, 1.0, 3]


@pytest.mark.asyncio
async def test_activation_ends_after_a_bounded_number_of_attempts() -> None:
    server = Server(*[httpx.ConnectError("refused")] * (ATTEMPTS_MAX + 1))
    with pytest.raises(ActivationError, match=r"cannot reach http://pos\.test: refused") as error:
        await activate("http://pos.test", CODE, request_id=REQUEST_ID, backoff=no_wait(), transport=server)
    assert error.value.retryable
    assert len(server.bodies) == ATTEMPTS_MAX


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("answer", "text", "code"),
    [
        (problem(404, "activation_unknown"), "unknown, expired or already used", "activation_unknown"),
        (problem(400, "bad_field", "request_id is missing"), "returned HTTP 400: request_id is missing", "bad_field"),
        (problem(429, "too_many_requests", **{"Retry-After": "90"}), "retry in 90 s", "too_many_requests"),
        (httpx.Response(404, text="<html>"), "returned HTTP 404, is it a pos-server", None),
        (httpx.Response(307, headers={"Location": "/"}), "returned HTTP 307", None),
        (httpx.Response(200, text="<html>"), "did not return an activation", None),
        (httpx.Response(200, json={**ACTIVATION, "device_key": "AAEC"}), "did not return an activation", None),
        (httpx.Response(200, json={**ACTIVATION, "device_key": "%"}), "did not return an activation", None),
    ],
)
async def test_a_refusal_is_one_clear_line_without_the_code(
    answer: httpx.Response, text: str, code: str | None
) -> None:
    server = Server(answer)
    with pytest.raises(ActivationError, match=text) as error:
        await activate("http://pos.test", CODE, request_id=REQUEST_ID, backoff=no_wait(), transport=server)
    assert error.value.code == code
    assert CODE not in str(error.value)
    assert len(server.bodies) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("server", "code"), [("pos.test", CODE), ("http://pos.test", ""), ("http://pos.test", "7" * 65)]
)
async def test_invalid_input_is_a_value_error(server: str, code: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        await activate(server, code, request_id=REQUEST_ID, transport=Server())


def test_a_request_id_is_stored_per_code(tmp_path: Path) -> None:
    path = tmp_path / "activation-request.json"
    first = request_id_for(CODE, path)
    assert request_id_for(CODE.lower().replace("-", ""), path) == first
    assert CODE not in path.read_text()
    assert request_id_for("ZZZZ-20QX-M8ZD-9T3C", path) != first


def test_a_request_id_that_cannot_be_stored_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CredentialsError, match="cannot write"):
        request_id_for(CODE, tmp_path / "file" / "x.json")
