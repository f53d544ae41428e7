"""Tills and wallets that are connected over WebSockets, on a light client (picows), and stay so from run to run."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import picows

from loadtest.shared.codes import NONE_SHOWN, Codes
from loadtest.shared.messages import authenticate_message
from loadtest.shared.seed import Device, device_of
from pos_server.core.credentials.device_keys import DeviceKind

_CONNECTING_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class People:
    """Who connects, by number, spread over the servers at `urls` by turns.

    A wallet has `devices` devices, of which the first is connected. The file `marks` tells the next crowd which codes
    were shown last: each is used once.
    """

    urls: list[str]
    terminals: list[int]
    wallets: list[int]
    devices: int
    marks: str


class Session(picows.WSListener):
    """A device's WebSocket: it signs in by itself, then gives every message to `heard`, with time.monotonic()."""

    def __init__(self, device: Device) -> None:
        self.heard: Callable[[bytes, float], None] = _nobody
        self.is_open = True
        self._device = device
        self._signed_in: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: picows.WSTransport

    async def ready(self) -> None:
        await self._signed_in

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type != picows.WSMsgType.TEXT:
            return
        payload = frame.get_payload_as_bytes()
        if self._signed_in.done():
            self.heard(payload, time.monotonic())
            return
        message = orjson.loads(payload)
        if message["type"] == "hello":
            self.send(authenticate_message(self._device, message["nonce"]))
        elif message["type"] == "ready":
            self._signed_in.set_result(None)
        else:
            self._signed_in.set_exception(SystemExit(f"not ready: {message}"))

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self.is_open = False
        if not self._signed_in.done():
            self._signed_in.set_exception(SystemExit("the server closed a connection"))

    def send(self, message: dict[str, Any]) -> None:
        self._transport.send(picows.WSMsgType.TEXT, orjson.dumps(message))

    def leave(self) -> None:
        self._transport.disconnect(False)


@dataclass(frozen=True, slots=True)
class Crowd:
    """Everybody's session, by number, and the codes of every device of every wallet, by number and slot."""

    tills: dict[int, Session]
    wallets: dict[int, Session]
    codes: dict[tuple[int, int], Codes]

    def part(self) -> None:
        """Nobody listens to what still comes of the last run."""
        for session in (*self.tills.values(), *self.wallets.values()):
            session.heard = _nobody

    def check(self) -> None:
        """Raises SystemExit when somebody is connected no more."""
        lost = sum(not session.is_open for session in (*self.tills.values(), *self.wallets.values()))
        if lost:
            raise SystemExit(f"the server closed {lost} connections")


@asynccontextmanager
async def connected(people: People) -> AsyncIterator[Crowd]:
    """Connect everybody, some at once; they leave with the block."""
    crowd = Crowd(
        {number: Session(device_of(DeviceKind.TERMINAL, number)) for number in people.terminals},
        {number: Session(device_of(DeviceKind.WALLET, number)) for number in people.wallets},
        _codes(people, Path(people.marks)),
    )
    await _connect(people.urls, DeviceKind.TERMINAL, crowd.tills.values())
    await _connect(people.urls, DeviceKind.WALLET, crowd.wallets.values())
    try:
        yield crowd
    finally:
        _hand_on(crowd.codes, Path(people.marks))
        for session in (*crowd.tills.values(), *crowd.wallets.values()):
            session.leave()


def _codes(people: People, marks: Path) -> dict[tuple[int, int], Codes]:
    last = orjson.loads(marks.read_bytes()) if marks.exists() else {}
    return {
        (number, slot): Codes(
            device_of(DeviceKind.WALLET, number, slot), tuple(last.get(f"{number}/{slot}", NONE_SHOWN))
        )
        for number in people.wallets
        for slot in range(people.devices)
    }


def _hand_on(codes: dict[tuple[int, int], Codes], marks: Path) -> None:
    """A crowd may be a part of all that there are."""
    last = orjson.loads(marks.read_bytes()) if marks.exists() else {}
    marks.write_bytes(orjson.dumps(last | {f"{number}/{slot}": each.mark for (number, slot), each in codes.items()}))


async def _connect(urls: list[str], kind: DeviceKind, sessions: Iterable[Session]) -> None:
    turns = itertools.cycle(urls)

    async def one(session: Session) -> None:
        address = f"{next(turns).replace('http', 'ws', 1)}/v1/{kind}"
        headers = {"Sec-WebSocket-Protocol": "pos.v1"}
        await picows.ws_connect(lambda: session, address, extra_headers=headers, websocket_handshake_timeout=30)
        await session.ready()

    left = iter(sessions)
    while some := list(itertools.islice(left, _CONNECTING_AT_ONCE)):
        await asyncio.gather(*map(one, some))


def _nobody(payload: bytes, now_s: float) -> None:
    """Between two runs."""
