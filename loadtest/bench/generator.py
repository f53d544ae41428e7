"""Offer payments over WebSockets as fast as the server accepts them (closed loop), or at a rate (open loop).

A process of its own. It reads one line of JSON (`CrowdPlan`) from standard input, connects all devices and prints
`connected`. For each further line of JSON (`Plan`) it does the following:

1. print `ready` and wait for a line;
2. offer payments for `warm_up_s + seconds`, and wait for the open ones;
3. write a `Result` as JSON to `Plan.out`, and print `done`.

Closed loop: each till has one open payment, and sends the next one after its result. Open loop: arrivals are Poisson,
and the latency of a late payment counts from its intended time. Every code is real. A payment is complete when both
the till and the wallet have their messages.
"""

import asyncio
import gc
import itertools
import math
import random
import resource
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import orjson
import uuid_utils
import uvloop

from loadtest.bench.crowd import Crowd, CrowdPlan, Session, connect_crowd
from loadtest.shared.clock import sleep_until
from loadtest.shared.codes import CODES_SHOWN, Codes
from loadtest.shared.histogram import encode, new_histogram
from loadtest.shared.messages import scan_message
from loadtest.shared.seed import PIN
from pos_server.core.credentials import payment_code

_ANSWER_TIMEOUT_S = 15.0
_WALLET_WAIT_S = 0.5
_TIMELINE_S = 0.5
_NO_CODES_WAIT_S = 0.02
_SENDS_IN_A_ROW_MAX = 20
LATE_S = 0.01


@dataclass(frozen=True, slots=True)
class Plan:
    """The payments of one run, with some of the crowd's tills and wallets. `rate` 0 is the closed loop.

    Each payment is of `amount_minor`. A wallet uses the codes of its devices alternately. `zipf` > 0 picks wallets from
    a Zipf distribution with that exponent, instead of in order. `pin_share` of the payments need a PIN: they are of
    `pin_amount_minor`, by one of the first `pin_wallets` wallets. `out` is the file of the result.
    """

    terminals: list[int]
    wallets: list[int]
    seconds: float
    out: str
    warm_up_s: float = 2.0
    rate: float = 0.0
    amount_minor: int = 1
    declined_share: float = 0.0
    zipf: float = 0.0
    pin_share: float = 0.0
    pin_wallets: int = 0
    pin_amount_minor: int = 0


@dataclass(slots=True)
class Result:
    """The result of a run.

    The histograms (`loadtest.shared.histogram`) are in microseconds, of payments intended after the warm-up:

    - `till`: from the intended time to the till's result.
    - `both`: from the intended time to the later of both sides' messages; approved payments without a PIN.
    - `pin`: from the PIN's send to the later of both sides' messages; approved payments with a PIN.

    `late` counts payments sent more than LATE_S after their intended time, `not_notified` approved payments without a
    message to the wallet. `timeline` counts the tills' results in each half second since the start.
    """

    seconds: float
    offered: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    answered: int = 0
    till: str = ""
    both: str = ""
    pin: str = ""
    unanswered: int = 0
    not_notified: int = 0
    skipped: int = 0
    late: int = 0
    cpu_s: float = 0.0
    timeline: list[int] = field(default_factory=list)


class Run:
    """One run. A payment's number is part of its message_id and reference, and its index in the arrays of times."""

    def __init__(self, plan: Plan, crowd: Crowd) -> None:
        self._plan = plan
        self._crowd = crowd
        self._random = random.Random(1)  # noqa: S311 - the same in every run
        # All first devices, then all second ones, and so on, since each device has ten codes in 30 s.
        slots = range(1 + max(slot for _, slot in crowd.codes))
        self._customers = [crowd.codes[number, slot] for slot in slots for number in plan.wallets]
        self._next_customer = self._zipf() if plan.zipf else itertools.cycle(self._customers)
        pin_wallets = dict.fromkeys(plan.wallets[: plan.pin_wallets])
        self._next_pin_customer = itertools.cycle(
            [crowd.codes[number, slot] for slot in slots for number in pin_wallets]
        )
        self._prefix = f"{time.time_ns() // 1_000_000:x}-"
        # time.monotonic() by payment number, 0 for a message that has not arrived.
        self._intended_s = array("d")
        self._sent_s = array("d")
        self._till_s = array("d")
        self._wallet_s = array("d")
        # Payments that wait for their PIN: the scan's message id by payment id, and the time of the PIN by number.
        self._pending: dict[str, str] = {}
        self._pin_sent_s: dict[int, float] = {}
        self._numbers: dict[bytes, int] = {}
        self._outcomes: Counter[str] = Counter()
        self._approved = bytearray()
        self._open_count = 0
        self._skipped_count = 0
        self._idle = asyncio.Event()
        self._is_sending = True
        self._tills = [crowd.tills[number] for number in plan.terminals]
        for index, till in enumerate(self._tills):
            till.on_message = self._till_handler(index)
        for number, wallet in crowd.wallets.items():
            wallet.on_message = self._pin_wallet_handler(wallet) if number in pin_wallets else self._on_wallet_message

    def prepare(self) -> None:
        """Make codes in advance: all of them for a rate, otherwise one per device. Raises SystemExit."""
        self._crowd.check()
        plan, now_s = self._plan, time.time()
        payments = plan.rate * (plan.warm_up_s + plan.seconds)
        codes = max(1, math.ceil(payments / len(self._customers)))
        for customer in self._customers:
            customer.prepare(now_s, codes)

    async def wait_for_codes(self) -> None:
        """Wait for the next step if earlier runs used up more than half of the codes, so that none is missing."""
        now_s = time.time()
        if sum(customer.left(now_s) for customer in self._customers) < len(self._customers) * CODES_SHOWN:
            await asyncio.sleep(payment_code.STEP_S - now_s % payment_code.STEP_S)

    def _zipf(self) -> Iterator[Codes]:
        customers = self._customers
        weights = list(itertools.accumulate(1 / rank**self._plan.zipf for rank in range(1, len(customers) + 1)))
        while True:
            yield from self._random.choices(customers, cum_weights=weights, k=10_000)

    def _send_next(self, till_index: int) -> None:
        """Send the next payment of a till in the closed loop, as soon as a customer has a code."""
        if self._is_sending and not self.send(till_index, time.monotonic()):
            asyncio.get_running_loop().call_later(_NO_CODES_WAIT_S, self._send_next, till_index)

    def send(self, till_index: int, intended_s: float) -> bool:
        """Send one payment at this till; returns False if no customer has a code left."""
        now_s = time.time()
        needs_pin = self._plan.pin_share > 0 and self._random.random() < self._plan.pin_share
        customers = self._next_pin_customer if needs_pin else self._next_customer
        for _ in range(16):
            code = next(customers).next(now_s)
            if code is not None:
                break
        else:
            self._skipped_count += 1
            return False
        number = len(self._intended_s)
        payment_id = str(uuid_utils.uuid7())
        self._numbers[payment_id.encode()] = number
        self._intended_s.append(intended_s)
        self._sent_s.append(time.monotonic())
        self._till_s.append(0.0)
        self._wallet_s.append(0.0)
        self._approved.append(0)
        self._open_count += 1
        amount_minor = self._plan.pin_amount_minor if needs_pin else self._plan.amount_minor
        if self._plan.declined_share and self._random.random() < self._plan.declined_share:
            amount_minor = 10**12
        self._tills[till_index].send(scan_message(code, payment_id, f"{self._prefix}{number}", amount_minor))
        return True

    def _till_handler(self, till_index: int) -> Callable[[bytes, float], None]:
        def on_message(payload: bytes, now_s: float) -> None:
            message = orjson.loads(payload)
            reply_to = message.get("reply_to") or self._pending.pop(message.get("payment_id"), None)
            # A device that changes servers gets the last seconds again, also those of the previous run.
            if reply_to is None or not reply_to.startswith(self._prefix):
                return
            if message["type"] == "payment.pending":
                self._pending[message["payment_id"]] = reply_to
                return
            number = int(reply_to[len(self._prefix) :])
            if self._till_s[number]:
                return
            self._till_s[number] = now_s
            self._open_count -= 1
            outcome = message.get("decline_code") or message.get("status") or message["code"]
            self._outcomes[outcome] += 1
            self._approved[number] = outcome == "approved"
            if self._is_sending and not self._plan.rate:
                self._send_next(till_index)
            elif not self._open_count:
                self._idle.set()

        return on_message

    def _on_wallet_message(self, payload: bytes, now_s: float) -> None:
        # Finding the id by its prefix costs less than parsing; the server always formats messages the same way.
        start = payload.find(b'"payment_id":"') + 14
        number = self._numbers.pop(payload[start : start + 36], None)
        if number is not None:
            self._wallet_s[number] = now_s

    def _pin_wallet_handler(self, wallet: Session) -> Callable[[bytes, float], None]:
        def on_message(payload: bytes, now_s: float) -> None:
            if b'"payment.confirmation_required"' not in payload:
                self._on_wallet_message(payload, now_s)
                return
            message = orjson.loads(payload)
            number = self._numbers.get(message["payment_id"].encode())
            if number is not None:
                self._pin_sent_s[number] = now_s
                answer = {name: message[name] for name in ("payment_id", "merchant_id", "version")} | {"pin": PIN}
                wallet.send({"type": "payment.confirm", "message_id": f"pin-{number}", **answer})

        return on_message

    async def run(self) -> Result:
        """Offer the payments, wait for the open ones, and return the result."""
        plan = self._plan
        start_cpu_s = _cpu_s()
        start_s = time.monotonic()
        measure_s, end_s = start_s + plan.warm_up_s, start_s + plan.warm_up_s + plan.seconds
        if plan.rate:
            await self._run_open_loop(start_s, end_s)
        else:
            for index in range(len(self._tills)):
                self._send_next(index)
            await asyncio.sleep(end_s - time.monotonic())
        self._is_sending = False
        if self._open_count:
            self._idle.clear()
            try:
                async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                    await self._idle.wait()
            except TimeoutError:
                pass
        await asyncio.sleep(_WALLET_WAIT_S)
        return self._result(measure_s, end_s, start_s, _cpu_s() - start_cpu_s)

    async def _run_open_loop(self, start_s: float, end_s: float) -> None:
        intended_s = start_s
        till_indexes = itertools.cycle(range(len(self._tills)))
        sends_in_a_row = 0
        while True:
            intended_s += self._random.expovariate(self._plan.rate)
            if intended_s > end_s:
                return
            if intended_s > time.monotonic():
                await sleep_until(intended_s)
                sends_in_a_row = 0
            elif sends_in_a_row == _SENDS_IN_A_ROW_MAX:
                # Read the sockets often enough, so that received messages do not wait.
                await asyncio.sleep(0)
                sends_in_a_row = 0
            self.send(next(till_indexes), intended_s)
            sends_in_a_row += 1

    def _result(self, measure_s: float, end_s: float, start_s: float, cpu_s: float) -> Result:
        result = Result(end_s - measure_s, outcomes=dict(self._outcomes), skipped=self._skipped_count, cpu_s=cpu_s)
        till, both, pin = new_histogram(), new_histogram(), new_histogram()
        timeline: Counter[int] = Counter()
        for number, (intended_s, sent_s, till_s, wallet_s, approved) in enumerate(
            zip(self._intended_s, self._sent_s, self._till_s, self._wallet_s, self._approved, strict=True)
        ):
            if till_s:
                timeline[int((till_s - start_s) / _TIMELINE_S)] += 1
            else:
                result.unanswered += 1
            if not measure_s <= intended_s < end_s:
                continue
            result.offered += 1
            result.late += sent_s - intended_s > LATE_S
            if till_s:
                result.answered += 1
                till.record_value(_microseconds(till_s - intended_s))
            if approved and wallet_s and number in self._pin_sent_s:
                pin.record_value(_microseconds(max(till_s, wallet_s) - self._pin_sent_s[number]))
            elif approved and wallet_s:
                both.record_value(_microseconds(max(till_s, wallet_s) - intended_s))
            elif approved:
                result.not_notified += 1
        result.till, result.both, result.pin = encode(till), encode(both), encode(pin)
        result.timeline = [timeline[slot] for slot in range(max(timeline, default=0) + 1)]
        return result


def _microseconds(seconds: float) -> int:
    return max(1, round(seconds * 1e6))


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def serve() -> None:
    """Connect the devices of the first line, and run the plans of the others."""
    line = await asyncio.to_thread(sys.stdin.readline)
    async with connect_crowd(CrowdPlan(**orjson.loads(line))) as crowd:
        _answer("connected")
        while line := await asyncio.to_thread(sys.stdin.readline):
            plan = Plan(**orjson.loads(line))
            run = Run(plan, crowd)
            await run.wait_for_codes()
            run.prepare()
            _answer("ready")
            await asyncio.to_thread(sys.stdin.readline)
            # A garbage collection over all payments would add a pause to the latencies.
            gc.collect()
            gc.freeze()
            gc.disable()
            _write(Path(plan.out), await run.run())
            crowd.detach()
            gc.enable()
            gc.unfreeze()
            _answer("done")


def _write(out: Path, result: Result) -> None:
    out.write_bytes(orjson.dumps(asdict(result)))


def _answer(word: str) -> None:
    print(word, flush=True)  # noqa: T201


if __name__ == "__main__":
    uvloop.run(serve())
