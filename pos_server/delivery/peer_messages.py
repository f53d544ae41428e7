"""The messages between servers, as JSON on one channel. Each has a `type` and the name of its sender in `from`.

    hello, alive, bye      presence; a server is known as long as it sends
    present                all devices of a server, for servers that it has just met
    opened, closed         one device connected or disconnected
    told                   a notice for a device that is connected there
    missed                 the same, when the notice is too long for the channel
    revoked                a device has a new key
    gap                    the sender may have lost messages, its own and those for it, for some seconds
    opened_in_gap          devices that connected to the sender during a gap, of its own or of a peer

A server without peers sends `alive` every few seconds and nothing else.
"""

from typing import Any

from ..core.credentials.device_keys import DeviceId, DeviceKind
from ..core.protocol.notices import Recipient

CHANNEL = "pos_peers"
# Postgres takes less than 8000 bytes.
PAYLOAD_BYTES_MAX = 7_900
PRESENT_PER_MESSAGE = 300
OPENED_PER_MESSAGE = 100


def recipient_fields(recipient: Recipient) -> dict[str, Any]:
    """Return the fields of `told` and `missed` that name a recipient."""
    return {"kind": recipient.kind, "to": (recipient.number, recipient.slot, recipient.not_slot)}


def recipient_of(message: dict[str, Any]) -> Recipient:
    """Return the recipient of `told` or `missed`."""
    return Recipient(DeviceKind(message["kind"]), *message["to"])


def device_fields(device: DeviceId) -> dict[str, Any]:
    """Return the fields of `opened`, `closed` and `revoked` that name a device."""
    return {"kind": device.kind, "number": device.number, "slot": device.slot}


def device_of(message: dict[str, Any]) -> DeviceId:
    """Return the device of `opened`, `closed` or `revoked`."""
    return DeviceId(DeviceKind(message["kind"]), message["number"], message["slot"])
