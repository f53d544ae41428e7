"""A device that follows docs/protocol.md on its own: it reconnects, resumes in pages, and repeats its requests.

It shares no code with `pos_client`, so that both implementations check the protocol.
"""

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from loadtest.shared.messages import authenticate_message
from loadtest.shared.seed import Device

Message = dict[str, Any]

# Longer than the 10 s of docs/protocol.md: on a busy machine, 160 devices that all retry would never be served.
HANDSHAKE_TIMEOUT_S = 30
ANSWER_TIMEOUT_S = 5
BACKOFF_BASE_S = 0.05
BACKOFF_MAX_S = 2.0
RETRY_PAUSE_S = 0.3
CURSOR_AGE_MS = 60_000
ABOUT_PAYMENTS = {"payment.result", "payment.pending", "payment.confirmation_required", "refund.result"}
# Fields that never differ between two messages about the same version of a payment.
FIXED_FIELDS = ("amount_minor", "status", "decline_code")


class Devices:
    """Everything that the devices of a market share.

    - `spawn`: runs a coroutine until the market ends.
    - `on_answer`: called with the URL of the server and the time (time.monotonic) at which the request was sent.
    - `problems`: violations of the protocol.
    """

    def __init__(
        self, spawn: Callable[[Coroutine[Any, Any, None]], object], on_answer: Callable[[str, float], None]
    ) -> None:
        self.spawn = spawn
        self.on_answer = on_answer
        self.problems: list[str] = []


class MarketDevice:
    """One device. It connects to the servers at `urls` alternately, to the first one first."""

    def __init__(self, device: Device, urls: list[str], shared: Devices) -> None:
        self.number = device.device.number
        self.latest: dict[str, Message] = {}
        """Latest message about each payment, by payment_id."""
        self.caught_up = asyncio.Event()
        """Set while the device is connected and has received everything that it missed."""
        self.since_ms: int | None = None
        self.pages = 0
        self._device = device
        self._urls = urls
        self._shared = shared
        self._url = urls[0]
        self._last = ""
        self._socket: ClientConnection | None = None
        self._usable = asyncio.Event()
        self._is_behind = False
        self._cursor: str | None = None
        self._cursor_since_ms = 0
        self._answers: dict[str, asyncio.Future[Message | None]] = {}
        self._news: dict[str, asyncio.Event] = {}

    @property
    def state(self) -> str:
        """The state of its connection, for a failed test."""
        connected = "not connected" if self._socket is None else "behind" if self._is_behind else "waits for replayed"
        return f"{self._device.device} at {self._url}: {connected}, last {self._last}"

    # --- Connections ---

    async def run(self) -> None:
        """Stay connected until cancelled."""
        attempt = 0
        for url in itertools.cycle(self._urls):
            connected_s = time.monotonic()
            self._url = url
            address = f"{url.replace('http', 'ws', 1)}/v1/{self._device.device.kind}"
            # A server that died or drains ends connections in many ways; each of them means: connect again.
            with contextlib.suppress(OSError, TimeoutError, WebSocketException, EOFError):
                async with connect(
                    address,
                    subprotocols=["pos.v1"],  # type: ignore[list-item]
                    compression=None,
                    open_timeout=HANDSHAKE_TIMEOUT_S,
                    close_timeout=1,
                ) as socket:
                    try:
                        await self._talk(socket)
                    finally:
                        self._on_lost(socket)
            attempt = 0 if time.monotonic() - connected_s > 1 else attempt + 1
            await asyncio.sleep(random.uniform(0, min(BACKOFF_MAX_S, BACKOFF_BASE_S * 2**attempt)))

    async def reconnect(self) -> None:
        """Drop the connection, and wait until another one has received everything that the device missed."""
        self.caught_up.clear()
        if self._socket is not None:
            self._socket.transport.abort()
            self._on_lost(self._socket)
        await self.caught_up.wait()

    async def _talk(self, socket: ClientConnection) -> None:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
            hello = json.loads(await socket.recv())
            message = authenticate_message(self._device, hello["nonce"])
            if self.since_ms is not None:
                message["since_ms"] = self.since_ms
            await socket.send(json.dumps(message))
            ready = json.loads(await socket.recv())
        self._socket = socket
        self._usable.set()
        if self.since_ms is None:
            self.since_ms = ready["server_time_ms"]
            self.caught_up.set()  # nothing is replayed
        self._is_behind = not ready["resumed"]
        if self._is_behind:
            if self._cursor_since_ms > ready["server_time_ms"] - CURSOR_AGE_MS:
                self._cursor = None
            await self._ask_for_page()
        async for text in socket:
            await self._receive(json.loads(text))

    def _on_lost(self, socket: ClientConnection) -> None:
        if socket.close_code is not None and 4100 <= socket.close_code < 4200:
            self._problem(f"closed with {socket.close_code} {socket.close_reason}")
        self._socket = None
        self._usable.clear()
        self.caught_up.clear()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_result(None)
        self._answers.clear()

    # --- Messages ---

    async def _receive(self, message: Message) -> None:
        self._last = f"{message['type']} {message.get('code', '')}"
        reply_to = message.get("reply_to")
        if message["type"] in ABOUT_PAYMENTS:
            self._remember(message)
        elif message["type"] == "draining":
            self._usable.clear()
        elif message["type"] == "replayed":
            await self._on_replayed(message)
        elif message["type"] == "error" and (reply_to or "").startswith("page"):
            await asyncio.sleep(message["retry_after_s"] or RETRY_PAUSE_S)
            await self._ask_for_page()
        answer = self._answers.pop(reply_to or "", None)
        if answer is not None and not answer.done():
            answer.set_result(message)

    async def _on_replayed(self, message: Message) -> None:
        self.since_ms = max(self.since_ms or 0, message["since_ms"])
        self._cursor, self._cursor_since_ms = message["next_cursor"], message["since_ms"]
        if self._cursor is None:
            self._is_behind = False
            self.caught_up.set()
        else:
            await self._ask_for_page()

    async def _ask_for_page(self) -> None:
        assert self._socket is not None
        self.pages += 1
        page = {"type": "resume", "message_id": f"page{self.pages}", "since_ms": self.since_ms, "cursor": self._cursor}
        await self._socket.send(json.dumps(page))

    def _remember(self, message: Message) -> None:
        payment_id = message["payment_id"]
        known = self.latest.get(payment_id)
        if not self._is_behind:
            self.since_ms = max(self.since_ms or 0, message["decided_at_ms"])
        if known is not None and known["version"] == message["version"]:
            differing = [
                field
                for field in FIXED_FIELDS
                if known["type"] == message["type"] and known.get(field) != message.get(field)
            ]
            if differing:
                self._problem(f"{differing} of one version differ: {known} and {message}")
        if known is None or known["version"] < message["version"]:
            self.latest[payment_id] = message
            if news := self._news.get(payment_id):
                news.set()
            self._on_change(message)

    def _on_change(self, message: Message) -> None:
        """Called for each new version of a payment."""

    def _problem(self, text: str) -> None:
        self._shared.problems.append(f"{self._device.device.kind} {self.number}: {text}")

    # --- Requests ---

    async def ask(self, request: Message) -> Message:
        """Send a request until it is answered. Returns its answer, or an error that is not retryable."""
        while True:
            await self._usable.wait()
            message_id = f"m{random.getrandbits(96):x}"
            answer = self._answers[message_id] = asyncio.get_running_loop().create_future()
            sent_s, url = time.monotonic(), self._url
            reply: Message | None = None
            try:
                assert self._socket is not None
                await self._socket.send(json.dumps(request | {"message_id": message_id}))
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    reply = await answer
            except (TimeoutError, ConnectionClosed):
                # A closed connection is noticed here before `run` notices it.
                await asyncio.sleep(BACKOFF_BASE_S)
            finally:
                self._answers.pop(message_id, None)
            if reply is None:
                continue
            if reply["type"] == "error" and reply["retryable"]:
                await asyncio.sleep(reply["retry_after_s"] or random.uniform(0.05, RETRY_PAUSE_S))
                continue
            self._shared.on_answer(url, sent_s)
            return reply

    async def next_change(self, payment_id: str, version: int, timeout_s: float) -> None:
        """Wait until a later version of a payment has arrived, or until the time is over."""
        news = self._news.setdefault(payment_id, asyncio.Event())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.latest[payment_id]["version"] <= version:
                    news.clear()
                    await news.wait()
