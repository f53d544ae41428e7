"""The rotating payment code that a wallet shows and a terminal scans (specification: docs/payment-code.md).

24 decimal digits: prefix(2) · wallet_number(10) · device_slot(1) · seq(1) · mac(10), where

    step = floor(unix_time_s / 30)
    mac  = (first 8 bytes, big-endian, of HMAC-SHA256(device_key,
            "pc1" ‖ wallet_number:u64 ‖ slot:u8 ‖ step:u64 ‖ seq:u8)) mod 10^10

The code does not contain the step: the server tries the few steps that it accepts. Truncating an HMAC to decimal
digits follows RFC 4226 section 5.3; the time step follows RFC 6238.
"""

import hmac
import struct
from enum import Enum
from typing import Final

from msgspec import Struct

from ..hidden_fields import repr_without

STEP_S = 30
PREFIX = "77"
CODE_DIGITS = 24
WALLET_NUMBER_MIN = 1_000_000_000
WALLET_NUMBER_MAX = 9_999_999_999
SEQ_MAX = 9
_MAC_MODULUS = 10**10
_mac_text = struct.Struct(">QBQB").pack


class PaymentCode(Struct, frozen=True, gc=False):
    """The fields of a code, not yet verified."""

    wallet_number: int
    slot: int
    seq: int
    mac: str

    __repr__ = repr_without("mac")


class CodeCheck(Enum):
    VALID = "valid"
    EXPIRED = "expired"
    INVALID = "invalid"


# Module-level aliases are faster to look up than enum attributes (see payments/payment.py).
VALID: Final = CodeCheck.VALID
EXPIRED: Final = CodeCheck.EXPIRED
INVALID: Final = CodeCheck.INVALID


def step_at(unix_time_s: float) -> int:
    """Return the number of the 30-second step that contains this time."""
    return int(unix_time_s // STEP_S)


def spent_mark(step: int, seq: int) -> int:
    """Return an integer that orders the codes of a device by (step, seq).

    Single use compares it with the mark of the device's last accepted code.
    """
    return step * (SEQ_MAX + 1) + seq


def make(device_key: bytes, wallet_number: int, slot: int, step: int, seq: int) -> str:
    """Return the 24 digits to show during `step`; `seq` (0 to 9) counts the codes used within the step."""
    return f"{PREFIX}{wallet_number:010d}{slot}{seq}{_mac(device_key, wallet_number, slot, step, seq)}"


def parse(code: str) -> PaymentCode | None:
    """Return the fields of a code, or None if it is malformed.

    A code consists of 24 ASCII digits, starts with the prefix and contains a wallet number within its range.
    """
    if len(code) != CODE_DIGITS or not code.startswith(PREFIX) or not code.isascii() or not code.isdigit():
        return None
    number_slot_seq = int(code[2:14])
    wallet_number = number_slot_seq // 100
    if wallet_number < WALLET_NUMBER_MIN:
        return None
    return PaymentCode(wallet_number, number_slot_seq // 10 % 10, number_slot_seq % 10, code[14:])


def check(code: PaymentCode, device_key: bytes, now_step: int, expired_steps: int) -> tuple[CodeCheck, int]:
    """Verify the MAC of a code against the steps around `now_step`; return the verdict and the code's step.

    VALID: made for the current, the previous or the next step. EXPIRED: made for one of the `expired_steps` steps
    before those, so the wallet is genuine and only needs to show a new code. INVALID: any other code, with step 0.
    MACs are compared in constant time.
    """
    for step in (now_step, now_step - 1, now_step + 1):
        if _matches(code, device_key, step):
            return VALID, step
    for step in range(now_step - 2, now_step - 2 - expired_steps, -1):
        if _matches(code, device_key, step):
            return EXPIRED, step
    return INVALID, 0


def _matches(code: PaymentCode, device_key: bytes, step: int) -> bool:
    return step >= 0 and hmac.compare_digest(_mac(device_key, code.wallet_number, code.slot, step, code.seq), code.mac)


def _mac(device_key: bytes, wallet_number: int, slot: int, step: int, seq: int) -> str:
    text = b"pc1" + _mac_text(wallet_number, slot, step, seq)
    first_8_bytes = hmac.digest(device_key, text, "sha256")[:8]
    return f"{int.from_bytes(first_8_bytes) % _MAC_MODULUS:010d}"
