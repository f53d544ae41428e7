"""Sends a connected device the results that it may have missed while its server lost touch with the others."""

from collections.abc import Mapping
from typing import Any

from ..core.credentials.device_keys import DeviceKind
from ..core.errors import CloseCode
from ..core.protocol.codec import (
    encode,
)
from ..delivery.connections import Connection
from .device import DeviceEndpoint


class CatchUp:
    """Reads the rows of a device of any kind. `endpoints` holds one endpoint per kind."""

    def __init__(self, endpoints: Mapping[DeviceKind, DeviceEndpoint[Any]]) -> None:
        self._endpoints = endpoints

    async def __call__(self, connection: Connection, since_ms: int) -> None:
        """Deliver what has changed since `since_ms`; close the connection if that is too much. Raises DATABASE_AWAY."""
        endpoint = self._endpoints[connection.device.kind]
        missed = await endpoint.missed(connection.device.number, connection.language, since_ms)
        if missed is None:
            connection.close(CloseCode.UNAVAILABLE, "too much was missed, come back")
        for message in missed or ():
            connection.deliver(encode(message))
