"""Tills and wallets on WebSockets of a light client (picows), which stay connected from run to run."""

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
class CrowdPlan:
    """The devices to connect, by number, distributed alternately over the servers at `urls`.

    A wallet has `devices` devices, of which the first is connected. The file `marks` keeps the last code shown by each
    device for the next crowd, because a code is used once.
    """

    urls: list[str]
    terminals: list[int]
    wallets: list[int]
    devices: int
    marks: str


class Session(picows.WSListener):
    """A device's WebSocket. It authenticates by itself, then passes messages to `on_message`, with time.monotonic()."""

    def __init__(self, device: Device) -> None:
        self.on_message: Callable[[bytes, float], None] = _ignore
        self.is_open = True
        self._device = device
        self._authenticated: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: picows.WSTransport

    async def ready(self) -> None:
        await self._authenticated

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type != picows.WSMsgType.TEXT:
            return
        payload = frame.get_payload_as_bytes()
        if self._authenticated.done():
            self.on_message(payload, time.monotonic())
            return
        message = orjson.loads(payload)
        if message["type"] == "hello":
            self.send(authenticate_message(self._device, message["nonce"]))
        elif message["type"] == "ready":
            self._authenticated.set_result(None)
        else:
            self._authenticated.set_exception(SystemExit(f"the server did not answer with ready: {message}"))

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self.is_open = False
        if not self._authenticated.done():
            self._authenticated.set_exception(SystemExit("the server closed a connection"))

    def send(self, message: dict[str, Any]) -> None:
        self._transport.send(picows.WSMsgType.TEXT, orjson.dumps(message))

    def close(self) -> None:
        self._transport.disconnect(False)


@dataclass(frozen=True, slots=True)
class Crowd:
    """All sessions by number, and the codes of every device of every wallet by number and slot."""

    tills: dict[int, Session]
    wallets: dict[int, Session]
    codes: dict[tuple[int, int], Codes]

    def detach(self) -> None:
        """Ignore late messages of the last run."""
        for session in (*self.tills.values(), *self.wallets.values()):
            session.on_message = _ignore

    def check(self) -> None:
        """Raise SystemExit if a connection was lost."""
        lost_count = sum(not session.is_open for session in (*self.tills.values(), *self.wallets.values()))
        if lost_count:
            raise SystemExit(f"the server closed {lost_count} connections")


@asynccontextmanager
async def connect_crowd(plan: CrowdPlan) -> AsyncIterator[Crowd]:
    """Connect all devices for the duration of the block."""
    crowd = Crowd(
        {number: Session(device_of(DeviceKind.TERMINAL, number)) for number in plan.terminals},
        {number: Session(device_of(DeviceKind.WALLET, number)) for number in plan.wallets},
        _codes(plan, Path(plan.marks)),
    )
    await _connect(plan.urls, DeviceKind.TERMINAL, crowd.tills.values())
    await _connect(plan.urls, DeviceKind.WALLET, crowd.wallets.values())
    try:
        yield crowd
    finally:
        _save_marks(crowd.codes, Path(plan.marks))
        for session in (*crowd.tills.values(), *crowd.wallets.values()):
            session.close()


def _codes(plan: CrowdPlan, path: Path) -> dict[tuple[int, int], Codes]:
    marks = orjson.loads(path.read_bytes()) if path.exists() else {}
    return {
        (number, slot): Codes(
            device_of(DeviceKind.WALLET, number, slot), tuple(marks.get(f"{number}/{slot}", NONE_SHOWN))
        )
        for number in plan.wallets
        for slot in range(plan.devices)
    }


def _save_marks(codes: dict[tuple[int, int], Codes], path: Path) -> None:
    """Update the marks of these devices, which may be a part of all devices."""
    marks = orjson.loads(path.read_bytes()) if path.exists() else {}
    path.write_bytes(orjson.dumps(marks | {f"{number}/{slot}": each.mark for (number, slot), each in codes.items()}))


async def _connect(urls: list[str], kind: DeviceKind, sessions: Iterable[Session]) -> None:
    url_cycle = itertools.cycle(urls)

    async def connect(session: Session) -> None:
        address = f"{next(url_cycle).replace('http', 'ws', 1)}/v1/{kind}"
        headers = {"Sec-WebSocket-Protocol": "pos.v1"}
        await picows.ws_connect(lambda: session, address, extra_headers=headers, websocket_handshake_timeout=30)
        await session.ready()

    remaining = iter(sessions)
    while chunk := list(itertools.islice(remaining, _CONNECTING_AT_ONCE)):
        await asyncio.gather(*map(connect, chunk))


def _ignore(payload: bytes, now_s: float) -> None:
    """Drop a message that arrives between two runs."""
