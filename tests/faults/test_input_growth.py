"""Work for input from outside grows at most in proportion to its length, and its length has a bound.

Each parser gets a small and a large input of the same form. The CPU time of the large one, the best of a few runs, may
exceed the proportion by a margin that a loaded machine does not reach and quadratic work does.
"""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import h11
import pytest
import uvicorn
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.routing import Route
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request as UpgradeRequest
from websockets.server import ServerProtocol

from pos_server.api.support.dispatch import QUERY_PARAMETERS_MAX, _query, request_id_of
from pos_server.api.support.etags import require_match
from pos_server.api.support.languages import accepted_language
from pos_server.api.support.problems import POINTER_NAME_CHARS_MAX, Problem, json_pointer
from pos_server.core.credentials.activation import activation_hash
from pos_server.core.credentials.device_keys import DeviceId, DeviceKind
from pos_server.core.credentials.payment_code import parse
from pos_server.core.errors import ConnectionClosing, MessageError
from pos_server.core.protocol.codec import decode_client_message, first_problem, message_id_of_scan
from pos_server.core.protocol.notices import Notice, Recipient
from pos_server.core.rest.catalogue import ENDPOINTS
from pos_server.core.rest.fields import Resource
from pos_server.core.texts import language_of
from pos_server.delivery.connections import Connections
from pos_server.delivery.peers import Peers
from pos_server.gateway.frames import split
from pos_server.gateway.websocket_protocol import WebSocketProtocol
from pos_server.limits import OutboxLimits
from pos_server.server import _HttpProtocol, uvicorn_config
from tests.faults.wire import CONTINUATION, TEXT, frame, upgrade_request
from tests.support import settings

FACTOR = 16
# Quadratic work takes 16 times as long as proportional work here.
MARGIN = 5
RUNS = 5
FLOOR_S = 0.000_5


def growth(run: Callable[[Any], object], make: Callable[[int], Any], size: int) -> float:
    """Return the CPU time for FACTOR times the input, relative to FACTOR times the time for `size`."""
    return _cpu_s(run, make, size * FACTOR) / (FACTOR * max(_cpu_s(run, make, size), FLOOR_S))


def _cpu_s(run: Callable[[Any], object], make: Callable[[int], Any], size: int) -> float:
    times_s = []
    for _ in range(RUNS):
        data = make(size)
        started_s = time.process_time()
        run(data)
        times_s.append(time.process_time() - started_s)
    return min(times_s)


def _request(query: bytes = b"", headers: list[tuple[bytes, bytes]] | None = None) -> Request:
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": query, "headers": headers or []}
    return Request(scope)


_LIST = next(endpoint for endpoint in ENDPOINTS if endpoint.name == "listMerchants")
_BODIES = {endpoint.name: endpoint.body for endpoint in ENDPOINTS if endpoint.body is not None}


def _read_query(request: Request) -> None:
    with suppress(Problem):
        _query(_LIST, request)


def _read_body(model: type[BaseModel]) -> Callable[[bytes], None]:
    def read(body: bytes) -> None:
        try:
            model.model_validate_json(body)
        except ValidationError as error:
            json_pointer(first_problem(error)[0])

    return read


def _match(header: str) -> None:
    with suppress(Problem):
        require_match(header, Resource())


def _decode(text: str) -> None:
    with suppress(ConnectionClosing, MessageError):
        decode_client_message(text)


_ROUTES = [Route(endpoint.path, _decode, methods=[endpoint.method]) for endpoint in ENDPOINTS]


def _route(path: str) -> None:
    for route in _ROUTES:
        route.matches({"type": "http", "method": "GET", "path": path})


def _read_http(data: bytes) -> None:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    with suppress(h11.RemoteProtocolError):
        while connection.next_event() not in (h11.NEED_DATA, h11.PAUSED):
            pass


def _accept(data: bytes) -> None:
    connection = ServerProtocol()
    connection.receive_data(data)
    for event in connection.events_received():
        assert isinstance(event, UpgradeRequest)
        connection.accept(event)


_GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
_CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


JSON_FORMS: dict[str, Callable[[int], str]] = {
    "unknown keys": lambda n: "{" + ",".join(f'"k{i}":1' for i in range(n)) + "}",
    "one key repeated": lambda n: "{" + ",".join(['"name":1'] * n) + "}",
    "open arrays": lambda n: "[" * n,
    "nested arrays": lambda n: '{"name":' + "[" * n + "]" * n + "}",
    "nested objects": lambda n: '{"name":' * n + "1" + "}" * n,
    "a long array": lambda n: '{"name":[' + ",".join("1" * n) + "]}",
    "a long number": lambda n: '{"amount_minor":' + "9" * n + "}",
    "a long fraction": lambda n: '{"amount_minor":0.' + "9" * n + "}",
    "a long exponent": lambda n: '{"amount_minor":1e' + "9" * n + "}",
    "escapes": lambda n: '{"name":"' + "\\u00e9" * n + '"}',
    "backslashes": lambda n: '{"name":"' + "\\\\" * n + '"}',
    "spaces": lambda n: '{"name":"a' + " " * n + '"}',
}
FORMS: dict[str, tuple[Callable[[Any], object], Callable[[int], Any], int]] = {
    "distinct query names": (_read_query, lambda n: _request("&".join(f"a{i}=1" for i in range(n)).encode()), 1_000),
    "one query name": (_read_query, lambda n: _request(b"&".join([b"limit=1"] * n)), 1_000),
    "a long query name": (_read_query, lambda n: _request(b"a" * n + b"=1"), 4_000),
    "a long number in the query": (_read_query, lambda n: _request(b"limit=" + b"1" * n), 4_000),
    "leading zeros in the query": (_read_query, lambda n: _request(b"limit=" + b"0" * n + b"1"), 4_000),
    "percent in the query": (_read_query, lambda n: _request(b"cursor=" + b"%41" * n), 4_000),
    "Accept-Language": (accepted_language, lambda n: ",".join(["zh;q=0.5"] * n), 1_000),
    "Accept-Language without commas": (accepted_language, lambda n: "zh" + ";q=0.5" * n, 1_000),
    "Accept-Language with digits": (accepted_language, lambda n: "zh;q=0." + "5" * n, 4_000),
    "If-Match": (_match, lambda n: ",".join(['"x"'] * n), 1_000),
    "X-Request-Id": (request_id_of, lambda n: _request(headers=[(b"x-request-id", b"a." * n)]), 4_000),
    "many headers": (request_id_of, lambda n: _request(headers=[(b"a%d" % i, b"") for i in range(n)]), 1_000),
    "a language tag": (language_of, lambda n: "z-" * n, 4_000),
    "a payment code": (parse, lambda n: "77" + "1" * n, 4_000),
    "an activation code": (activation_hash, lambda n: "O-" * n, 4_000),
    "a pointer": (lambda text: json_pointer([text]), lambda n: "~/" * n, 4_000),
    "a long path": (_route, lambda n: "/v1/" + "a" * n, 1_000),
    "many parts of a path": (_route, lambda n: "/v1/payments" + "/a" * n, 1_000),
    "many header lines": (_read_http, lambda n: _GET + b"a: b\r\n" * n + b"\r\n", 150),
    "folded header lines": (_read_http, lambda n: _GET + b"a: b\r\n" + b" c\r\n" * n + b"\r\n", 250),
    "a long header line": (_read_http, lambda n: _GET + b"a: " + b" \tb" * n + b"\r\n\r\n", 300),
    "small chunks": (_read_http, lambda n: _CHUNKED + b"1\r\nx\r\n" * n, 500),
    "a long extension of a chunk": (_read_http, lambda n: _CHUNKED + b"1;" + b"a" * n + b"\r\nx\r\n", 1_000),
    "WebSocket extensions": (_accept, lambda n: upgrade_request(sec_websocket_extensions=",".join(["a"] * n)), 250),
    "an extension's parameters": (_accept, lambda n: upgrade_request(sec_websocket_extensions="a" + ";b=c" * n), 120),
    "WebSocket subprotocols": (_accept, lambda n: upgrade_request(sec_websocket_protocol=",".join(["a"] * n)), 250),
    "spaces in a handshake": (_accept, lambda n: upgrade_request(connection="Upgrade" + " " * n + ","), 500),
    "small frames": (lambda data: split(data, 0), lambda n: frame(TEXT, b"") * n, 1_000),
    **{
        f"{form} in {name}": (_read_body(model), lambda n, make=make: make(n).encode(), 1_000)
        for form, make in JSON_FORMS.items()
        for name, model in list(_BODIES.items())[:2]
    },
    **{
        f"{form} in {type_}": (
            _decode,
            lambda n, make=make, type_=type_: f'{{"type":"{type_}","message_id":"1","x":{make(n)}}}',
            1_000,
        )
        for form, make in JSON_FORMS.items()
        for type_ in ("payment.scan", "history", "nothing")
    },
    **{
        f"{form} in a refused scan": (
            message_id_of_scan,
            lambda n, make=make: f'{{"type":"payment.scan","x":{make(n)},"message_id":"1"}}',
            1_000,
        )
        for form, make in JSON_FORMS.items()
    },
}


@pytest.mark.parametrize(("run", "make", "size"), FORMS.values(), ids=FORMS)
def test_work_grows_in_proportion_to_the_input(
    run: Callable[[Any], object], make: Callable[[int], Any], size: int
) -> None:
    assert growth(run, make, size) < MARGIN


def test_a_query_has_a_bound_before_it_is_parsed() -> None:
    for count in (QUERY_PARAMETERS_MAX + 1, 12_000):
        with pytest.raises(Problem) as error:
            _query(_LIST, _request("&".join(f"a{i}=1" for i in range(count)).encode()))
        assert (error.value.code, error.value.pointer) == ("bad_field", None)


def test_an_error_repeats_a_bounded_part_of_a_name() -> None:
    with pytest.raises(Problem) as error:
        _query(_LIST, _request(b"%C3%A9" * 4_000 + b"=1"))
    assert error.value.pointer == "/" + "é" * POINTER_NAME_CHARS_MAX


@pytest.mark.parametrize("depth", [100, 1_000, 2_000])
def test_a_deeply_nested_scan_is_left_to_the_usual_decoder_when_the_queue_is_full(depth: int) -> None:
    text = '{"x":' + "[" * depth + "]" * depth + ',"type":"payment.scan","message_id":"m1"}'
    assert message_id_of_scan(text) in ("m1", None)
    with pytest.raises((MessageError, ConnectionClosing)):
        decode_client_message(text)


class _Transport(asyncio.Transport):
    """A transport that counts the bytes written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0
        self.closed = False
        self.protocol: asyncio.BaseProtocol | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += len(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self.protocol is not None
        return self.protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


@dataclass
class _Requests:
    """An application that counts requests."""

    started: int = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.started += 1


def _config(app: Any) -> uvicorn.Config:
    config = uvicorn_config(app, settings())
    config.load()
    return config


def _websocket(app: Any) -> tuple[WebSocketProtocol, _Transport]:
    protocol, transport = WebSocketProtocol(config=_config(app), server_state=ServerState(), app_state={}), _Transport()
    protocol.connection_made(transport)
    protocol.data_received(upgrade_request())
    protocol.conn.send_response(protocol.response)
    protocol.conn.data_to_send()
    protocol.handshake_complete = True
    return protocol, transport


@pytest.mark.asyncio
async def test_empty_fragments_are_bounded() -> None:
    protocol, transport = _websocket(_Requests())
    protocol.data_received(frame(TEXT, b"x", fin=False))
    for _ in range(100):
        protocol.data_received(frame(CONTINUATION, b"", fin=False) * 100)
    assert transport.closed
    assert protocol.refused_frame_code == 1009
    assert len(protocol.frames) <= 4096 // 16


@pytest.mark.asyncio
async def test_a_peer_that_pings_and_does_not_read_fills_no_buffer() -> None:
    protocol, transport = _websocket(_Requests())
    ping = Frame(Opcode.PING, b"x" * 125).serialize(mask=True)
    protocol.data_received(ping)
    assert transport.written == 127
    protocol.pause_writing()
    for _ in range(100):
        protocol.data_received(ping * 100)
    assert transport.written == 127
    protocol.resume_writing()
    protocol.data_received(ping)
    assert transport.written == 2 * 127


@pytest.mark.asyncio
@pytest.mark.parametrize("headers", [1, 5_000], ids=["a long query", "many headers"])
async def test_a_long_head_is_refused_even_if_it_comes_in_one_read(headers: int) -> None:
    app = _Requests()
    state, transport = ServerState(), _Transport()
    protocol = _HttpProtocol(config=_config(app), server_state=state, app_state={})
    transport.protocol = protocol
    protocol.connection_made(transport)
    query = "&".join(f"a{i}=1" for i in range(12_000)) if headers == 1 else ""
    head = f"GET /v1/merchants?{query} HTTP/1.1\r\nHost: x\r\n" + "".join(f"h{i}: v\r\n" for i in range(headers))
    protocol.data_received(f"{head}\r\n".encode())
    assert transport.closed
    assert transport.written > 0
    await asyncio.sleep(0)
    assert app.started == 0
    protocol.connection_lost(None)


def test_a_device_that_opens_elsewhere_costs_the_same_with_many_recent_notices() -> None:
    """Ten thousand devices reconnect after a restart, while notices of the last seconds are kept."""

    def make(count: int) -> Peers:
        peers = Peers(
            "",
            Connections(OutboxLimits(1, 1)),
            now_ms=lambda: 0,
            alive_s=1,
            queue_max=10**6,
            timeout_s=1,
        )
        for number in range(count):
            peers._recent.add(Notice(Recipient(DeviceKind.TERMINAL, number), lambda language: None), peers._clock())  # type: ignore[arg-type, return-value]
        return peers

    def open_all(peers: Peers) -> None:
        for number in range(len(peers._recent)):
            peers._on_opened(DeviceId(DeviceKind.WALLET, number), 0)

    assert growth(open_all, make, 500) < MARGIN


def test_json_forms_are_json() -> None:
    for form, make in JSON_FORMS.items():
        if form not in ("open arrays", "a long exponent"):
            json.loads(make(3))
