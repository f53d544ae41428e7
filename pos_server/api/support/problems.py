"""Errors of the REST side: problem details for HTTP APIs (RFC 9457), extended by a stable `code`."""

from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import Response

from ...core.errors import ErrorCode
from ...core.rest.problems import ProblemCode, ProblemDetails, problem_text


class Problem(Exception):
    """Raised by an endpoint; becomes the response. `pointer` (RFC 6901) names the field of the body at fault."""

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
        """`application/problem+json` with ProblemDetails."""
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
    """The problem of this code, with its usual text if none is given."""
    usual = problem_text(code)
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    if code is ProblemCode.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return Problem(usual.status, code.value, text or usual.text, pointer=pointer, headers=headers)


def json_pointer(path: list[str]) -> str:
    """RFC 6901: `["a/b", "0"]` is `/a~1b/0`."""
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)
