"""Values derived from a request's `Idempotency-Key`.

Ids of payments and refunds are derived from it, so that their own rows identify a repeat. One-time secrets (activation
codes and API keys) are derived from it and a master key: a repeat returns the same secret, and no secret is stored.
"""

from hashlib import sha256
from uuid import UUID

from ..credentials.device_keys import Keyring


def derived_id(tenant: str, operation: str, idempotency_key: str) -> UUID:
    """Return the id (UUIDv8, RFC 9562 section 5.8) of the object that a request creates.

    It is the same for every repeat of the request by the same tenant.
    """
    digest = sha256("\x1f".join(("rest-id-1", tenant, operation, idempotency_key)).encode()).digest()
    number = int.from_bytes(digest[:16])
    number = number & ~(0xF << 76) | 8 << 76
    return UUID(int=number & ~(0b11 << 62) | 0b10 << 62)


def derived_secret(keyring: Keyring, kid: str, tenant: str, operation: str, idempotency_key: str) -> bytes | None:
    """Return a secret of 32 bytes, or None if the master key `kid` is retired."""
    return keyring.rest_secret(kid, "\x1f".join((tenant, operation, idempotency_key)))


def fingerprint(operation: str, *parts: str) -> bytes:
    """Return 16 bytes that are equal for a request and its repeats, from the operation, path and body."""
    return sha256("\x1f".join((operation, *parts)).encode()).digest()[:16]
