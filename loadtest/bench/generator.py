"""Offers payments over WebSockets as fast as the server takes them (closed loop), or at a rate (open loop).

A process of its own. It reads one line of JSON (`People`) from standard input, connects everybody and says `connected`.
Then, for each line of JSON (`Plan`) until there are no more, it says `ready`, waits for a line, offers payments for
`warm_up_s + seconds`, waits for what is open, writes a `Result` as JSON to `Plan.out`, and says `done`.

Closed loop: each till has one payment open, and sends the next when it hears what became of it. Open loop: arrivals are
Poisson, and a payment that is sent late counts from when it was meant to be sent. Every code is a real one. A payment
is complete when both the till and the wallet have heard.
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

from loadtest.bench.crowd import Crowd, People, Session, connected
from loadtest.shared.clock import sleep_until
from loadtest.shared.codes import Codes
from loadtest.shared.histogram import encoded, new_histogram
from loadtest.shared.messages import scan_message
from loadtest.shared.seed import PIN

_ANSWERS_WITHIN_S = 15.0
_TIMELINE_S = 0.5
_NO_CODES_S = 0.02
_SENT_IN_A_ROW_MAX = 20
LATE_S = 0.01


@dataclass(frozen=True, slots=True)
class Plan:
    """What to offer, at which of the crowd's tills, with which of its wallets. `rate` 0 is closed loop.

    A wallet's code pays `amount_minor`; it shows the codes of its devices by turns. `zipf` > 0 picks wallets with that
    exponent instead of in turn. `pin_share` of the payments need a PIN: of `pin_amount_minor`, by one of the first
    `pin_wallets` wallets. The result goes to the file `out`.
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
    """What became of it.

    `till` and `both` are histograms (`loadtest.shared.histogram`) of microseconds from the intended time, of payments
    sent after the warm-up, until the till and until both had heard; `both` has the approved ones without a PIN. `pin`
    has those with one, from when the wallet sent it until both had heard. `late` were sent more than LATE_S after they
    were meant to be. `timeline` counts the tills' answers in each half second since the start.
    """

    seconds: float
    offered: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    answered: int = 0
    till: str = ""
    both: str = ""
    pin: str = ""
    unanswered: int = 0
    not_told: int = 0
    skipped: int = 0
    late: int = 0
    cpu_s: float = 0.0
    timeline: list[int] = field(default_factory=list)


class Offer:
    """One run. A payment's number is its message_id and reference; `_intended` holds when it was meant to be sent."""

    def __init__(self, plan: Plan, crowd: Crowd) -> None:
        self._plan = plan
        self._crowd = crowd
        self._chance = random.Random(1)  # noqa: S311 - the same in every run
        # All wallets by their first devices, then all by their second: each device has ten codes in 30 s.
        slots = range(1 + max(slot for _, slot in crowd.codes))
        self._customers = [crowd.codes[number, slot] for slot in slots for number in plan.wallets]
        self._next_customer = self._in_turn() if not plan.zipf else self._by_fame()
        with_pins = dict.fromkeys(plan.wallets[: plan.pin_wallets])
        self._next_with_pin = itertools.cycle([crowd.codes[number, slot] for slot in slots for number in with_pins])
        self._prefix = f"{time.time_ns() // 1_000_000:x}-"
        self._intended = array("d")
        self._sent = array("d")
        self._till_at = array("d")
        self._wallet_at = array("d")
        # Payments that wait for their PIN, by id: what the till's result will answer; and when the PIN was sent.
        self._pending: dict[str, str] = {}
        self._pin_sent: dict[int, float] = {}
        self._numbers: dict[bytes, int] = {}
        self._outcomes: Counter[str] = Counter()
        self._approved = bytearray()
        self._open = 0
        self._skipped = 0
        self._idle = asyncio.Event()
        self._sending = True
        self._tills = [crowd.tills[number] for number in plan.terminals]
        for place, till in enumerate(self._tills):
            till.heard = self._at_till(place)
        for number, wallet in crowd.wallets.items():
            wallet.heard = self._at_asked_wallet(wallet) if number in with_pins else self._at_wallet

    def prepare(self) -> None:
        """Every phone has its next codes ready: at a rate all that it will show, else one. Raises SystemExit."""
        self._crowd.check()
        plan, now_s = self._plan, time.time()
        payments = plan.rate * (plan.warm_up_s + plan.seconds)
        codes = max(1, math.ceil(payments / len(self._customers)))
        for customer in self._customers:
            customer.prepare(now_s, codes)

    def _in_turn(self) -> Iterator[Codes]:
        return itertools.cycle(self._customers)

    def _by_fame(self) -> Iterator[Codes]:
        customers = self._customers
        weights = list(itertools.accumulate(1 / rank**self._plan.zipf for rank in range(1, len(customers) + 1)))
        while True:
            yield from self._chance.choices(customers, cum_weights=weights, k=10_000)

    def _send_next(self, place: int) -> None:
        """The next payment of a till in the closed loop, as soon as a customer has a code."""
        if self._sending and not self.send(place, time.monotonic()):
            asyncio.get_running_loop().call_later(_NO_CODES_S, self._send_next, place)

    def send(self, place: int, intended_s: float) -> bool:
        """One payment at this till; False when no customer has a code left."""
        now_s = time.time()
        needs_pin = self._plan.pin_share > 0 and self._chance.random() < self._plan.pin_share
        customers = self._next_with_pin if needs_pin else self._next_customer
        for _ in range(16):
            code = next(customers).next(now_s)
            if code is not None:
                break
        else:
            self._skipped += 1
            return False
        number = len(self._intended)
        payment_id = str(uuid_utils.uuid7())
        self._numbers[payment_id.encode()] = number
        self._intended.append(intended_s)
        self._sent.append(time.monotonic())
        self._till_at.append(0.0)
        self._wallet_at.append(0.0)
        self._approved.append(0)
        self._open += 1
        amount_minor = self._plan.pin_amount_minor if needs_pin else self._plan.amount_minor
        if self._plan.declined_share and self._chance.random() < self._plan.declined_share:
            amount_minor = 10**12
        self._tills[place].send(scan_message(code, payment_id, f"{self._prefix}{number}", amount_minor))
        return True

    def _at_till(self, place: int) -> Callable[[bytes, float], None]:
        def heard(payload: bytes, now_s: float) -> None:
            message = orjson.loads(payload)
            reply_to = message.get("reply_to") or self._pending.pop(message.get("payment_id"), None)
            # A device that has moved between servers is told the last seconds again, of the run before too.
            if reply_to is None or not reply_to.startswith(self._prefix):
                return
            if message["type"] == "payment.pending":
                self._pending[message["payment_id"]] = reply_to
                return
            number = int(reply_to[len(self._prefix) :])
            if self._till_at[number]:
                return
            self._till_at[number] = now_s
            self._open -= 1
            outcome = message.get("decline_code") or message.get("status") or message["code"]
            self._outcomes[outcome] += 1
            self._approved[number] = outcome == "approved"
            if self._sending and not self._plan.rate:
                self._send_next(place)
            elif not self._open:
                self._idle.set()

        return heard

    def _at_wallet(self, payload: bytes, now_s: float) -> None:
        # The server writes its messages in one way, so the id stands where it always stands; to parse all would cost
        # more than the rest of this.
        start = payload.find(b'"payment_id":"') + 14
        number = self._numbers.pop(payload[start : start + 36], None)
        if number is not None:
            self._wallet_at[number] = now_s

    def _at_asked_wallet(self, wallet: Session) -> Callable[[bytes, float], None]:
        def heard(payload: bytes, now_s: float) -> None:
            if b'"payment.confirmation_required"' not in payload:
                self._at_wallet(payload, now_s)
                return
            message = orjson.loads(payload)
            number = self._numbers.get(message["payment_id"].encode())
            if number is not None:
                self._pin_sent[number] = now_s
                answer = {"payment_id": message["payment_id"], "version": message["version"], "pin": PIN}
                wallet.send({"type": "payment.confirm", "message_id": f"pin-{number}", **answer})

        return heard

    async def run(self) -> Result:
        """Offer all of it."""
        plan = self._plan
        cpu_s = _cpu_s()
        began_s = time.monotonic()
        from_s, until_s = began_s + plan.warm_up_s, began_s + plan.warm_up_s + plan.seconds
        if plan.rate:
            await self._arrive(began_s, until_s)
        else:
            for place in range(len(self._tills)):
                self._send_next(place)
            await asyncio.sleep(until_s - time.monotonic())
        self._sending = False
        if self._open:
            self._idle.clear()
            try:
                async with asyncio.timeout(_ANSWERS_WITHIN_S):
                    await self._idle.wait()
            except TimeoutError:
                pass
        await asyncio.sleep(0.5)  # the last wallets hear
        return self._result(from_s, until_s, began_s, _cpu_s() - cpu_s)

    async def _arrive(self, began_s: float, until_s: float) -> None:
        intended_s = began_s
        places = itertools.cycle(range(len(self._tills)))
        in_a_row = 0
        while True:
            intended_s += self._chance.expovariate(self._plan.rate)
            if intended_s > until_s:
                return
            if intended_s > time.monotonic():
                await sleep_until(intended_s)
                in_a_row = 0
            elif in_a_row == _SENT_IN_A_ROW_MAX:
                # Never so long without a look at the sockets that what has come waits for us.
                await asyncio.sleep(0)
                in_a_row = 0
            self.send(next(places), intended_s)
            in_a_row += 1

    def _result(self, from_s: float, until_s: float, began_s: float, cpu_s: float) -> Result:
        result = Result(seconds=until_s - from_s, outcomes=dict(self._outcomes), skipped=self._skipped, cpu_s=cpu_s)
        till, both, pin = new_histogram(), new_histogram(), new_histogram()
        timeline: Counter[int] = Counter()
        for number, (intended_s, sent_s, till_s, wallet_s, approved) in enumerate(
            zip(self._intended, self._sent, self._till_at, self._wallet_at, self._approved, strict=True)
        ):
            if till_s:
                timeline[int((till_s - began_s) / _TIMELINE_S)] += 1
            else:
                result.unanswered += 1
            if not from_s <= intended_s < until_s:
                continue
            result.offered += 1
            result.late += sent_s - intended_s > LATE_S
            if till_s:
                result.answered += 1
                till.record_value(_microseconds(till_s - intended_s))
            if approved and wallet_s and number in self._pin_sent:
                pin.record_value(_microseconds(max(till_s, wallet_s) - self._pin_sent[number]))
            elif approved and wallet_s:
                both.record_value(_microseconds(max(till_s, wallet_s) - intended_s))
            elif approved:
                result.not_told += 1
        result.till, result.both, result.pin = encoded(till), encoded(both), encoded(pin)
        result.timeline = [timeline[slot] for slot in range(max(timeline, default=0) + 1)]
        return result


def _microseconds(seconds: float) -> int:
    return max(1, round(seconds * 1e6))


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def serve() -> None:
    """Connect whoever the first line names, and carry out the plans of the others."""
    line = await asyncio.to_thread(sys.stdin.readline)
    async with connected(People(**orjson.loads(line))) as crowd:
        _say("connected")
        while line := await asyncio.to_thread(sys.stdin.readline):
            plan = Plan(**orjson.loads(line))
            offer = Offer(plan, crowd)
            offer.prepare()
            _say("ready")
            await asyncio.to_thread(sys.stdin.readline)
            # A collection over all payments so far would be a pause of our own making.
            gc.collect()
            gc.freeze()
            gc.disable()
            _write(Path(plan.out), await offer.run())
            crowd.part()
            gc.enable()
            gc.unfreeze()
            _say("done")


def _write(out: Path, result: Result) -> None:
    out.write_bytes(orjson.dumps(asdict(result)))


def _say(word: str) -> None:
    print(word, flush=True)  # noqa: T201


if __name__ == "__main__":
    uvloop.run(serve())
