"""Frames that bypass `websockets` are equal to those that it reads and writes."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ProtocolError
from websockets.frames import Frame, Opcode, apply_mask  # type: ignore[attr-defined]
from websockets.streams import StreamReader

from pos_server.gateway.frames import CONTROL_BYTES_MAX, FINAL_PONG, FINAL_TEXT, UNKNOWN, split, text_frame

SIZES = st.sampled_from([0, 1, 124, 125, 126, 127, 400, 65535, 65536])


@given(SIZES)
def test_a_text_frame_equals_that_of_websockets(size: int) -> None:
    payload = b"x" * size
    assert text_frame(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)


@pytest.mark.parametrize(
    ("opcode", "size"),
    [
        *((opcode, size) for opcode in (Opcode.TEXT, Opcode.BINARY) for size in (0, 1, 125, 126, 127, 4096, 65535)),
        *((opcode, size) for opcode in (Opcode.PING, Opcode.PONG, Opcode.CLOSE) for size in (0, 2, 125)),
    ],
)
def test_the_payload_of_one_whole_frame_is_found(opcode: Opcode, size: int) -> None:
    data = Frame(opcode, bytes(size)).serialize(mask=True)
    assert split(data, 0) == ([(len(data) - size, data)], 0)
    assert (data[0] == FINAL_TEXT) == (opcode is Opcode.TEXT)
    assert (data[0] == FINAL_PONG) == (opcode is Opcode.PONG)


FRAME = Frame(Opcode.TEXT, b"hello").serialize(mask=True)
START = 6
LONG = Frame(Opcode.TEXT, bytes(65536)).serialize(mask=True)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(FRAME[:5], id="an incomplete length"),
        pytest.param(Frame(Opcode.TEXT, b"hello", fin=False).serialize(mask=True), id="a first fragment"),
        pytest.param(b"\xc1" + FRAME[1:], id="compressed"),
        pytest.param(Frame(Opcode.TEXT, b"hello").serialize(mask=False), id="not masked"),
        pytest.param(b"\x81\xfe\x00\x05" + bytes(4) + b"hello", id="a length that is longer than necessary"),
        pytest.param(LONG, id="more than 64 KiB"),
    ],
)
def test_other_data_is_left_to_websockets(data: bytes) -> None:
    assert split(data, 0) == ([(0, data)], UNKNOWN)
    assert split(FRAME + data, 0) == ([(START, FRAME), (0, data)], UNKNOWN)
    assert split(FRAME, UNKNOWN) == ([(0, FRAME)], UNKNOWN)


def test_a_split_frame_is_left_to_websockets_and_the_next_one_is_found() -> None:
    for cut in range(START, len(FRAME)):
        rest = len(FRAME) - cut
        assert split(FRAME[:cut], 0) == ([(0, FRAME[:cut])], rest)
        assert split(FRAME[cut:] + FRAME, rest) == ([(0, FRAME[cut:]), (START, FRAME)], 0)
        assert split(FRAME[cut:], rest) == ([(0, FRAME[cut:])], 0)
    assert split(FRAME[6:8], 5) == ([(0, FRAME[6:8])], 3)
    assert split(b"", 0) == ([], 0)


def _frames_of_websockets(data: bytes) -> list[Frame] | None:
    """Return the frames that websockets reads from `data`, or None if they are incomplete or invalid."""
    reader = StreamReader()
    reader.feed_data(data)
    frames = []
    while reader.buffer:
        parsing: Any = Frame.parse(reader.read_exact, mask=True, max_size=None)
        try:
            next(parsing)
            return None
        except StopIteration as done:
            frames.append(done.value)
        except ProtocolError:
            return None
    return frames


def _frame(first: int, payload: bytes) -> bytes:
    size = len(payload)
    length = bytes((0x80 | size,)) if size <= 125 else bytes((0x80 | 126,)) + size.to_bytes(2)
    return bytes((first,)) + length + b"mask" + payload


# One to three frames, mostly texts, some with missing or additional bytes at the end.
READS = st.builds(
    lambda frames, missing, more: b"".join(frames)[: -missing or None] + more,
    st.lists(
        st.builds(_frame, st.sampled_from([0x81, 0x81, 0x01, 0x80, 0x82, 0x89, 0xC1]), st.binary(max_size=300)),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from([0, 0, 0, 1, 5]),
    st.sampled_from([b"", b"", b"", b"\x81", b"\x81\x80"]),
)


@given(READS)
def test_frames_are_found_where_websockets_reads_them(data: bytes) -> None:
    pieces, _ = split(data, 0)
    assert b"".join(piece for _, piece in pieces) == data
    for start, piece in pieces:
        if start:
            frames = _frames_of_websockets(piece)
            # websockets rejects control frames that are too long.
            if frames is not None:
                assert [frame.fin for frame in frames] == [True]
                assert apply_mask(piece[start:], piece[start - 4 : start]) == frames[0].data
            else:
                assert piece[0] & 0x08
                assert len(piece) - start > CONTROL_BYTES_MAX
    frames = _frames_of_websockets(data)
    if frames is not None and all(frame.fin for frame in frames):
        assert len(pieces) == len(frames)
        assert all(start for start, _ in pieces)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=8), st.data())
def test_texts_are_found_again_after_a_split_one(texts: list[bytes], data: st.DataObject) -> None:
    frames = [Frame(Opcode.TEXT, text).serialize(mask=True) for text in texts]
    ends = list(itertools.accumulate(map(len, frames)))
    # Cuts within the length of a frame are excluded.
    cuts = [at for end, frame in zip(ends, frames, strict=True) for at in range(end - len(frame) + 8, end + 1)]
    cut_at = sorted(data.draw(st.sets(st.sampled_from(cuts), max_size=4)) if cuts else ())
    whole, until_frame, found_frames = b"".join(frames), 0, []
    for begin, end in itertools.pairwise([0, *cut_at, len(whole)]):
        pieces, until_frame = split(whole[begin:end], until_frame)
        found_frames += [piece for start, piece in pieces if start]
    split_count = sum(
        any(end - len(frame) < at < end for at in cut_at) for end, frame in zip(ends, frames, strict=True)
    )
    assert until_frame == 0
    assert len(found_frames) == len(frames) - split_count
    assert all(frame in frames for frame in found_frames)
