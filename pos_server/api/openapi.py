"""`GET /openapi.json`: the OpenAPI document of the REST API. `pos-server openapi` prints the same."""

from functools import cache
from importlib.metadata import version

import orjson
from starlette.requests import Request
from starlette.responses import Response

from ..core.rest.catalogue import ENDPOINTS
from ..core.rest.openapi import openapi_document


@cache  # a tenth of a second to make
def openapi_json() -> bytes:
    """Return the document as indented JSON in UTF-8 with a final newline."""
    document = openapi_document(version("pos-server"), ENDPOINTS)
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


class OpenApi:
    """The document, rendered once, because it does not change while the server runs."""

    def __init__(self) -> None:
        self._body = openapi_json()

    async def show(self, request: Request) -> Response:
        return Response(self._body, media_type="application/json")
