"""API keys: 256 random bits, shown once. Only a hash is stored; with this much entropy it needs no salt."""

from base64 import b32encode
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

API_KEY_BYTES = 32
API_KEY_CHARS_MAX = 128


class Role(StrEnum):
    """Role of an API key: operator (admin), wallet issuer, or one merchant."""

    ADMIN = "admin"
    ISSUER = "issuer"
    MERCHANT = "merchant"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An authenticated API key: its role, and for a merchant's key the merchant and its currency."""

    key_id: int
    role: Role
    merchant_id: int | None = None
    currency: str | None = None

    @property
    def merchant(self) -> tuple[int, str]:
        """The id and currency of the merchant that owns the key."""
        if self.merchant_id is None or self.currency is None:
            raise AssertionError(f"an API key with the role {self.role} has no merchant")
        return self.merchant_id, self.currency

    @property
    def tenant(self) -> str:
        """The tenant the key acts for. All keys of a tenant see the same objects and share its idempotency keys."""
        return self.role.value if self.merchant_id is None else f"{self.role}:{self.merchant_id}"


def api_key(role: Role, random_bytes: bytes) -> str:
    """Return an API key made from 32 random bytes: Base32 after a prefix that secret scanners can detect."""
    if len(random_bytes) != API_KEY_BYTES:
        raise ValueError(f"an API key needs {API_KEY_BYTES} random bytes, not {len(random_bytes)}")
    return f"pos_{role}_" + b32encode(random_bytes).decode().rstrip("=").lower()


def api_key_hash(key: str) -> bytes:
    """Return the stored hash of a key: SHA-256."""
    return sha256(key.encode()).digest()
