"""Errors of the REST side: problem details for HTTP APIs (RFC 9457), extended by a stable `code`."""

from collections.abc import Mapping
from http import HTTPStatus

import orjson
from starlette.responses import Response


class Problem(Exception):
    """Raised by an endpoint; becomes the response. `pointer` (RFC 6901) names the field of the body at fault."""

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        detail: str,
        *,
        pointer: str | None = None,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, code, detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.pointer = pointer
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(retry_after_s)

    def response(self) -> Response:
        """`application/problem+json` with type, title, status, detail, code and, where known, pointer."""
        body = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
            "code": self.code,
        }
        if self.pointer is not None:
            body["pointer"] = self.pointer
        return Response(orjson.dumps(body), self.status, self.headers, media_type="application/problem+json")


def json_pointer(path: list[str]) -> str:
    """RFC 6901: `["a/b", "0"]` is `/a~1b/0`."""
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)
