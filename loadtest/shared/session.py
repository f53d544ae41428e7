"""A minimal authenticated WebSocket for load tests. It neither reconnects nor resends, which would hide failures."""

import json
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from loadtest.shared.messages import authenticate_message
from loadtest.shared.seed import Device


async def open_session(url: str, device: Device, **options: Any) -> ClientConnection:
    """Connect and authenticate a device, until `ready`. `options` go to `connect` of websockets."""
    address = f"{url.replace('http', 'ws', 1)}/v1/{device.device.kind}"
    options = {"ping_interval": None, "compression": None} | options
    socket = await connect(address, subprotocols=[Subprotocol("pos.v1")], **options)
    hello = json.loads(await socket.recv())
    await socket.send(json.dumps(authenticate_message(device, hello["nonce"])))
    ready = json.loads(await socket.recv())
    if ready["type"] != "ready":
        raise SystemExit(f"the server did not answer with ready: {ready}")
    return socket
