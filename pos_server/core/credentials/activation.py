"""One-time activation codes and what a device gets for one: how keys reach devices.

A code is 80 random bits in Crockford's base 32 (no I, L, O, U), written `XXXX-XXXX-XXXX-XXXX`. The server keeps only
its hash. The device sends its own `request_id` with it, so that a lost answer can be asked for again.
"""

from hashlib import sha256
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from ..money import Currency
from .device_keys import DeviceKind

ACTIVATION_BYTES = 10
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_MISREAD = str.maketrans({"O": "0", "I": "1", "L": "1", "-": None, " ": None})


class ActivationRequest(BaseModel):
    """The body of `POST /v1/activations`. Repeat it with the same `request_id` until it is answered."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    activation_code: Annotated[str, StringConstraints(min_length=1, max_length=64)] = Field(repr=False)
    request_id: UUID


class Activation(BaseModel):
    """Its answer: the device's identity and key. `device_key` is base64 (RFC 4648) of 32 bytes: keep it secret."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    kind: DeviceKind
    number: int
    slot: int
    kid: str
    device_key: str = Field(repr=False)
    currency: Currency
    name: str


def activation_code(random_bytes: bytes) -> str:
    """The text of a code, from 10 random bytes."""
    if len(random_bytes) != ACTIVATION_BYTES:
        raise ValueError(f"an activation code is made of {ACTIVATION_BYTES} bytes")
    number = int.from_bytes(random_bytes)
    digits = "".join(_ALPHABET[number >> shift & 31] for shift in range(75, -5, -5))
    return "-".join(digits[i : i + 4] for i in range(0, 16, 4))


def activation_hash(code: str) -> bytes:
    """What is stored and looked up: SHA-256 of the code, however a person typed it (case, hyphens, O for 0)."""
    return sha256(code.upper().translate(_MISREAD).encode()).digest()
