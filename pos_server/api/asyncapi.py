"""`GET /asyncapi.json`: the WebSocket protocol of this server for tools. `pos-server asyncapi` prints it."""

from functools import cache
from importlib.metadata import version

import orjson
from starlette.requests import Request
from starlette.responses import Response

from ..core.protocol.asyncapi import ASYNCAPI_VERSION, WireLimits, asyncapi_document

# AsyncAPI 3.0.0, "Format": the media type that the specification recommends for its JSON form.
MEDIA_TYPE = f"application/vnd.aai.asyncapi+json;version={ASYNCAPI_VERSION}"


@cache  # a tenth of a second to build
def asyncapi_json(limits: WireLimits) -> bytes:
    """Return the document with these limits: indented JSON in UTF-8 with a line break at its end."""
    document = asyncapi_document(version("pos-server"), limits)
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


class AsyncApi:
    """Serves the document, which does not change while the server runs."""

    def __init__(self, limits: WireLimits) -> None:
        self._body = asyncapi_json(limits)

    async def show(self, request: Request) -> Response:
        return Response(self._body, media_type=MEDIA_TYPE)
