"""Who may open a WebSocket at all: decided before the upgrade, with a real HTTP status."""

from collections import Counter
from http import HTTPStatus

from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket

from ..core.protocol.server_messages import SUBPROTOCOL
from ..settings import Settings


class Admission:
    """Counts connections in all and by address, and knows whether the server is on its way out."""

    def __init__(self, settings: Settings) -> None:
        self.draining = False
        self._connections_max = settings.connections_max
        self._address_connections_max = settings.address_connections_max
        self._origins = settings.allowed_origins
        self._connections = 0
        self._by_address: Counter[str] = Counter()

    def refusal(self, websocket: WebSocket) -> PlainTextResponse | None:
        """The response that denies this upgrade, or None to let it in. A browser sends its page's origin (RFC 6454)."""
        origin = websocket.headers.get("origin")
        if SUBPROTOCOL not in websocket.scope["subprotocols"]:
            return _refused(HTTPStatus.BAD_REQUEST, f"offer the WebSocket subprotocol {SUBPROTOCOL}")
        if origin is not None and origin not in self._origins:
            return _refused(HTTPStatus.FORBIDDEN, "this origin is not among POS_ALLOWED_ORIGINS")
        if self.draining:
            return _refused(HTTPStatus.SERVICE_UNAVAILABLE, "the server is restarting", retry_after_s=1)
        if self._connections >= self._connections_max:
            return _refused(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections", retry_after_s=5)
        if self._by_address[_address(websocket)] >= self._address_connections_max:
            return _refused(HTTPStatus.TOO_MANY_REQUESTS, "too many connections from this address", retry_after_s=5)
        return None

    def enter(self, websocket: WebSocket) -> None:
        """Count a connection that was let in, until it has left."""
        self._connections += 1
        self._by_address[_address(websocket)] += 1

    def leave(self, websocket: WebSocket) -> None:
        """A connection that had entered has ended."""
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
