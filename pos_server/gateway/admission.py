"""Decides who may open a WebSocket at all, before the upgrade, with an HTTP status."""

from collections import Counter
from collections.abc import Callable
from http import HTTPStatus

from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket

from ..core.protocol.server_messages import (
    SUBPROTOCOL,
)
from ..limits import AdmissionLimits


class Admission:
    """Counts connections in all and by address, and refuses further ones at a bound or while the server drains."""

    def __init__(self, limits: AdmissionLimits, *, is_draining: Callable[[], bool]) -> None:
        self._limits = limits
        self.is_draining = is_draining
        self._connections = 0
        self._by_address: Counter[str] = Counter()

    def refusal(self, websocket: WebSocket) -> PlainTextResponse | None:
        """Return the response that denies this upgrade, or None. A browser sends its page's origin (RFC 6454)."""
        origin = websocket.headers.get("origin")
        if SUBPROTOCOL not in websocket.scope["subprotocols"]:
            return _refused(HTTPStatus.BAD_REQUEST, f"offer the WebSocket subprotocol {SUBPROTOCOL}")
        if origin is not None and origin not in self._limits.origins:
            return _refused(HTTPStatus.FORBIDDEN, "this origin is not among POS_ALLOWED_ORIGINS")
        if self.is_draining():
            return _refused(HTTPStatus.SERVICE_UNAVAILABLE, "the server is restarting", retry_after_s=1)
        if self._connections >= self._limits.connections_max:
            return _refused(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections", retry_after_s=5)
        if self._by_address[_address(websocket)] >= self._limits.address_connections_max:
            return _refused(HTTPStatus.TOO_MANY_REQUESTS, "too many connections from this address", retry_after_s=5)
        return None

    def enter(self, websocket: WebSocket) -> None:
        """Count an admitted connection until `leave`."""
        self._connections += 1
        self._by_address[_address(websocket)] += 1

    def leave(self, websocket: WebSocket) -> None:
        """Stop counting a connection that has ended."""
        address = _address(websocket)
        self._connections -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]


def _address(websocket: WebSocket) -> str:
    return websocket.client.host if websocket.client else ""


def _refused(status: HTTPStatus, text: str, *, retry_after_s: int | None = None) -> PlainTextResponse:
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return PlainTextResponse(f"{text}\n", status, headers)
