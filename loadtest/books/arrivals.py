"""Offer payments in an open loop: Poisson arrivals at a steady rate, regardless of the server's answers.

A process of its own, so that it shares no event loop with its parent. It reads one line of JSON (`Plan`) from standard
input, connects, prints `started`, and sends payments until standard input ends or `seconds_max` have passed. Then it
waits for the open payments, and writes a record of each to `out`: [intended_s, lag_s, result_s, push_s, outcome].

`intended_s` is on the system's monotonic clock. The others are seconds after it: the send, the till's result, the
wallet's notice; null if missing. `outcome` is the status, the decline code or the error code, "" without an answer.
"""

import asyncio
import gc
import itertools
import math
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import uuid_utils
import uvloop
from websockets.asyncio.client import ClientConnection

from loadtest.shared.clock import sleep_until
from loadtest.shared.codes import Codes
from loadtest.shared.messages import scan_message
from loadtest.shared.seed import Device, device_of
from loadtest.shared.session import open_session
from pos_server.core.credentials import payment_code
from pos_server.core.credentials.device_keys import DeviceKind

_CONNECTING_AT_ONCE = 50
_ANSWER_TIMEOUT_S = 15.0
# Usable codes of a wallet per step, with a margin for random arrivals.
_CODES_PER_STEP = 9


@dataclass(frozen=True, slots=True)
class Plan:
    """The load: `rate` payments per second with these terminals and wallets, by number, for at most `seconds_max`."""

    url: str
    rate: float
    terminals: list[int]
    wallets: list[int]
    seconds_max: float
    out: str


@dataclass(slots=True)
class Payment:
    """The times of one payment, on the monotonic clock."""

    intended_s: float
    sent_s: float = 0.0
    result_s: float | None = None
    push_s: float | None = None
    outcome: str = ""

    def record(self) -> list[Any]:
        times_s = (self.sent_s, self.result_s, self.push_s)
        delays_s = [None if time_s is None else time_s - self.intended_s for time_s in times_s]
        return [self.intended_s, *delays_s, self.outcome]


class PaymentLog:
    """The payments so far. A payment's index in the list is its reference and its message_id."""

    def __init__(self) -> None:
        self.payments: list[Payment] = []
        self._awaiting_push: dict[str, Payment] = {}

    def add(self, payment_id: str, intended_s: float) -> tuple[Payment, str]:
        payment = self._awaiting_push[payment_id] = Payment(intended_s)
        self.payments.append(payment)
        return payment, str(len(self.payments) - 1)

    def open_count(self) -> int:
        return sum(payment.result_s is None for payment in self.payments)

    async def read_till(self, socket: ClientConnection) -> None:
        async for frame in socket:
            now_s, message = time.monotonic(), orjson.loads(frame)
            if message.get("reply_to") is None:
                continue
            payment = self.payments[int(message["reply_to"])]
            payment.result_s = now_s
            payment.outcome = message.get("decline_code") or message.get("status") or message["code"]

    async def read_wallet(self, socket: ClientConnection) -> None:
        async for frame in socket:
            payment = self._awaiting_push.pop(orjson.loads(frame).get("payment_id"), None)
            if payment is not None:
                payment.push_s = time.monotonic()


def check(plan: Plan) -> None:
    """Raise SystemExit if the wallets have too few codes for the rate."""
    wallets_min = math.ceil(plan.rate * payment_code.STEP_S / _CODES_PER_STEP)
    if len(plan.wallets) < wallets_min:
        raise SystemExit(f"{plan.rate:g} payments/s need {wallets_min} wallets, because each has ten codes in 30 s")


async def connect(url: str, devices: list[Device]) -> list[ClientConnection]:
    sockets: list[ClientConnection] = []
    for start in range(0, len(devices), _CONNECTING_AT_ONCE):
        chunk = devices[start : start + _CONNECTING_AT_ONCE]
        sockets += await asyncio.gather(*(open_session(url, device) for device in chunk))
    return sockets


async def send_payments(plan: Plan, log: PaymentLog, tills: list[ClientConnection], stop: asyncio.Event) -> None:
    """Send payments at their intended times until `stop`. A late one is sent at once."""
    customers = itertools.cycle([Codes(device_of(DeviceKind.WALLET, number)) for number in plan.wallets])
    rng = random.Random(1)  # noqa: S311 - the same arrivals in every run
    intended_s = time.monotonic()
    end_s = intended_s + plan.seconds_max
    for till in itertools.cycle(tills):
        intended_s += rng.expovariate(plan.rate)
        await sleep_until(intended_s)
        if stop.is_set() or intended_s > end_s:
            return
        code = next(customers).next(time.time())
        if code is None:
            continue  # after a stall, too many payments of a wallet may fall into one step
        payment_id = str(uuid_utils.uuid7())
        payment, reference = log.add(payment_id, intended_s)
        payment.sent_s = time.monotonic()
        await till.send(orjson.dumps(scan_message(code, payment_id, reference)).decode())


async def run(plan: Plan) -> list[list[Any]]:
    """Offer the payments and return their records. Raises SystemExit if the plan is infeasible."""
    check(plan)
    log, stop = PaymentLog(), asyncio.Event()
    tills = await connect(plan.url, [device_of(DeviceKind.TERMINAL, number) for number in plan.terminals])
    phones = await connect(plan.url, [device_of(DeviceKind.WALLET, number) for number in plan.wallets])
    listeners = [asyncio.create_task(log.read_till(till)) for till in tills]
    listeners += [asyncio.create_task(log.read_wallet(phone)) for phone in phones]
    loop = asyncio.get_running_loop()

    def on_input_end() -> None:
        stop.set()
        loop.remove_reader(sys.stdin.fileno())

    loop.add_reader(sys.stdin.fileno(), on_input_end)
    # A garbage collection over all payments would add a pause to the latencies.
    gc.disable()
    print("started", flush=True)  # noqa: T201
    await send_payments(plan, log, tills, stop)
    end_s = time.monotonic() + _ANSWER_TIMEOUT_S
    while log.open_count() and time.monotonic() < end_s:  # noqa: ASYNC110 - once, at the end
        await asyncio.sleep(0.1)
    for listener in listeners:
        listener.cancel()
    for socket in (*tills, *phones):
        socket.transport.abort()
    await asyncio.gather(*listeners, return_exceptions=True)
    return [payment.record() for payment in log.payments]


def main() -> None:
    """Read the plan from standard input and run it."""
    plan = Plan(**orjson.loads(sys.stdin.readline()))
    try:
        records = uvloop.run(run(plan))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    Path(plan.out).write_bytes(orjson.dumps(records))


if __name__ == "__main__":
    main()
