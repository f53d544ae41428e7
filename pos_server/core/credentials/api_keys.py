"""API keys: 256 random bits that are shown once. Only a hash is stored, which for so much chance needs no salt."""

from base64 import b32encode
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

API_KEY_BYTES = 32
API_KEY_CHARS_MAX = 128


class Role(StrEnum):
    """Whose work a key does: the operator's own, the issuer's of wallets, or one merchant's."""

    ADMIN = "admin"
    ISSUER = "issuer"
    MERCHANT = "merchant"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that was sent: what it may do, and for a merchant's, whose it is and the merchant's currency."""

    key_id: int
    role: Role
    merchant_id: int | None = None
    currency: str | None = None

    @property
    def merchant(self) -> tuple[int, str]:
        """The id and the currency of the merchant whose key it is."""
        if self.merchant_id is None or self.currency is None:
            raise AssertionError(f"a key of the role {self.role} has no merchant")
        return self.merchant_id, self.currency

    @property
    def tenant(self) -> str:
        """Whom it acts for: all keys of a tenant see the same things, and share its idempotency keys."""
        return self.role.value if self.merchant_id is None else f"{self.role}:{self.merchant_id}"


def api_key(role: Role, random_bytes: bytes) -> str:
    """The text of a key, from 32 random bytes: a prefix that scanners for leaked secrets can look for, and base32."""
    if len(random_bytes) != API_KEY_BYTES:
        raise ValueError(f"an API key is made of {API_KEY_BYTES} bytes")
    return f"pos_{role}_" + b32encode(random_bytes).decode().rstrip("=").lower()


def api_key_hash(key: str) -> bytes:
    """What is stored and looked up: SHA-256 of the key."""
    return sha256(key.encode()).digest()
