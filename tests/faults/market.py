"""A busy market: tills with journals sell to wallets at a steady rate, whatever happens to the servers.

Every till writes to its journal before it sends, and repeats the same id until it has an answer. Arrivals do not depend
on the server (open loop): what a fault delays is sold after it.
"""

import asyncio
import bisect
import json
import random
import time
import uuid
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.shared.codes import Codes
from loadtest.shared.messages import scan_message
from loadtest.shared.seed import PIN, Device, Shop, device_of
from pos_server.core.credentials.device_keys import DeviceKind
from tests.faults.market_device import Devices, MarketDevice, Message

PIN_FREE_MINOR_MAX = 1_000
WRONG_PIN = "1111"
WRONG_PIN_SHARE = 0.1
# A till has at most as many open orders as requests (`POS_DEVICE_OPERATIONS_MAX`), less some for its cancels.
OPEN_ORDERS_MAX = 12
WAIT_S = 0.02
PENDING_TIMEOUT_S = 5
CLOSE_TIMEOUT_S = 90


# Shares of the orders that need the PIN, and of those that are canceled while the scan is open. The later ones are
# shares of the approved sales.
PIN_SHARE = 0.03
CANCEL_AT_ONCE_SHARE = 0.03
CANCEL_SHARE = 0.04
REFUND_SHARE = 0.05
REPEAT_SHARE = 0.03


class Journal:
    """A till's file of what it is about to send and what was answered, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("a")

    def write(self, event: str, payment_id: str, **fields: Any) -> None:
        self._file.write(json.dumps({"event": event, "payment_id": payment_id} | fields) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]


class Till(MarketDevice):
    """A till, and the orders of its customers."""

    def __init__(self, device: Device, urls: list[str], shared: Devices, journal: Path) -> None:
        super().__init__(device, urls, shared)
        self.journal = Journal(journal)
        self.open_orders = 0

    async def sell(self, code: str, wallet_number: int) -> str:
        """Sell one order to its end. Returns its outcome."""
        needs_pin = random.random() < PIN_SHARE
        amount_minor = PIN_FREE_MINOR_MAX + 1 if needs_pin else random.randint(1, PIN_FREE_MINOR_MAX)
        payment_id = str(uuid.uuid4())
        scan = scan_message(code, payment_id, f"order-{payment_id}", amount_minor)
        del scan["message_id"]
        self.journal.write("scan", payment_id, amount_minor=amount_minor, wallet_number=wallet_number)
        if random.random() < CANCEL_AT_ONCE_SHARE:
            _, result = await asyncio.gather(self._cancel(payment_id), self._scan(scan))
            if result["status"] == "approved":  # the cancel was decided after it
                result = await self._scan(scan)
        else:
            result = await self._scan(scan)
            if result["status"] == "approved":
                await self._after_sale(scan)
        return str(result["decline_code"] or result["status"])

    async def _after_sale(self, scan: Message) -> None:
        payment_id, draw = scan["payment_id"], random.random()
        if draw < CANCEL_SHARE:
            await self._cancel(payment_id)
        elif draw < CANCEL_SHARE + REFUND_SHARE:
            await self._refund(payment_id, random.randint(1, scan["amount_minor"]))
        elif draw < CANCEL_SHARE + REFUND_SHARE + REPEAT_SHARE:
            await self._scan(scan)

    async def _scan(self, scan: Message) -> Message:
        """Scan until the payment has its result, also while it waits for the PIN."""
        payment_id = scan["payment_id"]
        while True:
            answer = await self.ask(scan)
            if answer["type"] == "payment.pending":
                await self.next_change(payment_id, answer["version"], PENDING_TIMEOUT_S)
                answer = self.latest[payment_id]
            if answer["type"] == "payment.result":
                self.journal.write("result", payment_id, version=answer["version"], status=answer["status"])
                return answer
            if answer["type"] == "error":
                self._problem(f"scan refused: {answer}")
                return {"status": "refused", "decline_code": answer["code"]}

    async def _cancel(self, payment_id: str) -> None:
        self.journal.write("cancel", payment_id)
        answer = await self.ask({"type": "payment.cancel", "payment_id": payment_id})
        if answer["type"] == "error":
            self._problem(f"cancel refused: {answer}")
            return
        self.journal.write("result", payment_id, version=answer["version"], status=answer["status"])

    async def _refund(self, payment_id: str, amount_minor: int) -> None:
        refund_id = str(uuid.uuid4())
        self.journal.write("refund", payment_id, refund_id=refund_id, amount_minor=amount_minor)
        request = {"type": "refund.create", "refund_id": refund_id, "payment_id": payment_id}
        answer = await self.ask(request | {"amount_minor": amount_minor})
        if answer["type"] == "error":
            self._problem(f"refund refused: {answer}")
            return
        self.journal.write("refunded", payment_id, refund_id=refund_id, amount_minor=answer["amount_minor"])


class Wallet(MarketDevice):
    """A wallet, which confirms its payments with the PIN and sometimes mistypes it first."""

    def __init__(self, device: Device, urls: list[str], shared: Devices, merchant_id: int) -> None:
        super().__init__(device, urls, shared)
        self._merchant_id = merchant_id

    def _on_change(self, message: Message) -> None:
        if message["type"] == "payment.confirmation_required":
            self._shared.spawn(self._confirm(message["payment_id"], message["version"]))

    async def _confirm(self, payment_id: str, version: int) -> None:
        is_wrong = version == 1 and random.random() < WRONG_PIN_SHARE
        confirm = {"type": "payment.confirm", "payment_id": payment_id, "merchant_id": self._merchant_id}
        answer = await self.ask(confirm | {"version": version, "pin": WRONG_PIN if is_wrong else PIN})
        if answer["type"] == "error":
            self._problem(f"confirmation refused: {answer}")


@dataclass(slots=True)
class Customer:
    """One of the devices of a wallet, with its codes. It buys one thing at a time."""

    wallet_number: int
    codes: Codes


class Market:
    """The tills and wallets of a shop, and what they have done so far."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.outcomes: Counter[str] = Counter()
        self.answers: list[tuple[str, float, float]] = []
        """URL of the server, time of the request and time of its answer, by time.monotonic."""
        self.devices = Devices(tasks.create_task, self._on_answer)
        self.tills: list[Till] = []
        self.wallets: list[Wallet] = []
        self._tasks = tasks
        self._answered = asyncio.Event()
        self._settled = asyncio.Event()
        self._is_open = True
        self._open_orders = 0

    def _on_answer(self, url: str, sent_s: float) -> None:
        self.answers.append((url, sent_s, time.monotonic()))
        self._answered.set()

    async def answer_after(self, fault_s: float, url: str | None, timeout_s: float) -> float:
        """Wait for the first answer to a request that was sent after a fault, by one server or any.

        Returns the time from the fault to the answer in seconds. Raises TimeoutError.
        """
        checked = bisect.bisect(self.answers, fault_s, key=lambda answer: answer[2])
        async with asyncio.timeout(timeout_s):
            while True:
                for answered_by, sent_s, answered_s in self.answers[checked:]:
                    if sent_s > fault_s and url in (None, answered_by):
                        return answered_s - fault_s
                checked = len(self.answers)
                await self._next_answer()

    async def more_answers(self, count: int, timeout_s: float) -> None:
        """Wait for so many further answers. Raises TimeoutError."""
        wanted = len(self.answers) + count
        async with asyncio.timeout(timeout_s):
            while len(self.answers) < wanted:
                await self._next_answer()

    async def _next_answer(self) -> None:
        self._answered.clear()
        await self._answered.wait()

    async def close(self) -> None:
        """Take no new orders, and finish the open ones. Raises TimeoutError."""
        self._is_open = False
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            while self._open_orders:
                self._settled.clear()
                await self._settled.wait()

    async def all_caught_up(self, timeout_s: float) -> None:
        """Wait until each device has been connected and has received what it missed. Raises AssertionError."""
        devices = (*self.tills, *self.wallets)
        try:
            async with asyncio.timeout(timeout_s):
                for device in devices:
                    await device.caught_up.wait()
        except TimeoutError:
            away = [device.state for device in devices if not device.caught_up.is_set()]
            raise AssertionError(f"{len(away)} devices are not back after {timeout_s} s: {away[:5]}") from None

    async def reconnect_all(self, timeout_s: float) -> None:
        """Let every device reconnect once and receive what it missed. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            await asyncio.gather(*(device.reconnect() for device in (*self.tills, *self.wallets)))

    async def trade(self, customers: deque[Customer], rate: float) -> None:
        """Start an order whenever one arrives. An order waits until a till and a customer with a code are free."""
        started_s, number = time.monotonic(), 0
        while self._is_open:
            await asyncio.sleep(started_s + number / rate - time.monotonic())
            till = min(self.tills, key=lambda each: each.open_orders)
            customer = customers.popleft() if customers else None
            code = customer.codes.next(time.time()) if customer and till.open_orders < OPEN_ORDERS_MAX else None
            if customer and code:
                number += 1
                self._tasks.create_task(self._serve(till, customer, code, customers))
                continue
            if customer:
                customers.append(customer)
            await asyncio.sleep(WAIT_S)

    async def _serve(self, till: Till, customer: Customer, code: str, customers: deque[Customer]) -> None:
        till.open_orders += 1
        self._open_orders += 1
        self.outcomes[await till.sell(code, customer.wallet_number)] += 1
        self._open_orders -= 1
        till.open_orders -= 1
        customers.append(customer)
        self._settled.set()


@asynccontextmanager
async def open_market(
    shop: Shop, urls: list[str], directory: Path, *, rate: float, slots: int
) -> AsyncIterator[Market]:
    """Yield a market whose devices connect to the servers at `urls`, with `rate` orders a second.

    Half of the devices stay with one server. The others go to another server whenever they lose a connection.
    """
    async with asyncio.TaskGroup() as tasks:
        market = Market(tasks)
        for index, till in enumerate(shop.terminals):
            journal = directory / f"till-{till.device.number}.journal"
            market.tills.append(Till(till, _urls(urls, index), market.devices, journal))
        for index, wallet in enumerate(shop.wallets):
            market.wallets.append(Wallet(wallet, _urls(urls, index), market.devices, shop.merchant_id))
        connected = [tasks.create_task(device.run()) for device in (*market.tills, *market.wallets)]
        await market.all_caught_up(CLOSE_TIMEOUT_S)
        customers = deque(
            Customer(wallet.number, Codes(device_of(DeviceKind.WALLET, wallet.number, slot)))
            for slot in range(slots)
            for wallet in market.wallets
        )
        trading = tasks.create_task(market.trade(customers, rate))
        yield market
        await market.close()
        for task in (trading, *connected):
            task.cancel()
        for each in market.tills:
            each.journal.close()


def _urls(urls: list[str], index: int) -> list[str]:
    first = index % len(urls)
    is_loyal = index // len(urls) % 2 == 0
    return [urls[first]] if is_loyal else urls[first:] + urls[:first]
