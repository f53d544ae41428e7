"""The WebSocket frames that nearly all traffic consists of: texts and pongs, short and whole.

RFC 6455, section 5.2. All else (fragments, other control frames, frames in pieces) is left to `websockets`, which takes
3 µs to frame a text where this takes 0.3.
"""

FINAL_TEXT = 0x81
FINAL_PONG = 0x8A
# Maximum payload of a control frame (section 5.5).
CONTROL_BYTES_MAX = 125
# Where the next frame begins: see `split`.
UNKNOWN = -1
_LENGTH = 0x7F
_MASKED = 0x80
# Lengths: in this byte up to _SHORT_MAX, otherwise in the two or eight bytes after these values.
_SHORT_MAX = 125
_TWO_BYTES = 126
_EIGHT_BYTES = 127
_MASK_BYTES = 4


def text_frame(payload: bytes) -> bytes:
    """Return an unmasked frame, as a server sends it, with a whole text in UTF-8."""
    size = len(payload)
    if size <= _SHORT_MAX:
        return bytes((FINAL_TEXT, size)) + payload
    if size < 1 << 16:
        return bytes((FINAL_TEXT, _TWO_BYTES, size >> 8, size & 0xFF)) + payload
    return bytes((FINAL_TEXT, _EIGHT_BYTES)) + size.to_bytes(8) + payload


def split(data: bytes, until_frame: int) -> tuple[list[tuple[int, bytes]], int]:
    """Split a read into frames, as (start of the payload, frame), and other bytes, as (0, bytes).

    A frame here is whole, final and masked (the mask is the four bytes before its payload), at most 64 KiB long, with
    its length in the fewest bytes. `until_frame` is the number of bytes before the first frame, or UNKNOWN. The second
    value returned is `until_frame` for the next read.
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
    """Return start and end of the payload of the frame at `at`, perhaps in a later read; (0, 0) if there is none."""
    left = len(data) - at
    # FIN, no extension, and masked, as every frame of a client.
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
