"""`GET /asyncapi.json`: the AsyncAPI document of the WebSocket protocol. `pos-server asyncapi` prints the same."""

from functools import cache
from importlib.metadata import version

import orjson
from starlette.requests import Request
from starlette.responses import Response

from ..core.protocol.asyncapi import ASYNCAPI_VERSION, WireLimits, asyncapi_document
from ..settings import Settings

# AsyncAPI 3.0.0, "Format": the media type that the specification recommends for its JSON form.
MEDIA_TYPE = f"application/vnd.aai.asyncapi+json;version={ASYNCAPI_VERSION}"


def asyncapi_json(settings: Settings) -> bytes:
    """Return the document with the limits of these settings, as indented JSON in UTF-8 with a final newline."""
    limits = WireLimits(
        frame_bytes_max=settings.frame_bytes_max,
        heartbeat_s=settings.heartbeat_s,
        heartbeat_timeout_s=settings.heartbeat_timeout_s,
        authenticate_within_s=settings.authentication_timeout_s,
        messages_per_s=settings.messages_per_s,
        messages_burst=settings.messages_burst,
        device_operations_max=settings.device_operations_max,
        operation_deadline_s=settings.operation_deadline_s,
        queries_per_s=settings.queries_per_s,
        queries_burst=settings.queries_burst,
        connection_requests_max=settings.connection_requests_max,
        confirmation_s=settings.confirmation_s,
        pin_payment_failures_max=settings.pin_payment_failures_max,
        pin_failures_max=settings.pin_failures_max,
        pin_lock_s=settings.pin_lock_s,
    )
    return _document_json(limits)


@cache  # a tenth of a second to make
def _document_json(limits: WireLimits) -> bytes:
    document = asyncapi_document(version("pos-server"), limits)
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


class AsyncApi:
    """The document, rendered once, because it does not change while the server runs."""

    def __init__(self, settings: Settings) -> None:
        self._body = asyncapi_json(settings)

    async def show(self, request: Request) -> Response:
        return Response(self._body, media_type=MEDIA_TYPE)
