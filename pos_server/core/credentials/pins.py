"""PIN rules, and the secret that is hashed in place of a PIN. The PIN itself is never stored.

    secret = HMAC-SHA256(pepper, "pin-1" ‖ wallet_number:u64 ‖ pin)        pepper: see Keyring.pin_pepper

Argon2id (RFC 9106) hashes `secret`. PINs cannot be brute-forced from stolen rows without the master key, and the hash
of one wallet is useless for another.
"""

import hmac
import struct
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class PinHash:
    """A stored PIN: the encoded Argon2id hash, and the `kid` of the master key behind its pepper."""

    kid: str
    encoded: str


def pin_secret(pepper: bytes, wallet_number: int, pin: str) -> bytes:
    """Return the 32 bytes to hash, by the formula in the module docstring."""
    return hmac.digest(pepper, b"pin-1" + struct.pack(">Q", wallet_number) + pin.encode("ascii"), "sha256")


def is_weak(pin: str) -> bool:
    """Return whether a PIN is easy to guess: one repeated digit, or digits in ascending or descending order."""
    differences = {(int(digit) - int(previous)) % 10 for previous, digit in pairwise(pin)}
    return differences in ({0}, {1}, {9})
