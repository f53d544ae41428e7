"""Hypothesis strategies for sessions of a broken or hostile client, from the first byte."""

import json
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from hypothesis import strategies as st

from tests.faults.wire import BINARY, CLOSE, CONTINUATION, PING, TEXT, frame, upgrade_request

# Part of every text that is sent; it must not appear in the log.
CANARY = "c4n4ry"


class Login(Enum):
    """The progress of a session before its frames are sent."""

    HTTP = auto()  # no upgrade; `opening` is the whole session
    NONE = auto()
    HALF = auto()  # `authenticate` is cut or has wrong fields
    DONE = auto()


class End(Enum):
    RESET = auto()
    CLOSE = auto()
    FINISH_SENDING = auto()
    SEND_CLOSE = auto()


@dataclass(frozen=True, slots=True)
class Session:
    """The actions of one client: open, log in up to some point, send chunks, end."""

    opening: bytes
    login: Login
    wrong_fields: dict[str, Any]
    login_cut: int | None
    chunks: list[bytes]
    end: End


_words = st.sampled_from([CANARY, f"{CANARY}\x00", f"\x00{CANARY}", CANARY * 30, f"{CANARY}-é-\u2028", ""])
_numbers = st.one_of(
    st.integers(), st.sampled_from([0, -1, 2**53, 2**63, 2**64, 10**400, -(10**300), 1.5, 1e308, True, False, None])
)
_values = st.recursive(
    _words | _numbers,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=3),
    max_leaves=5,
)
_SCAN: dict[str, Any] = {
    "type": "payment.scan",
    "message_id": CANARY,
    "payment_id": "019cae79-5378-7645-91fc-d6f07823cb87",
    "reference": CANARY,
    "amount_minor": 1,
    "currency": "EUR",
    "code": CANARY,
}
_AUTHENTICATE: dict[str, Any] = {
    "type": "authenticate",
    "message_id": CANARY,
    "id": 1001,
    "slot": 0,
    "kid": "k1",
    "mac": "ab" * 32,
}


@st.composite
def _near_misses(draw: st.DrawFn) -> str:
    """Draw a message in which one field is wrong, missing or of another type."""
    message = dict(draw(st.sampled_from([_SCAN, _AUTHENTICATE])))
    field = draw(st.sampled_from(sorted(message)))
    if draw(st.booleans()):
        del message[field]
    else:
        message[field] = draw(_values)
    return json.dumps(message)


_depths = st.integers(1, 4000)
_texts = st.one_of(
    _near_misses(),
    _values.map(json.dumps),
    _depths.map(lambda depth: "[" * depth),
    _depths.map(lambda depth: '{"a":' * (depth // 5) + "1"),
    _depths.map(lambda depth: "[" * (depth // 2) + "]" * (depth // 2)),
    _depths.map(lambda digits: '{"type":"payment.scan","message_id":"1","amount_minor":' + "9" * digits + "}"),
    st.integers(0, 150).map(lambda end: json.dumps(_SCAN)[:end]),
    st.sampled_from(
        [
            "NaN",
            "-Infinity",
            "1e999",
            '"\\ud800"',
            f'{{"type":"{CANARY}"}}',
            f'{{"type":"payment.scan","type":"authenticate","message_id":"{CANARY}"}}',
            f'{{"message_id":"\\u0000{CANARY}"}}',
            f"\ufeff{{}}{CANARY}",
            CANARY * 700,
            CANARY * 20_000,
            "\x00" * 100,
            "",
        ]
    ),
)
_broken_utf8 = st.builds(
    lambda text, bad, at: text.encode()[:at] + bad + text.encode()[at:],
    _near_misses(),
    st.sampled_from([b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"]),
    st.integers(0, 200),
)
_payloads = _texts.map(str.encode) | _broken_utf8 | st.binary(max_size=200)
_messages = st.builds(frame, st.just(TEXT), _payloads)
_frames = st.builds(
    frame,
    st.integers(0, 15),
    _payloads,
    fin=st.booleans(),
    rsv=st.sampled_from([0, 0, 0, 1, 2, 4, 7]),
    masked=st.sampled_from([True, True, True, False]),
    declared=st.sampled_from([None, None, None, 0, 1, 125, 126, 4096, 4097, 65536, 2**31, 2**63 - 1, 2**64 - 1]),
)


@st.composite
def _fragments(draw: st.DrawFn) -> bytes:
    """Draw a message in fragments, with control frames in between. It may be incomplete or restarted."""
    payload, sent = draw(_payloads), b""
    pieces = draw(st.integers(2, 6))
    size = len(payload) // pieces + 1
    for number in range(pieces):
        opcode = (
            TEXT if number == 0 else draw(st.sampled_from([CONTINUATION, CONTINUATION, CONTINUATION, TEXT, BINARY]))
        )
        fin = number == pieces - 1 and draw(st.booleans())
        sent += frame(opcode, payload[number * size : (number + 1) * size], fin=fin)
        if draw(st.booleans()):
            sent += frame(draw(st.sampled_from([PING, 10])), CANARY.encode() * draw(st.integers(0, 25)))
    return sent


_closes = st.builds(lambda body: frame(CLOSE, body), st.binary(max_size=130))
_floods = st.builds(lambda text, count: frame(TEXT, text.encode()) * count, _near_misses(), st.integers(2, 150))
_cut = st.builds(lambda data, end: data[:end], _messages | _frames, st.integers(1, 40))
_chunks = st.lists(
    st.one_of(_messages, _messages, _frames, _fragments(), _closes, _floods, _cut, st.binary(max_size=60)),
    min_size=1,
    max_size=5,
)

_headers = st.dictionaries(
    st.sampled_from(
        [
            "host",
            "upgrade",
            "connection",
            "sec_websocket_key",
            "sec_websocket_version",
            "sec_websocket_protocol",
            "sec_websocket_extensions",
            "origin",
            "content_length",
            "transfer_encoding",
            "expect",
            "x_" + CANARY,
        ]
    ),
    st.sampled_from(
        [None, "", CANARY, "\x01", "é", "websocket", "-1", "chunked", "99999999999", "x" * 70_000, "a, " * 99]
    ),
    min_size=1,
    max_size=3,
)
_paths = st.sampled_from(
    ["/v1/terminal", "/v1/wallet", "/", f"/{CANARY}", "/%00%ff%zz", "/v1/activations", "*", "//", "/é"]
)
_bad_upgrades = st.builds(lambda path, headers: upgrade_request(path, **headers), _paths, _headers)
_bodies = st.builds(
    lambda method, path, text, length: (
        f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{text}".encode(errors="replace")
    ),
    st.sampled_from(["POST", "GET", "PUT", "TRACE", CANARY]),
    st.sampled_from(["/v1/activations", "/healthz", "/v1/terminal"]),
    _texts,
    st.integers(0, 5000),
)
_http = st.one_of(
    _bad_upgrades,
    _bodies,
    st.binary(max_size=300),
    st.integers(0, 200).map(lambda end: upgrade_request()[:end]),
    st.sampled_from(
        [
            b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 5000,
            b"GET /" + CANARY.encode() * 20_000,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"POST /v1/activations HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n" + CANARY.encode(),
            upgrade_request().replace(b"\r\n", b"\n"),
            upgrade_request().replace(b"HTTP/1.1", b"HTTP/1.0"),
            upgrade_request() * 3,
            upgrade_request(**{f"x_{number}": CANARY for number in range(200)}),
            upgrade_request(x_long=CANARY * 1500),
        ]
    ),
)


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    """Draw a session that is malformed in its HTTP, frames, messages, order or end."""
    login = draw(st.sampled_from(Login))
    path = draw(st.sampled_from(["/v1/terminal", "/v1/terminal", "/v1/wallet"]))
    return Session(
        opening=draw(_http) if login is Login.HTTP else upgrade_request(path),
        login=login,
        wrong_fields=draw(st.dictionaries(st.sampled_from(sorted(_AUTHENTICATE)), _values, max_size=2)),
        login_cut=draw(st.none() | st.integers(0, 250)),
        chunks=[] if login is Login.HTTP else draw(_chunks),
        end=draw(st.sampled_from(End)),
    )
