"""Problem details (RFC 9457) of the REST API, with a stable `code`."""

from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated

from pydantic import Field

from ..errors import ErrorCode
from .fields import Resource


class ProblemCode(StrEnum):
    """Codes that only the REST API uses, in addition to `core.errors.ErrorCode`."""

    BAD_JSON = "bad_json"
    BAD_FIELD = "bad_field"
    IDEMPOTENCY_KEY_MISSING = "idempotency_key_missing"
    UNAUTHORIZED = "unauthorized"
    ROLE_MISSING = "role_missing"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    IN_PROGRESS = "in_progress"
    MERCHANT_AMBIGUOUS = "merchant_ambiguous"
    NO_FREE_SLOT = "no_free_slot"
    PRECONDITION_FAILED = "precondition_failed"
    BODY_TOO_LARGE = "body_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    PRECONDITION_REQUIRED = "precondition_required"
    TOO_MANY_REQUESTS = "too_many_requests"
    TOO_MANY_ATTEMPTS = "too_many_attempts"
    TAKES_TOO_LONG = "takes_too_long"


_PROBLEMS: dict[ProblemCode, tuple[HTTPStatus, str]] = {
    ProblemCode.BAD_JSON: (HTTPStatus.BAD_REQUEST, "The body is not a JSON object."),
    ProblemCode.BAD_FIELD: (HTTPStatus.BAD_REQUEST, "A field is missing or invalid; `pointer` names it."),
    ProblemCode.IDEMPOTENCY_KEY_MISSING: (
        HTTPStatus.BAD_REQUEST,
        "The header `Idempotency-Key` is missing or invalid. Send 1 to 64 printable ASCII characters, new for each "
        "object.",
    ),
    ProblemCode.UNAUTHORIZED: (
        HTTPStatus.UNAUTHORIZED,
        "The API key is missing or invalid. Send `Authorization: Bearer KEY` with a valid API key.",
    ),
    ProblemCode.ROLE_MISSING: (HTTPStatus.FORBIDDEN, "The request needs an API key with another role."),
    ProblemCode.NOT_FOUND: (HTTPStatus.NOT_FOUND, "The object does not exist or is not accessible with this API key."),
    ProblemCode.METHOD_NOT_ALLOWED: (HTTPStatus.METHOD_NOT_ALLOWED, "The path does not support this method."),
    ProblemCode.IN_PROGRESS: (
        HTTPStatus.CONFLICT,
        "A request with this `Idempotency-Key` is still running. Repeat the request in a moment.",
    ),
    ProblemCode.MERCHANT_AMBIGUOUS: (
        HTTPStatus.CONFLICT,
        "Two merchants have a payment with this id. Repeat the request with the query parameter `merchant_id`.",
    ),
    ProblemCode.NO_FREE_SLOT: (
        HTTPStatus.CONFLICT,
        "Every slot of this wallet has a device or an open activation code. Name a slot, or revoke a device.",
    ),
    ProblemCode.PRECONDITION_FAILED: (
        HTTPStatus.PRECONDITION_FAILED,
        "The resource has changed since it was read. Nothing was changed. Read it again and send its new `ETag`.",
    ),
    ProblemCode.BODY_TOO_LARGE: (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large."),
    ProblemCode.UNSUPPORTED_MEDIA_TYPE: (
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "The body is not declared as JSON. Send `Content-Type: application/json`.",
    ),
    ProblemCode.IDEMPOTENCY_KEY_REUSED: (
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "This `Idempotency-Key` was used for a different request. Use a new key for a new object.",
    ),
    ProblemCode.PRECONDITION_REQUIRED: (
        HTTPStatus.PRECONDITION_REQUIRED,
        "The header `If-Match` is missing. Send the `ETag` of the version that you have read.",
    ),
    ProblemCode.TOO_MANY_REQUESTS: (
        HTTPStatus.TOO_MANY_REQUESTS,
        "This API key sends too many requests. Wait `Retry-After` seconds, then send more slowly.",
    ),
    ProblemCode.TOO_MANY_ATTEMPTS: (
        HTTPStatus.TOO_MANY_REQUESTS,
        "Too many wrong keys or codes were sent from this address. Wait `Retry-After` seconds.",
    ),
    ProblemCode.TAKES_TOO_LONG: (
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The query exceeded its time limit. Request less at once, for example one terminal or a shorter period.",
    ),
}
# Status codes of errors from the engine. All others are conflicts with the state of the payment.
_ERROR_STATUSES = {
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
    """Problem details (RFC 9457). Programs use `code`; people read `detail`."""

    type: Annotated[str, Field(description="Always `about:blank`; use `code` instead.")]
    title: Annotated[str, Field(description="Reason phrase of the HTTP status.")]
    status: Annotated[int, Field(ge=400, le=599, description="HTTP status.")]
    detail: Annotated[str, Field(description="Explanation for people, in English.")]
    code: Annotated[str, Field(description="Stable code for programs.")]
    pointer: Annotated[str, Field(description="JSON pointer (RFC 6901) to the invalid field.")] | None = None
    request_id: Annotated[str | None, Field(description="Id of this request in the server log.")] = None


@dataclass(frozen=True, slots=True)
class ProblemText:
    """The HTTP status and the text of a problem code."""

    status: HTTPStatus
    text: str


def problem_text(code: ProblemCode | ErrorCode) -> ProblemText:
    """Return the HTTP status and the text of a code."""
    if isinstance(code, ProblemCode):
        return ProblemText(*_PROBLEMS[code])
    return ProblemText(_ERROR_STATUSES.get(code, HTTPStatus.CONFLICT), code.description)
