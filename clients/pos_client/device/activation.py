"""Exchange a one-time activation code for credentials: `POST /v1/activations`."""

import base64
import re
from pathlib import Path
from uuid import UUID, uuid4

import httpx
from pydantic import BaseModel, ValidationError

from pos_server.core.credentials.activation import Activation, ActivationRequest, activation_hash

from ..errors import ActivationError, CredentialsError
from .backoff import Backoff
from .credentials import Credentials, parse_server_url
from .files import write_private

ATTEMPTS_MAX = 5
REQUEST_TIMEOUT_S = 10.0
RETRY_AFTER_S_MAX = 10
_SECONDS = re.compile(r"[0-9]{1,6}")


class _Problem(BaseModel):
    """The members of an application/problem+json body (RFC 9457) that this client reads."""

    title: str = ""
    detail: str = ""
    code: str | None = None


class _Request(BaseModel):
    """An activation request whose answer may have been lost."""

    code_hash: str
    request_id: UUID


def request_id_for(code: str, path: Path) -> UUID:
    """Return the request id for this code: the one stored in `path` by an earlier attempt, or a new one.

    A new id is stored in `path` before it is used. Delete the file once the credentials are saved. Raises
    CredentialsError when it cannot be written.
    """
    code_hash = activation_hash(code).hex()
    try:
        stored_request = _Request.model_validate_json(path.read_bytes())
        if stored_request.code_hash == code_hash:
            return stored_request.request_id
    except (OSError, ValidationError):
        pass  # no earlier attempt, or its file is damaged
    request = _Request(code_hash=code_hash, request_id=uuid4())
    try:
        write_private(path, request.model_dump_json().encode())
    except OSError as error:
        raise CredentialsError(f"cannot write {path}: {error.strerror}") from error
    return request.request_id


async def activate(
    server: str,
    code: str,
    *,
    request_id: UUID,
    backoff: Backoff | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Credentials:
    """Exchange an activation code for a device's credentials.

    Store `request_id` and reuse it for the same code: the server answers a repeat with the same key, so a lost answer
    does not cost the device. Makes up to ATTEMPTS_MAX attempts while the server is unreachable or busy. Raises
    ActivationError; ValueError when `server` is not a URL or `code` is not an activation code.
    """
    url = parse_server_url(server)
    body = ActivationRequest(activation_code=code, request_id=request_id).model_dump_json()
    backoff = backoff or Backoff()
    async with httpx.AsyncClient(transport=transport, timeout=REQUEST_TIMEOUT_S) as client:
        for attempt in range(ATTEMPTS_MAX):
            try:
                response = await client.post(
                    f"{url}/v1/activations", content=body, headers={"Content-Type": "application/json"}
                )
            except httpx.InvalidURL as error:
                raise ActivationError(f"{url} is not a URL: {error}") from None
            except httpx.RequestError as error:
                failure = ActivationError(f"cannot reach {url}: {error or type(error).__name__}", retryable=True)
                delay_s = backoff.delay_s(attempt)
            else:
                if response.status_code == httpx.codes.OK:
                    return _credentials(url, response)
                failure = _refusal(url, response)
                delay_s = max(backoff.delay_s(attempt), _retry_after_s(response))
            if not failure.retryable or attempt + 1 == ATTEMPTS_MAX or delay_s > RETRY_AFTER_S_MAX:
                break
            await backoff.sleep(delay_s)
    raise failure


def _credentials(url: str, response: httpx.Response) -> Credentials:
    try:
        activation = Activation.model_validate_json(response.content)
        return Credentials(
            server=url,
            kind=activation.kind,
            number=activation.number,
            slot=activation.slot,
            kid=activation.kid,
            device_key=base64.b64decode(activation.device_key, validate=True),
            currency=activation.currency,
            name=activation.name,
        )
    except ValueError:  # pydantic's ValidationError and binascii's Error are ValueErrors
        raise ActivationError(f"{url} did not return an activation: is it a pos-server?") from None


def _refusal(url: str, response: httpx.Response) -> ActivationError:
    status = response.status_code
    retryable = status >= httpx.codes.INTERNAL_SERVER_ERROR or status == httpx.codes.TOO_MANY_REQUESTS
    try:
        problem = _Problem.model_validate_json(response.content)
    except ValidationError:
        problem = _Problem()
    if problem.code == "activation_unknown":
        text = "this activation code is unknown, expired or already used: ask for a new one"
    elif status == httpx.codes.TOO_MANY_REQUESTS:
        text = f"too many activation attempts: retry in {_retry_after_s(response)} s"
    else:
        detail = problem.detail or problem.title
        text = f"{url} returned HTTP {status}" + (f": {detail}" if detail else ", is it a pos-server?")
    return ActivationError(text, code=problem.code, retryable=retryable)


def _retry_after_s(response: httpx.Response) -> int:
    text = response.headers.get("Retry-After", "")
    return int(text) if _SECONDS.fullmatch(text) else 1
