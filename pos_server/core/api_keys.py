"""API keys: 256 random bits that are shown once. Only a hash is stored, which for so much chance needs no salt."""

from base64 import b32encode
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

API_KEY_BYTES = 32
API_KEY_CHARS_MAX = 128


class Scope(StrEnum):
    """What a key may do."""

    REFUNDS = "refunds"
    CASH = "cash"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Whose key it is and what it may do; `currency` is the merchant's."""

    merchant_id: int
    currency: str
    scopes: frozenset[Scope]


def api_key(random_bytes: bytes) -> str:
    """The text of a key, from 32 random bytes: a prefix that scanners for leaked secrets can look for, and base32."""
    if len(random_bytes) != API_KEY_BYTES:
        raise ValueError(f"an API key is made of {API_KEY_BYTES} bytes")
    return "pos_" + b32encode(random_bytes).decode().rstrip("=").lower()


def api_key_hash(key: str) -> bytes:
    """What is stored and looked up: SHA-256 of the key."""
    return sha256(key.encode()).digest()
