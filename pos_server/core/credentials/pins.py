"""Rules for PINs, and what of a PIN is hashed. The PIN itself is kept nowhere.

    secret = HMAC-SHA256(pepper, "pin-1" ‖ wallet_number:u64 ‖ pin)        pepper: see Keyring.pin_pepper

Argon2id (RFC 9106) runs over `secret`, so that rows without the master key cannot be searched for PINs, and one row's
hash fits no other wallet.
"""

import hmac
import struct
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class PinHash:
    """A PIN as it is stored: the encoded Argon2id hash, and the `kid` of the master key that its pepper comes from."""

    kid: str
    encoded: str


def pin_secret(pepper: bytes, wallet_number: int, pin: str) -> bytes:
    """32 bytes to hash, as in the module's formula."""
    return hmac.digest(pepper, b"pin-1" + struct.pack(">Q", wallet_number) + pin.encode("ascii"), "sha256")


def is_weak(pin: str) -> bool:
    """Whether a PIN is among the first that anybody tries: one digit repeated, or digits counted up or down."""
    steps = {(int(after) - int(before)) % 10 for before, after in pairwise(pin)}
    return steps in ({0}, {1}, {9})
