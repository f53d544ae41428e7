"""Keys of terminals and wallet devices, derived from a master key so that the server stores no device secret.

    device_key = HMAC-SHA256(master_key[kid], "device-key-1" ‖ kind ‖ number:u64 ‖ slot:u8 ‖ generation:u32)

Integers are big-endian. `kind` is the ASCII word `terminal` or `wallet`. A new generation revokes a lost device.
`kid` identifies the master key that a device key was derived from, so that master keys can be rotated.
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


# Module-level aliases are faster to look up than enum attributes (see payments/payment.py).
TERMINAL: Final = DeviceKind.TERMINAL
WALLET: Final = DeviceKind.WALLET


class DeviceId(Struct, frozen=True, gc=False):
    """Identity of a device: a terminal (always slot 0), or one of a wallet's ten device slots."""

    kind: DeviceKind
    number: int
    slot: int = 0


def derive_device_key(master_key: bytes, device: DeviceId, generation: int) -> bytes:
    """Return the 32-byte device key, by the formula in the module docstring."""
    text = b"device-key-1" + device.kind.encode() + struct.pack(">QBI", device.number, device.slot, generation)
    return hmac.digest(master_key, text, "sha256")


@dataclass(frozen=True, slots=True)
class Keyring:
    """Master keys by `kid`; `current` is the `kid` for new activations. `repr` shows no key.

    `derive` is `derive_device_key`, or a wrapper with a bounded cache.
    """

    keys: Mapping[str, bytes]
    current: str
    derive: Callable[[bytes, DeviceId, int], bytes] = derive_device_key

    def __repr__(self) -> str:
        return f"Keyring(kids={sorted(self.keys)}, current={self.current!r})"

    def device_key(self, kid: str, device: DeviceId, generation: int) -> bytes | None:
        """Return the 32-byte key of a device, or None if the master key `kid` is retired (not in the ring)."""
        master_key = self.keys.get(kid)
        return None if master_key is None else self.derive(master_key, device, generation)

    def pin_pepper(self, kid: str) -> bytes | None:
        """Return the 32-byte PIN pepper, HMAC-SHA256(master_key[kid], "pin-pepper-1"), or None if `kid` is retired."""
        master_key = self.keys.get(kid)
        return None if master_key is None else hmac.digest(master_key, b"pin-pepper-1", "sha256")

    def rest_secret(self, kid: str, text: str) -> bytes | None:
        """Return 32 bytes for a secret in a REST response, or None if `kid` is retired.

        The formula is HMAC-SHA256(master_key[kid], "rest-secret-1" ‖ text).
        """
        master_key = self.keys.get(kid)
        return None if master_key is None else hmac.digest(master_key, b"rest-secret-1" + text.encode(), "sha256")


def authentication_mac(device_key: bytes, nonce: bytes, number: int) -> bytes:
    """Return a device's answer to the server's `hello`: HMAC-SHA256(device_key, "ws-auth-1" ‖ nonce ‖ number:u64)."""
    return hmac.digest(device_key, b"ws-auth-1" + nonce + struct.pack(">Q", number), "sha256")
