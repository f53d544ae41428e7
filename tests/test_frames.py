"""The frames that do not go through `websockets` are the same as if they had."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ProtocolError
from websockets.frames import Frame, Opcode, apply_mask  # type: ignore[attr-defined]
from websockets.streams import StreamReader

from pos_server.frames import FINAL_PONG, FINAL_TEXT, payload_start, text_frame

SIZES = st.sampled_from([0, 1, 124, 125, 126, 127, 400, 65535, 65536])


@given(SIZES)
def test_a_text_is_framed_as_websockets_does(size: int) -> None:
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
    assert payload_start(data) == len(data) - size
    assert (data[0] == FINAL_TEXT) == (opcode is Opcode.TEXT)
    assert (data[0] == FINAL_PONG) == (opcode is Opcode.PONG)


FRAME = Frame(Opcode.TEXT, b"hello").serialize(mask=True)
LONG = Frame(Opcode.TEXT, bytes(65536)).serialize(mask=True)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(FRAME[:-1], id="all but the last byte"),
        pytest.param(FRAME[:1], id="one byte"),
        pytest.param(FRAME + FRAME, id="two frames"),
        pytest.param(FRAME + b"\x81", id="a frame and the first byte of the next"),
        pytest.param(Frame(Opcode.TEXT, b"hello", fin=False).serialize(mask=True), id="a first fragment"),
        pytest.param(b"\xc1" + FRAME[1:], id="compressed"),
        pytest.param(Frame(Opcode.TEXT, b"hello").serialize(mask=False), id="not masked"),
        pytest.param(b"\x81\xfe\x00\x05" + bytes(4) + b"hello", id="a length in more bytes than it takes"),
        pytest.param(LONG, id="more than 64 KiB"),
    ],
)
def test_anything_else_is_left_to_websockets(data: bytes) -> None:
    assert payload_start(data) == 0


def _frames_websockets_reads(data: bytes) -> list[Frame] | None:
    """The frames that `data` consists of; None when it ends within one, or is none."""
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


# One to three frames, most of them texts, some with bytes lost at the end or too many there.
READS = st.builds(
    lambda frames, lost, more: b"".join(frames)[: -lost or None] + more,
    st.lists(
        st.builds(_frame, st.sampled_from([0x81, 0x81, 0x01, 0x80, 0x82, 0x89, 0xC1]), st.binary(max_size=300)),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from([0, 0, 0, 1, 5]),
    st.sampled_from([b"", b"", b"", b"\x81", b"\x81\x80"]),
)


@given(READS)
def test_a_text_is_found_exactly_where_websockets_reads_one_and_no_more(data: bytes) -> None:
    frames = _frames_websockets_reads(data)
    is_one_text = frames is not None and [(frame.opcode, frame.fin) for frame in frames] == [(Opcode.TEXT, True)]
    start = payload_start(data)
    assert (start > 0 and data[0] == FINAL_TEXT) == is_one_text
    if frames is not None and is_one_text:
        assert apply_mask(data[start:], data[start - 4 : start]) == frames[0].data
    if start and frames is not None:
        assert len(frames) == 1, "the next read begins with a frame"
