"""A till's or wallet's connection, as docs/protocol.md requires: it reconnects, resumes, and resends open requests.

One greenlet per device reads. The messages about one payment are an `Exchange`. It holds the open request, which is
resent after each reconnect with the same body, and the received messages with the time when they were read.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import gevent
import orjson
from gevent.event import Event
from gevent.queue import Empty, Queue

from loadtest.lunch.outcomes import Failure, outcome_of
from loadtest.lunch.recorder import Recorder
from loadtest.shared.gevent_websocket import Closed, WebSocket
from pos_client.device.backoff import Backoff
from pos_server.core.credentials import payment_code
from pos_server.core.credentials.device_keys import DeviceKind, authentication_mac

# On a live connection a notice takes milliseconds; after a loss the device must reconnect first.
NOTICE_TIMEOUT_S = 5.0
OUTCOME_TIMEOUT_S = 60.0
_READY_TIMEOUT_S = 10.0
_RETRY_S = 0.25
_STOP_CODES = range(4100, 4200)
_message_ids = count(1)


@dataclass(frozen=True, slots=True)
class Identity:
    """A device's identity and key from its activation. Never printed."""

    kind: DeviceKind
    number: int
    slot: int
    kid: str
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A message, and the time when it was read (`time.perf_counter`)."""

    message: dict[str, Any]
    at_s: float


class Exchange:
    """The messages between a device and the server about one payment. `partner` is the other side's exchange."""

    def __init__(self, device: "Device", key: str) -> None:
        self.device = device
        self.key = key
        self.partner: Exchange = self
        self.open_request: dict[str, Any] | None = None
        self.message_ids: set[str] = set()
        self.sent_s = 0.0
        self.lost_s = math.inf
        self._received: Queue[ReceivedMessage] = Queue()

    def request(self, message: dict[str, Any]) -> None:
        """Start a step for both sides: send a request, and resend it until it is answered."""
        for side in (self, self.partner):
            side.sent_s = time.perf_counter()
            side.lost_s = math.inf if side.device.is_online else side.sent_s
        self.open_request = message
        self.device.send(self)

    @property
    def first_loss_s(self) -> float:
        """Time of the first loss of a connection in this step, at either side; infinite without a loss."""
        return min(self.lost_s, self.partner.lost_s)

    def age_s(self) -> float:
        """Return the seconds since the start of the step."""
        return time.perf_counter() - self.sent_s

    def resumed_s(self, at_s: float) -> float | None:
        """Return the time of the last authentication after a loss, up to `at_s`; None without one."""
        authenticated_s = [side.device.authenticated_s for side in (self, self.partner)]
        return max((s for s in authenticated_s if self.first_loss_s <= s <= at_s), default=None)

    def put(self, message: ReceivedMessage) -> None:
        self._received.put(message)

    def wait_for(self, matches: Callable[[dict[str, Any]], bool]) -> ReceivedMessage:
        """Return the next matching message. Raises Failure on an error message or a timeout."""
        while True:
            age_s = self.age_s()
            timeout_s = NOTICE_TIMEOUT_S if self.first_loss_s == math.inf else OUTCOME_TIMEOUT_S
            try:
                # A loss may raise the timeout during the wait, so wait one second at a time.
                received: ReceivedMessage = self._received.get(timeout=max(0.0, min(1.0, timeout_s - age_s)))
            except Empty:
                if age_s >= timeout_s:
                    raise Failure(f"no message within {timeout_s:g} s") from None
                continue
            if matches(received.message):
                return received
            if received.message["type"] == "error":
                raise Failure(f"refused: {outcome_of(received.message)}")


class Device:
    """A till or a wallet that stays connected."""

    def __init__(self, url: str, identity: Identity, recorder: Recorder) -> None:
        self._url = f"{url.replace('http', 'ws', 1)}/v1/{identity.kind}"
        self._identity = identity
        self._recorder = recorder
        self._backoff = Backoff()
        self._socket: WebSocket | None = None
        self._ready = Event()
        self._reader: gevent.Greenlet | None = None
        self._exchanges: dict[str, Exchange] = {}
        self._exchange_by_message_id: dict[str, Exchange] = {}
        self._since_ms: int | None = None
        self.authenticated_s = 0.0
        self._offline_since_s = time.perf_counter()
        self._offline_name = "connect"
        self._first_wait_s = 0.0
        self.ready: dict[str, Any] = {}
        self.clock_offset_s = 0.0

    @property
    def number(self) -> int:
        return self._identity.number

    @property
    def is_online(self) -> bool:
        return bool(self._ready.is_set())

    def connect(self) -> None:
        """Connect, and reconnect until `close`. Raises Failure on a timeout."""
        if self._reader is None:
            self._offline_since_s, self._offline_name = time.perf_counter(), "connect"
            self._reader = gevent.spawn(self._run)
        if not self._ready.wait(OUTCOME_TIMEOUT_S):
            raise Failure(f"no connection within {OUTCOME_TIMEOUT_S:g} s")

    def close(self) -> None:
        """Disconnect until the next `connect`."""
        if self._reader is not None:
            self._reader.kill()
            self._reader = None
        self._ready.clear()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def cut(self) -> None:
        """Drop the connection without a close frame, like a failing Wi-Fi. The device then reconnects."""
        if self._socket is not None:
            self._offline_name = "wi-fi drop"
            self._socket.cut()

    @contextmanager
    def exchange(self, key: str) -> Iterator[Exchange]:
        """Collect the messages about this payment id, or about this request id."""
        exchange = self._exchanges[key] = Exchange(self, key)
        try:
            yield exchange
        finally:
            del self._exchanges[key]
            for message_id in exchange.message_ids:
                del self._exchange_by_message_id[message_id]

    def send(self, exchange: Exchange) -> None:
        """Send the open request of an exchange now, or after the next reconnect."""
        request = exchange.open_request if exchange.key in self._exchanges else None
        if request is None or self._socket is None or not self.is_online:
            return
        message_id = f"{self.number}-{next(_message_ids)}"
        exchange.message_ids.add(message_id)
        self._exchange_by_message_id[message_id] = exchange
        with suppress(Closed):  # the reader handles it
            self._socket.send(orjson.dumps(request | {"message_id": message_id}))

    def _run(self) -> None:
        attempt = 0
        while True:
            gevent.sleep(self._first_wait_s)
            self._first_wait_s = 0.0
            try:
                with gevent.Timeout(_READY_TIMEOUT_S, Closed(None)):
                    self._authenticate()
                attempt = 0
                while self._socket is not None:
                    self._on_message(orjson.loads(self._socket.receive()), time.perf_counter())
            except (Closed, OSError) as error:
                self._on_loss()
                if isinstance(error, Closed) and error.code in _STOP_CODES:
                    self._recorder.failure("connect", 0.0, Failure(str(error)))
                    return
                # The delay after attempt 0 also spreads the reconnects after a kill of the server.
                gevent.sleep(self._backoff.delay_s(attempt))
                attempt += 1

    def _authenticate(self) -> None:
        self._socket = WebSocket(self._url)
        hello = orjson.loads(self._socket.receive())
        self.clock_offset_s = hello["server_time_ms"] / 1000 - time.time()
        self._socket.lose_after(2.0 * hello["heartbeat_s"])
        identity = self._identity
        authenticate = {
            "type": "authenticate",
            "message_id": "0",
            "id": identity.number,
            "slot": identity.slot,
            "kid": identity.kid,
            "mac": authentication_mac(identity.key, bytes.fromhex(hello["nonce"]), identity.number).hex(),
            "since_ms": self._since_ms,
        }
        self.authenticated_s = time.perf_counter()
        self._socket.send(orjson.dumps(authenticate))
        self.ready = orjson.loads(self._socket.receive())
        if self._since_ms is None or not self.ready["resumed"]:
            self._since_ms = self.ready["server_time_ms"]
        self._recorder.success(self._offline_name, time.perf_counter() - self._offline_since_s)
        self._offline_name = "connection lost"
        self._ready.set()
        for exchange in [*self._exchanges.values()]:
            self.send(exchange)

    def _on_loss(self) -> None:
        if self._ready.is_set():
            self._offline_since_s = time.perf_counter()
            self._ready.clear()
        for exchange in self._exchanges.values():
            exchange.lost_s = min(exchange.lost_s, self._offline_since_s)
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _on_message(self, message: dict[str, Any], at_s: float) -> None:
        if message["type"] == "draining":
            self._first_wait_s = self._backoff.chance() * min(60, message["reconnect_within_s"])
            return
        if "decided_at_ms" in message:
            self._since_ms = max(self._since_ms or 0, message["decided_at_ms"])
        requester = self._exchange_by_message_id.get(message.get("reply_to") or "")
        exchange = requester or self._exchanges.get(message.get("payment_id", ""))
        if exchange is None:
            return
        if message["type"] == "error" and message["retryable"]:
            gevent.spawn_later(message["retry_after_s"] or _RETRY_S, self.send, exchange)
            return
        # A replay answers an open scan; other open requests have been resent and get their own answers.
        if requester or (exchange.open_request and exchange.open_request["type"] == "payment.scan"):
            exchange.open_request = None
        exchange.put(ReceivedMessage(message, at_s))


class Wallet(Device):
    """A customer's phone, with its codes and its expected balance."""

    def __init__(self, url: str, identity: Identity, recorder: Recorder, balance_minor: int) -> None:
        super().__init__(url, identity, recorder)
        self.balance_minor = balance_minor
        self._step = 0
        self._seq = 0

    def code(self) -> str:
        """Return the next code that is valid now. Waits if the ten codes of a step are used."""
        while True:
            step = payment_code.step_at(time.time() + self.clock_offset_s)
            if self._step < step:
                self._step, self._seq = step, 0
            elif self._seq < payment_code.SEQ_MAX:
                self._seq += 1
            elif self._step == step:
                # The server also accepts the next step.
                self._step, self._seq = step + 1, 0
            else:
                gevent.sleep(0.2)
                continue
            return payment_code.make(self._identity.key, self.number, self._identity.slot, self._step, self._seq)
