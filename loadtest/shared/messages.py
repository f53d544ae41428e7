"""Messages of the protocol as plain data, for load generators that share no code with the client."""

from typing import Any

from loadtest.shared.seed import CURRENCY, KEYRING, Device
from pos_server.core.credentials.device_keys import authentication_mac


def authenticate_message(device: Device, nonce: str) -> dict[str, Any]:
    """Return the answer of a seeded device to `hello`."""
    mac = authentication_mac(device.key, bytes.fromhex(nonce), device.device.number).hex()
    identity = {"id": device.device.number, "slot": device.device.slot, "kid": KEYRING.current, "mac": mac}
    return {"type": "authenticate", "message_id": "1", **identity}


def scan_message(code: str, payment_id: str, reference: str, amount_minor: int = 1) -> dict[str, Any]:
    """Return a scan of this code. Its message id is the reference."""
    return {
        "type": "payment.scan",
        "message_id": reference,
        "payment_id": payment_id,
        "reference": reference,
        "amount_minor": amount_minor,
        "currency": CURRENCY,
        "code": code,
    }
