"""A light authenticated WebSocket for load: no reconnect, no resend, nothing that would hide what the server does."""

import json
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from loadtest.shared.seed import KEYRING, Device
from pos_server.core.credentials.device_keys import authentication_mac


async def open_session(url: str, device: Device, **options: Any) -> ClientConnection:
    """A connection of this device, after `ready`. `options` go to `websockets`' connect."""
    address = f"{url.replace('http', 'ws', 1)}/v1/{device.device.kind}"
    options = {"ping_interval": None, "compression": None} | options
    socket = await connect(address, subprotocols=[Subprotocol("pos.v1")], **options)
    hello = json.loads(await socket.recv())
    mac = authentication_mac(device.key, bytes.fromhex(hello["nonce"]), device.device.number)
    identity = {"id": device.device.number, "slot": device.device.slot, "kid": KEYRING.current, "mac": mac.hex()}
    await socket.send(json.dumps({"type": "authenticate", "message_id": "1", **identity}))
    ready = json.loads(await socket.recv())
    if ready["type"] != "ready":
        raise SystemExit(f"not ready: {ready}")
    return socket
