"""The rotating payment code: what a wallet shows and a till scans. docs/payment-code.md is its public description.

24 decimal digits: prefix(2) · wallet_number(10) · device_slot(1) · seq(1) · mac(10), where

    step = floor(unix_time_s / 30)
    mac  = (first 8 bytes, big-endian, of HMAC-SHA256(device_key,
            "pc1" ‖ wallet_number:u64 ‖ slot:u8 ‖ step:u64 ‖ seq:u8)) mod 10^10

The step is not in the code: the verifier tries the few it would accept. Truncating an HMAC to decimal digits
follows the idea of RFC 4226 section 5.3; the time step that of RFC 6238.
"""

import hmac
import struct
from enum import Enum
from typing import Final

from msgspec import Struct

from ..records import repr_without

STEP_S = 30
PREFIX = "77"
CODE_DIGITS = 24
WALLET_NUMBER_MIN = 1_000_000_000
WALLET_NUMBER_MAX = 9_999_999_999
SEQ_MAX = 9
_MAC_MODULUS = 10**10
_mac_text = struct.Struct(">QBQB").pack


class PaymentCode(Struct, frozen=True, gc=False):
    """A code's fields, read but not verified."""

    wallet_number: int
    slot: int
    seq: int
    mac: str

    __repr__ = repr_without("mac")


class CodeCheck(Enum):
    VALID = "valid"
    EXPIRED = "expired"
    INVALID = "invalid"


VALID: Final = CodeCheck.VALID  # as in payments.py
EXPIRED: Final = CodeCheck.EXPIRED
INVALID: Final = CodeCheck.INVALID


def step_at(unix_time_s: float) -> int:
    """The number of the 30-second step that contains this time."""
    return int(unix_time_s // STEP_S)


def spent_mark(step: int, seq: int) -> int:
    """One integer that orders codes of a device by (step, seq): the last mark accepted is what single use compares."""
    return step * (SEQ_MAX + 1) + seq


def make(device_key: bytes, wallet_number: int, slot: int, step: int, seq: int) -> str:
    """The 24 digits to show during `step`; `seq` (0 to 9) counts the codes used within the step."""
    return f"{PREFIX}{wallet_number:010d}{slot}{seq}{_mac(device_key, wallet_number, slot, step, seq)}"


def parse(code: str) -> PaymentCode | None:
    """The fields of a code, or None when it is not 24 ASCII digits with our prefix and a possible wallet number."""
    if len(code) != CODE_DIGITS or not code.startswith(PREFIX) or not code.isascii() or not code.isdigit():
        return None
    number_slot_seq = int(code[2:14])
    wallet_number = number_slot_seq // 100
    if wallet_number < WALLET_NUMBER_MIN:
        return None
    return PaymentCode(wallet_number, number_slot_seq // 10 % 10, number_slot_seq % 10, code[14:])


def check(code: PaymentCode, device_key: bytes, now_step: int, expired_steps: int) -> tuple[CodeCheck, int]:
    """Verify a code's MAC around `now_step`; returns what it is and the step it was made for.

    VALID for the steps now, now-1 and now+1. EXPIRED for up to `expired_steps` older ones: the wallet is real, the
    customer only needs a fresh code. Otherwise INVALID, with step 0. Compares in constant time.
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
