"""The direct way between an endpoint and its TCP connection, past ASGI's events.

Through ASGI each message wakes a task and passes a queue. A direct socket sends a text in the caller's turn of the
event loop, and hands each text to the endpoint as it is parsed. What it cannot do (a peer that does not read, a
fragmented message) still takes the ASGI way, in order.
"""

from collections.abc import Callable, MutableMapping
from typing import Any, Protocol

from starlette.websockets import WebSocket, WebSocketDisconnect

_KEY = "direct_socket"
# In an ASGI receive event: the exception that `listen`'s receiver returned, for the endpoint's task to raise.
FAILURE = "failure"


class DirectSocket(Protocol):
    """A WebSocket that an endpoint may use directly once the upgrade is accepted.

    `refused_frame_code` is the close code with which the protocol itself ended the connection (1002, 1007 or 1009).
    """

    refused_frame_code: int | None

    def send_now(self, text: str) -> bool:
        """Send a text without waiting. Returns False if the peer takes none now, or the connection is at its end."""
        ...

    def listen(self, receive: Callable[[str], Exception | None]) -> None:
        """Give every further text to `receive`, which returns None, or the exception that ends the endpoint's task."""
        ...


def attach(state: MutableMapping[str, Any], socket: DirectSocket) -> None:
    """Make `socket` the direct socket of a connection, in the `state` of its ASGI scope."""
    state[_KEY] = socket


def detach(state: MutableMapping[str, Any]) -> None:
    """Undo `attach` at the end of the connection, so that no reference cycle delays its memory."""
    state.pop(_KEY, None)


def direct_socket(websocket: WebSocket) -> DirectSocket:
    """Return the direct socket of an accepted WebSocket. Raises WebSocketDisconnect if the peer is gone already."""
    socket: DirectSocket | None = websocket.scope["state"].get(_KEY)
    if socket is None:
        raise WebSocketDisconnect(1006)
    return socket
