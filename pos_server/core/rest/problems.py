"""What can go wrong with a request: problem details (RFC 9457) whose `code` is stable."""

from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated

from pydantic import Field

from ..errors import ErrorCode
from ..protocol.notices import ERROR_TEXTS
from .fields import Resource


class ProblemCode(StrEnum):
    """The codes that only the REST API has. The others are `core.errors.ErrorCode`s."""

    BAD_JSON = "bad_json"
    BAD_FIELD = "bad_field"
    IDEMPOTENCY_KEY_MISSING = "idempotency_key_missing"
    UNAUTHORIZED = "unauthorized"
    ROLE_MISSING = "role_missing"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    IN_PROGRESS = "in_progress"
    NO_FREE_SLOT = "no_free_slot"
    PRECONDITION_FAILED = "precondition_failed"
    BODY_TOO_LARGE = "body_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    PRECONDITION_REQUIRED = "precondition_required"
    TOO_MANY_REQUESTS = "too_many_requests"
    TOO_MANY_ATTEMPTS = "too_many_attempts"
    TAKES_TOO_LONG = "takes_too_long"


_OWN: dict[ProblemCode, tuple[HTTPStatus, str]] = {
    ProblemCode.BAD_JSON: (HTTPStatus.BAD_REQUEST, "the body is not a JSON object"),
    ProblemCode.BAD_FIELD: (HTTPStatus.BAD_REQUEST, "a field is missing or wrong; `pointer` names it"),
    ProblemCode.IDEMPOTENCY_KEY_MISSING: (
        HTTPStatus.BAD_REQUEST,
        "send an `Idempotency-Key` of 1 to 64 printable ASCII characters, a new one for each new thing",
    ),
    ProblemCode.UNAUTHORIZED: (HTTPStatus.UNAUTHORIZED, "send `Authorization: Bearer KEY` with a valid API key"),
    ProblemCode.ROLE_MISSING: (HTTPStatus.FORBIDDEN, "this API key has another role than the request needs"),
    ProblemCode.NOT_FOUND: (HTTPStatus.NOT_FOUND, "there is no such thing here"),
    ProblemCode.METHOD_NOT_ALLOWED: (HTTPStatus.METHOD_NOT_ALLOWED, "this cannot be done here"),
    ProblemCode.IN_PROGRESS: (
        HTTPStatus.CONFLICT,
        "a request with this `Idempotency-Key` is being worked on; send the same again in a moment",
    ),
    ProblemCode.NO_FREE_SLOT: (
        HTTPStatus.CONFLICT,
        "every slot of this wallet has a device or an open activation code; name a slot, or revoke one",
    ),
    ProblemCode.PRECONDITION_FAILED: (
        HTTPStatus.PRECONDITION_FAILED,
        "it has changed since; read it again, then send the change with its new `ETag`",
    ),
    ProblemCode.BODY_TOO_LARGE: (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too long"),
    ProblemCode.UNSUPPORTED_MEDIA_TYPE: (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send `Content-Type: application/json`"),
    ProblemCode.IDEMPOTENCY_KEY_REUSED: (
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "this `Idempotency-Key` was sent with another request before; take a new one for something new",
    ),
    ProblemCode.PRECONDITION_REQUIRED: (
        HTTPStatus.PRECONDITION_REQUIRED,
        "send `If-Match` with the `ETag` that was read",
    ),
    ProblemCode.TOO_MANY_REQUESTS: (
        HTTPStatus.TOO_MANY_REQUESTS,
        "this API key sends too many requests; wait `Retry-After` seconds, then send more slowly",
    ),
    ProblemCode.TOO_MANY_ATTEMPTS: (
        HTTPStatus.TOO_MANY_REQUESTS,
        "too many wrong keys or codes came from this address; wait `Retry-After` seconds",
    ),
    ProblemCode.TAKES_TOO_LONG: (
        HTTPStatus.SERVICE_UNAVAILABLE,
        "this takes too long; ask for less at once, such as one terminal or a shorter time",
    ),
}
# Of what the engine refuses: the rest are conflicts with what is there.
_OF_ERRORS = {
    ErrorCode.PAYMENT_UNKNOWN: HTTPStatus.NOT_FOUND,
    ErrorCode.PAYMENT_ARCHIVED: HTTPStatus.GONE,
    ErrorCode.WALLET_UNKNOWN: HTTPStatus.NOT_FOUND,
    ErrorCode.SHIFT_UNKNOWN: HTTPStatus.NOT_FOUND,
    ErrorCode.TOO_MANY_BAD_CODES: HTTPStatus.TOO_MANY_REQUESTS,
    ErrorCode.BUSY: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorCode.DRAINING: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorCode.UNKNOWN_OUTCOME: HTTPStatus.SERVICE_UNAVAILABLE,
}


class ProblemDetails(Resource):
    """What went wrong. `code` is stable, `detail` is for people."""

    type: Annotated[str, Field(description="always about:blank: `code` says more")]
    title: Annotated[str, Field(description="the status in words")]
    status: Annotated[int, Field(ge=400, le=599, description="the HTTP status")]
    detail: Annotated[str, Field(description="for people, in English")]
    code: Annotated[str, Field(description="stable")]
    pointer: Annotated[str, Field(description="the field at fault, as a JSON pointer (RFC 6901)")] | None = None
    request_id: Annotated[str | None, Field(description="names this request in the server's log")] = None


@dataclass(frozen=True, slots=True)
class ProblemText:
    """A code's status and text."""

    status: HTTPStatus
    text: str


def problem_text(code: ProblemCode | ErrorCode) -> ProblemText:
    """What is answered with this code."""
    if isinstance(code, ProblemCode):
        return ProblemText(*_OWN[code])
    return ProblemText(_OF_ERRORS.get(code, HTTPStatus.CONFLICT), ERROR_TEXTS[code])
