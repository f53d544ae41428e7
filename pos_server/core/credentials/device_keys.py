"""Keys of terminals and wallet devices, derived from a master key, so that the server stores no device secret.

    device_key = HMAC-SHA256(master_key[kid], "device-key-1" ‖ kind ‖ number:u64 ‖ slot:u8 ‖ generation:u32)

Integers are big-endian. `kind` is the ASCII word `terminal` or `wallet`. A lost device is revoked by a new
generation. `kid` names the master key a device's key came from, so that master keys can be rotated.
HMAC: RFC 2104; SHA-256: FIPS 180-4.
"""

import hmac
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from msgspec import Struct

MASTER_KEY_BYTES_MIN = 32
DEVICE_KEY_BYTES = 32
NONCE_BYTES = 32
SLOT_MAX = 9


class DeviceKind(StrEnum):
    TERMINAL = "terminal"
    WALLET = "wallet"


TERMINAL: Final = DeviceKind.TERMINAL  # as in payments.py
WALLET: Final = DeviceKind.WALLET


class DeviceId(Struct, frozen=True, gc=False):
    """One device: a terminal (its slot is 0) or one of the ten device slots of a wallet."""

    kind: DeviceKind
    number: int
    slot: int = 0


def derive_device_key(master_key: bytes, device: DeviceId, generation: int) -> bytes:
    """The 32-byte device key, as in the module's formula."""
    text = b"device-key-1" + device.kind.encode() + struct.pack(">QBI", device.number, device.slot, generation)
    return hmac.digest(master_key, text, "sha256")


@dataclass(frozen=True, slots=True)
class Keyring:
    """The master keys by `kid`; `current` is the one that new activations use. Never printed.

    `derive` is `derive_device_key`, or that with a bounded memory.
    """

    keys: Mapping[str, bytes]
    current: str
    derive: Callable[[bytes, DeviceId, int], bytes] = derive_device_key

    def __repr__(self) -> str:
        return f"Keyring(kids={sorted(self.keys)}, current={self.current!r})"

    def device_key(self, kid: str, device: DeviceId, generation: int) -> bytes | None:
        """The 32-byte key of a device; None when the master key `kid` is not in the ring (retired)."""
        master_key = self.keys.get(kid)
        return None if master_key is None else self.derive(master_key, device, generation)

    def pin_pepper(self, kid: str) -> bytes | None:
        """The 32-byte pepper of PINs, HMAC-SHA256(master_key[kid], "pin-pepper-1"); None when `kid` is retired."""
        master_key = self.keys.get(kid)
        return None if master_key is None else hmac.digest(master_key, b"pin-pepper-1", "sha256")

    def rest_secret(self, kid: str, text: str) -> bytes | None:
        """32 bytes for a secret that the REST API tells: HMAC-SHA256(master_key[kid], "rest-secret-1" ‖ text)."""
        master_key = self.keys.get(kid)
        return None if master_key is None else hmac.digest(master_key, b"rest-secret-1" + text.encode(), "sha256")


def authentication_mac(device_key: bytes, nonce: bytes, number: int) -> bytes:
    """What a device answers to the server's `hello`: HMAC-SHA256(device_key, "ws-auth-1" ‖ nonce ‖ number:u64)."""
    return hmac.digest(device_key, b"ws-auth-1" + nonce + struct.pack(">Q", number), "sha256")
