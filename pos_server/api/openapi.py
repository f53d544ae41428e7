"""`GET /openapi.json`: the REST API as an OpenAPI document. `pos-server openapi` prints it."""

from functools import cache
from importlib.metadata import version

import orjson
from starlette.requests import Request
from starlette.responses import Response

from ..core.rest.catalogue import ENDPOINTS
from ..core.rest.openapi import openapi_document


@cache  # a tenth of a second to make
def openapi_json() -> bytes:
    """The document, indented, in UTF-8, with a line break at its end."""
    document = openapi_document(version("pos-server"), ENDPOINTS)
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


class OpenApi:
    """Made once: the document does not change while the server runs."""

    def __init__(self) -> None:
        self._body = openapi_json()

    async def show(self, request: Request) -> Response:
        return Response(self._body, media_type="application/json")
