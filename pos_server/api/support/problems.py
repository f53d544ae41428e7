"""Problem details (RFC 9457) as exceptions and responses, extended by a stable `code`."""

from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import Response

from ...core.errors import ErrorCode
from ...core.rest.problems import ProblemCode, ProblemDetails, problem_text
from ...ledger.failures import Failure

POINTER_NAME_CHARS_MAX = 64
RETRY_AFTER_S = 1


class Problem(Exception):
    """An error that becomes the response. `pointer` (RFC 6901) names the invalid field of the body."""

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        detail: str,
        *,
        pointer: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, code, detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.pointer = pointer
        self.headers = dict(headers or {})

    def response(self, request_id: str | None = None) -> Response:
        """Return the response with ProblemDetails in `application/problem+json`."""
        details = ProblemDetails(
            type="about:blank",
            title=self.status.phrase,
            status=self.status.value,
            detail=self.detail,
            code=self.code,
            pointer=self.pointer,
            request_id=request_id,
        )
        headers = {**self.headers, **({} if request_id is None else {"X-Request-Id": request_id})}
        body = details.model_dump_json(exclude_none=True)
        return Response(body, self.status, headers, media_type="application/problem+json")


def problem(
    code: ProblemCode | ErrorCode,
    text: str | None = None,
    *,
    pointer: str | None = None,
    retry_after_s: int | None = None,
) -> Problem:
    """Return the problem with this code, and with its default text if `text` is None."""
    default = problem_text(code)
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    if code is ProblemCode.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return Problem(default.status, code.value, text or default.text, pointer=pointer, headers=headers)


def database_problem(failure: Failure) -> Problem:
    """Return the problem for a request that a database error ended: 503 `busy`, or `unknown_outcome` for a write."""
    text = None
    if not failure.may_have_committed:
        text = "The database is unavailable. Nothing was changed. Send the request again."
    return problem(failure.answer, text, retry_after_s=RETRY_AFTER_S)


def json_pointer(path: list[str]) -> str:
    """Return a path as a JSON pointer (RFC 6901): `/a~1b/0` for `["a/b", "0"]`.

    Names are the client's, so each is cut to POINTER_NAME_CHARS_MAX.
    """
    names = (part[:POINTER_NAME_CHARS_MAX] for part in path)
    return "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in names)
