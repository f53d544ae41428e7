"""Routes WebSockets to their endpoints."""

from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from .device import DeviceEndpoint


def device_routes(endpoints: Mapping[str, DeviceEndpoint[Any]], *, otherwise: ASGIApp) -> ASGIApp:
    """Return an application that serves WebSockets by their path, and leaves everything else to `otherwise`.

    It bypasses Starlette's routes and middleware, whose frames every idle connection would keep: see
    docs/benchmarks.md.
    """

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = endpoints.get(scope["path"]) if scope["type"] == "websocket" else None
        if endpoint is None:
            await otherwise(scope, receive, send)
        else:
            await endpoint.serve(WebSocket(scope, receive, send))

    return asgi
