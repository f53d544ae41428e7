"""A till's or a wallet's connection, as docs/protocol.md asks for it: reconnects, resumes, sends what is open again.

One greenlet per device reads. What is said about one payment is a `Talk`: it holds the request that is open, which goes
out again after each reconnect with the same body, and what was heard since, with the time when it was read.
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

# A notice of a connection that stands comes in milliseconds; after a loss it has to find its way first.
NOTICE_WITHIN_S = 5.0
OUTCOME_WITHIN_S = 60.0
_READY_WITHIN_S = 10.0
_RETRY_S = 0.25
_STOP_CODES = range(4100, 4200)
_message_ids = count(1)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a device got at its activation. Never printed."""

    kind: DeviceKind
    number: int
    slot: int
    kid: str
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Heard:
    """A message, and when it was read (`time.perf_counter`)."""

    message: dict[str, Any]
    at_s: float


class Talk:
    """What a device and the server say about one payment. Its partner is that of the other side."""

    def __init__(self, device: "Device", key: str) -> None:
        self.device = device
        self.key = key
        self.partner: Talk = self
        self.open: dict[str, Any] | None = None
        self.message_ids: set[str] = set()
        self.sent_s = 0.0
        self.lost_s = math.inf
        self._heard: Queue[Heard] = Queue()

    def ask(self, message: dict[str, Any]) -> None:
        """A step begins, for both sides: send a request until it is answered."""
        for side in (self, self.partner):
            side.sent_s = time.perf_counter()
            side.lost_s = math.inf if side.device.is_online else side.sent_s
        self.open = message
        self.device.send(self)

    @property
    def first_loss_s(self) -> float:
        """When one of both sides was first without a connection in this step; infinite when none was."""
        return min(self.lost_s, self.partner.lost_s)

    def age_s(self) -> float:
        """Seconds since the step began."""
        return time.perf_counter() - self.sent_s

    def resumed_s(self, at_s: float) -> float | None:
        """When the last side that had come back by then signed in again; None when none had to."""
        signed_in_s = [side.device.signed_in_s for side in (self, self.partner)]
        return max((s for s in signed_in_s if self.first_loss_s <= s <= at_s), default=None)

    def put(self, heard: Heard) -> None:
        self._heard.put(heard)

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool]) -> Heard:
        """The next message that is wanted. Raises Failure when none comes within its bound, or an error does."""
        while True:
            waited_s = self.age_s()
            bound_s = NOTICE_WITHIN_S if self.first_loss_s == math.inf else OUTCOME_WITHIN_S
            try:
                # A loss may raise the bound while this waits.
                heard: Heard = self._heard.get(timeout=max(0.0, min(1.0, bound_s - waited_s)))
            except Empty:
                if waited_s >= bound_s:
                    raise Failure(f"nothing came within {bound_s:g} s") from None
                continue
            if wanted(heard.message):
                return heard
            if heard.message["type"] == "error":
                raise Failure(f"refused: {outcome_of(heard.message)}")


class Device:
    """A till or a wallet."""

    def __init__(self, url: str, identity: Identity, recorder: Recorder) -> None:
        self._url = f"{url.replace('http', 'ws', 1)}/v1/{identity.kind}"
        self._identity = identity
        self._recorder = recorder
        self._backoff = Backoff()
        self._socket: WebSocket | None = None
        self._ready = Event()
        self._reader: gevent.Greenlet | None = None
        self._talks: dict[str, Talk] = {}
        self._of_message: dict[str, Talk] = {}
        self._since_ms: int | None = None
        self.signed_in_s = 0.0
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
        """Connect, and stay so until `close`. Raises Failure when that takes too long."""
        if self._reader is None:
            self._offline_since_s, self._offline_name = time.perf_counter(), "connect"
            self._reader = gevent.spawn(self._run)
        if not self._ready.wait(OUTCOME_WITHIN_S):
            raise Failure(f"no connection within {OUTCOME_WITHIN_S:g} s")

    def close(self) -> None:
        """Go for now."""
        if self._reader is not None:
            self._reader.kill()
            self._reader = None
        self._ready.clear()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def cut(self) -> None:
        """The Wi-Fi fails: the connection is gone without a close frame. It comes back by itself."""
        if self._socket is not None:
            self._offline_name = "wi-fi drop"
            self._socket.cut()

    @contextmanager
    def talk(self, key: str) -> Iterator[Talk]:
        """Hear what is said about this payment, or of this request's id."""
        talk = self._talks[key] = Talk(self, key)
        try:
            yield talk
        finally:
            del self._talks[key]
            for message_id in talk.message_ids:
                del self._of_message[message_id]

    def send(self, talk: Talk) -> None:
        """Send a talk's open request now, or when the connection is back."""
        if talk.open is None or self._socket is None or not self.is_online or talk.key not in self._talks:
            return
        message_id = f"{self.number}-{next(_message_ids)}"
        talk.message_ids.add(message_id)
        self._of_message[message_id] = talk
        with suppress(Closed):  # the reader sees it too
            self._socket.send(orjson.dumps(talk.open | {"message_id": message_id}))

    def _run(self) -> None:
        attempt = 0
        while True:
            gevent.sleep(self._first_wait_s)
            self._first_wait_s = 0.0
            try:
                with gevent.Timeout(_READY_WITHIN_S, Closed(None)):
                    self._sign_in()
                attempt = 0
                while self._socket is not None:
                    self._on_message(orjson.loads(self._socket.receive()), time.perf_counter())
            except (Closed, OSError) as error:
                self._on_loss()
                if isinstance(error, Closed) and error.code in _STOP_CODES:
                    self._recorder.failed("connect", 0.0, Failure(str(error)))
                    return
                # The delay after attempt 0 also spreads the devices of a server that was killed.
                gevent.sleep(self._backoff.delay_s(attempt))
                attempt += 1

    def _sign_in(self) -> None:
        self._socket = WebSocket(self._url)
        hello = orjson.loads(self._socket.receive())
        self.clock_offset_s = hello["server_time_ms"] / 1000 - time.time()
        self._socket.lose_after(2.0 * hello["heartbeat_s"])
        me = self._identity
        mac = authentication_mac(me.key, bytes.fromhex(hello["nonce"]), me.number).hex()
        message = {"type": "authenticate", "message_id": "0", "id": me.number, "slot": me.slot, "kid": me.kid}
        self.signed_in_s = time.perf_counter()
        self._socket.send(orjson.dumps(message | {"mac": mac, "since_ms": self._since_ms}))
        self.ready = orjson.loads(self._socket.receive())
        if self._since_ms is None or not self.ready["resumed"]:
            self._since_ms = self.ready["server_time_ms"]
        self._recorder.done(self._offline_name, time.perf_counter() - self._offline_since_s)
        self._offline_name = "connection lost"
        self._ready.set()
        for talk in [*self._talks.values()]:
            self.send(talk)

    def _on_loss(self) -> None:
        if self._ready.is_set():
            self._offline_since_s = time.perf_counter()
            self._ready.clear()
        for talk in self._talks.values():
            talk.lost_s = min(talk.lost_s, self._offline_since_s)
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _on_message(self, message: dict[str, Any], at_s: float) -> None:
        if message["type"] == "draining":
            self._first_wait_s = self._backoff.chance() * min(60, message["reconnect_within_s"])
            return
        if "decided_at_ms" in message:
            self._since_ms = max(self._since_ms or 0, message["decided_at_ms"])
        asked = self._of_message.get(message.get("reply_to") or "")
        talk = asked or self._talks.get(message.get("payment_id", ""))
        if talk is None:
            return
        if message["type"] == "error" and message["retryable"]:
            gevent.spawn_later(message["retry_after_s"] or _RETRY_S, self.send, talk)
            return
        # A replay answers a scan that is open; anything else that is open has been sent again.
        if asked or (talk.open and talk.open["type"] == "payment.scan"):
            talk.open = None
        talk.put(Heard(message, at_s))


class Wallet(Device):
    """A customer's phone, with its codes, and the money that must be in it."""

    def __init__(self, url: str, identity: Identity, recorder: Recorder, balance_minor: int) -> None:
        super().__init__(url, identity, recorder)
        self.balance_minor = balance_minor
        self._step = 0
        self._seq = 0

    def code(self) -> str:
        """The next code that is valid now; ten a step, so it may have to wait for one."""
        while True:
            step = payment_code.step_at(time.time() + self.clock_offset_s)
            if self._step < step:
                self._step, self._seq = step, 0
            elif self._seq < payment_code.SEQ_MAX:
                self._seq += 1
            elif self._step == step:
                # The server takes those of the next step too.
                self._step, self._seq = step + 1, 0
            else:
                gevent.sleep(0.2)
                continue
            return payment_code.make(self._identity.key, self.number, self._identity.slot, self._step, self._seq)
