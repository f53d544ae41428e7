"""Offers payments as customers come, open loop: Poisson arrivals at a steady rate, whatever the server makes of them.

A process of its own, so that it shares no event loop with what starts it. It reads one line of JSON (`Plan`) from
standard input, connects, says `started`, and goes on until standard input ends or `seconds_max` are over. Then it waits
for what is open, and writes a record of each payment to `out`: [intended_s, lag_s, result_s, push_s, outcome].
`intended_s` is the system's monotonic clock; the others are seconds after it: when it was really sent, when the till
heard, when the wallet heard; null without a word. `outcome` is the status, the decline code or the error code, ""
without an answer.
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
_ANSWERS_WITHIN_S = 15.0
# A wallet's codes of a step, less some for chance.
_CODES_PER_STEP = 9


@dataclass(frozen=True, slots=True)
class Plan:
    """What to offer: `rate` payments a second from these devices' numbers, for at most `seconds_max`."""

    url: str
    rate: float
    terminals: list[int]
    wallets: list[int]
    seconds_max: float
    out: str


@dataclass(slots=True)
class Payment:
    """One payment's times, on the monotonic clock."""

    intended_s: float
    sent_s: float = 0.0
    result_s: float | None = None
    push_s: float | None = None
    outcome: str = ""

    def record(self) -> list[Any]:
        after = [None if at is None else at - self.intended_s for at in (self.sent_s, self.result_s, self.push_s)]
        return [self.intended_s, *after, self.outcome]


class Load:
    """The payments so far. A payment's place in the list is its reference and its message_id."""

    def __init__(self) -> None:
        self.payments: list[Payment] = []
        self._unheard: dict[str, Payment] = {}

    def new(self, payment_id: str, intended_s: float) -> tuple[Payment, str]:
        payment = self._unheard[payment_id] = Payment(intended_s)
        self.payments.append(payment)
        return payment, str(len(self.payments) - 1)

    def open(self) -> int:
        return sum(payment.result_s is None for payment in self.payments)

    async def at_till(self, socket: ClientConnection) -> None:
        async for frame in socket:
            now_s, message = time.monotonic(), orjson.loads(frame)
            if message.get("reply_to") is None:
                continue
            payment = self.payments[int(message["reply_to"])]
            payment.result_s = now_s
            payment.outcome = message.get("decline_code") or message.get("status") or message["code"]

    async def at_wallet(self, socket: ClientConnection) -> None:
        async for frame in socket:
            payment = self._unheard.pop(orjson.loads(frame).get("payment_id"), None)
            if payment is not None:
                payment.push_s = time.monotonic()


def check(plan: Plan) -> None:
    """Raises SystemExit when the wallets have not enough codes for the rate."""
    needed = math.ceil(plan.rate * payment_code.STEP_S / _CODES_PER_STEP)
    if len(plan.wallets) < needed:
        raise SystemExit(f"{plan.rate:g} payments a second need {needed} wallets: a wallet has ten codes in 30 s")


async def connected(url: str, devices: list[Device]) -> list[ClientConnection]:
    sockets: list[ClientConnection] = []
    for start in range(0, len(devices), _CONNECTING_AT_ONCE):
        some = devices[start : start + _CONNECTING_AT_ONCE]
        sockets += await asyncio.gather(*(open_session(url, device) for device in some))
    return sockets


async def offer(plan: Plan, load: Load, tills: list[ClientConnection], stop: asyncio.Event) -> None:
    """Send payments at their times until told to stop; one that is late is sent at once, and counts from its time."""
    customers = itertools.cycle([Codes(device_of(DeviceKind.WALLET, number)) for number in plan.wallets])
    chance = random.Random(1)  # noqa: S311 - the same arrivals in every run
    intended_s = time.monotonic()
    end_s = intended_s + plan.seconds_max
    for till in itertools.cycle(tills):
        intended_s += chance.expovariate(plan.rate)
        await sleep_until(intended_s)
        if stop.is_set() or intended_s > end_s:
            return
        code = next(customers).next(time.time())
        if code is None:
            continue  # after a stall all of a wallet's turns may fall into one step
        payment_id = str(uuid_utils.uuid7())
        payment, reference = load.new(payment_id, intended_s)
        payment.sent_s = time.monotonic()
        await till.send(orjson.dumps(scan_message(code, payment_id, reference)).decode())


async def run(plan: Plan) -> list[list[Any]]:
    """Offer all of it; returns the records. Raises SystemExit when the plan cannot work."""
    check(plan)
    load, stop = Load(), asyncio.Event()
    tills = await connected(plan.url, [device_of(DeviceKind.TERMINAL, number) for number in plan.terminals])
    phones = await connected(plan.url, [device_of(DeviceKind.WALLET, number) for number in plan.wallets])
    listeners = [asyncio.create_task(load.at_till(till)) for till in tills]
    listeners += [asyncio.create_task(load.at_wallet(phone)) for phone in phones]
    loop = asyncio.get_running_loop()

    def ended() -> None:
        stop.set()
        loop.remove_reader(sys.stdin.fileno())

    loop.add_reader(sys.stdin.fileno(), ended)
    # A collection over all payments so far would be a pause of our own making.
    gc.disable()
    print("started", flush=True)  # noqa: T201
    await offer(plan, load, tills, stop)
    end_s = time.monotonic() + _ANSWERS_WITHIN_S
    while load.open() and time.monotonic() < end_s:  # noqa: ASYNC110 - once, at the end
        await asyncio.sleep(0.1)
    for listener in listeners:
        listener.cancel()
    for socket in (*tills, *phones):
        socket.transport.abort()
    await asyncio.gather(*listeners, return_exceptions=True)
    return [payment.record() for payment in load.payments]


def main() -> None:
    """Take the plan from standard input and carry it out."""
    plan = Plan(**orjson.loads(sys.stdin.readline()))
    try:
        records = uvloop.run(run(plan))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    Path(plan.out).write_bytes(orjson.dumps(records))


if __name__ == "__main__":
    main()
