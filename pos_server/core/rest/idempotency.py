"""What a request's `Idempotency-Key` stands for.

The ids of payments and refunds are made from it, so their own rows tell a repeat. So are secrets that are told once, an
activation code or an API key: a repeat is told the same, and nothing secret is stored.
"""

from hashlib import sha256
from uuid import UUID

from ..credentials.device_keys import Keyring


def derived_id(tenant: str, operation: str, idempotency_key: str) -> UUID:
    """The id (UUIDv8, RFC 9562 section 5.8) of what a request makes: the same for every repeat of a tenant's."""
    digest = sha256("\x1f".join(("rest-id-1", tenant, operation, idempotency_key)).encode()).digest()
    number = int.from_bytes(digest[:16])
    number = number & ~(0xF << 76) | 8 << 76
    return UUID(int=number & ~(0b11 << 62) | 0b10 << 62)


def derived_secret(keyring: Keyring, kid: str, tenant: str, operation: str, idempotency_key: str) -> bytes | None:
    """A secret of 32 bytes; None when the master key `kid` is retired."""
    return keyring.rest_secret(kid, "\x1f".join((tenant, operation, idempotency_key)))


def fingerprint(operation: str, *parts: str) -> bytes:
    """What is equal for a request and its repeats: the operation, its path, its body."""
    return sha256("\x1f".join((operation, *parts)).encode()).digest()[:16]
