"""One-time activation codes, which a device exchanges for its key.

A code is 80 random bits in Crockford's Base32 (no I, L, O, U), written `XXXX-XXXX-XXXX-XXXX`. The server stores only
its hash. The device sends its own `request_id` with the code, so that it can repeat the request if the response is
lost.
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
    """Activation code and request id. Repeat the request with the same `request_id` until a response arrives."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    activation_code: Annotated[str, StringConstraints(min_length=1, max_length=64)] = Field(
        repr=False, description="Activation code, as typed."
    )
    request_id: Annotated[UUID, Field(description="Id of this request, made by the device. Keep it until the answer.")]


class Activation(BaseModel):
    """Identity and key of the activated device."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    kind: Annotated[DeviceKind, Field(description="Kind of the device. It determines the path of its WebSocket.")]
    number: Annotated[int, Field(description="Number of the terminal or wallet.")]
    slot: Annotated[int, Field(description="Slot of the wallet's device, 0 to 9; 0 for a terminal.")]
    kid: Annotated[str, Field(description="Name of the master key behind the device's key, for `authenticate`.")]
    device_key: str = Field(
        repr=False, description="Key of the device: 32 bytes in base64 (RFC 4648 section 4, padded). Keep it secret."
    )
    currency: Annotated[Currency, Field(description="Currency of the terminal's merchant, or of the wallet.")]
    name: Annotated[str, Field(description="Name of the terminal or wallet, for people.")]


def activation_code(random_bytes: bytes) -> str:
    """Return an activation code made from 10 random bytes."""
    if len(random_bytes) != ACTIVATION_BYTES:
        raise ValueError(f"an activation code needs {ACTIVATION_BYTES} random bytes, not {len(random_bytes)}")
    number = int.from_bytes(random_bytes)
    digits = "".join(_ALPHABET[number >> shift & 31] for shift in range(75, -5, -5))
    return "-".join(digits[i : i + 4] for i in range(0, 16, 4))


def activation_hash(code: str) -> bytes:
    """Return the stored hash of a code: SHA-256, regardless of case, hyphens, and O typed for 0 or I and L for 1."""
    return sha256(code.upper().translate(_MISREAD).encode()).digest()
