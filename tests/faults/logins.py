"""Logins over a blocking socket, denied upgrades, and the end of a connection."""

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from pos_server.core.credentials.device_keys import DeviceKind
from tests.faults.wire import TEXT, Wire, frame, upgrade_request
from tests.support import (
    ANSWER_TIMEOUT_S,
    TestDevice,
    authenticate,
    raw_socket,
)

TERMINAL = DeviceKind.TERMINAL


async def messages_to_the_end(socket: ClientConnection) -> tuple[list[dict[str, Any]], int]:
    """Return the remaining messages and the close code."""
    messages = []
    async with asyncio.timeout(ANSWER_TIMEOUT_S):
        try:
            while True:
                messages.append(json.loads(await socket.recv()))
        except ConnectionClosed:
            pass
    assert socket.close_code is not None
    return messages, socket.close_code


async def denied(url: str, **options: Any) -> tuple[int, str | None]:
    """Return the status and Retry-After of a denied upgrade."""
    with pytest.raises(InvalidStatus) as error:
        async with raw_socket(url, TERMINAL, **options):
            pass
    response = error.value.response
    return response.status_code, response.headers.get("Retry-After")


def log_in(url: str, device: TestDevice, **options: Any) -> Wire:
    """Return a blocking, authenticated connection, after `ready`."""
    wire = Wire(url, **options)
    wire.send(upgrade_request(f"/v1/{device.device.kind}"))
    assert wire.read_head().startswith(b"HTTP/1.1 101 ")
    hello = wire.read_message()
    assert hello is not None
    wire.send(frame(TEXT, json.dumps(authenticate(device, hello["nonce"])).encode()))
    ready = wire.read_message()
    assert ready is not None
    assert ready["type"] == "ready"
    return wire
