"""The script of a store day: the steps of cashiers, customers and back offices, drawn from one seed.

Each step waits for the notices on both sides, so the same seed plays the same day. Outcomes are not predicted here:
clients record the server's messages, and bookkeeper.py does the accounting.
"""

import random
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.end_to_end.bookkeeper import Message, Terms
from tests.end_to_end.recording_clients import BackOffice, PlainTill, PlainWallet, Till, Wallet
from tests.support import forged

PIN, WRONG_PIN = "407186", "407168"
PIN_FREE_MINOR_MAX = 5_000
PAYMENT_MINOR_MAX = 50_000
# Above the balance of every wallet, but within the limit of a payment.
TOO_MUCH_MINOR = PAYMENT_MINOR_MAX - 1
FIRST_TOP_UP_MINOR = 30_000


@dataclass(slots=True)
class Shop:
    """A merchant with a till in each of its two stores, a back office, and its regular customers."""

    merchant_id: int
    name: str
    terms: Terms
    tills: list[Till]
    office: BackOffice
    wallets: list[Wallet]
    sold: list[tuple[Message, Wallet]] = field(default_factory=list)

    @property
    def messages(self) -> list[Message]:
        """All messages that this merchant's side received."""
        return [message for client in (*self.tills, self.office) for message in client.messages]


@dataclass(slots=True)
class Day:
    """The day. `here` and `there` are URLs of servers; `outcomes` counts statuses, declines and errors."""

    rng: random.Random
    shops: list[Shop]
    here: str = ""
    there: str = ""
    outcomes: Counter[str] = field(default_factory=Counter)
    waiting: list[tuple[Till, Wallet, str]] = field(default_factory=list)
    orders: int = 0

    async def play(self, kinds: list[str]) -> None:
        """Play these steps, each at the next shop with its next customer."""
        for number, kind in enumerate(kinds):
            shop = self.shops[number % len(self.shops)]
            wallet = shop.wallets[0]
            shop.wallets = [*shop.wallets[1:], wallet]
            await STEPS[kind](self, shop, wallet)
        for till, wallet, payment_id in self.waiting:
            await self.notified(till, wallet, await till.wait_for(_outcome_of(payment_id)))
        self.waiting.clear()

    def new_id(self) -> str:
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def amount(self, least: int = 1, most: int = PIN_FREE_MINOR_MAX) -> int:
        return self.rng.randint(least, most)

    async def payment(self, shop: Shop, wallet: Wallet, amount_minor: int, **fields: str) -> Message:
        """Return a scan of the wallet's code for a new order."""
        self.orders += 1
        shared = {"currency": shop.terms.currency, "entry": "scanned", "purpose": "sale"}
        ids = {"payment_id": self.new_id(), "reference": f"order-{self.orders}"}
        return {"amount_minor": amount_minor, "code": await wallet.code()} | shared | ids | fields

    async def notified(self, till: Till | None, wallet: Wallet | None, answer: Message) -> Message:
        """Count an answer, and wait until both sides have their notice."""
        self.outcomes[answer.get("code") or answer.get("decline_code") or answer.get("status") or answer["type"]] += 1
        for client in (till, wallet):
            if client is not None and answer["type"] != "error" and "version" in answer:
                await client.wait_for_version(answer["payment_id"], answer["version"])
        return answer

    async def sale(self, shop: Shop, wallet: Wallet, till: Till | None = None) -> Message:
        """Make a sale without a PIN. Returns the till's answer."""
        till = till or self.rng.choice(shop.tills)
        answer = await till.scan(await self.payment(shop, wallet, self.amount()))
        if answer.get("status") == "approved":
            shop.sold.append((answer, wallet))
        return await self.notified(till, wallet, answer)

    async def earlier_sale(self, shop: Shop, wallet: Wallet) -> tuple[Message, Wallet]:
        """Remove and return a random earlier sale, possibly of the previous day, or a new one if there is none."""
        if not shop.sold:
            await self.sale(shop, wallet)
        return shop.sold.pop(self.rng.randrange(len(shop.sold)))

    async def with_pin(self, shop: Shop, wallet: Wallet, *pins: str, purpose: str = "sale") -> Message:
        """Make a payment above the limit, and enter these PINs one after the other while it is pending."""
        till = self.rng.choice(shop.tills)
        amount_minor = self.amount(PIN_FREE_MINOR_MAX + 1, 2 * PIN_FREE_MINOR_MAX)
        answer = await till.scan(await self.payment(shop, wallet, amount_minor, purpose=purpose))
        for pin in pins:
            if answer["type"] not in ("payment.pending", "payment.confirmation_required"):
                break
            request = await wallet.wait_for_version(answer["payment_id"], answer["version"])
            answer = await wallet.confirm(request, pin)
        return await self.notified(till, wallet, answer)

    async def pending(self, shop: Shop, wallet: Wallet, till: Till) -> Message:
        """Make a payment that waits for its PIN. Returns the wallet's message: a confirmation request, or a result."""
        answer = await till.scan(await self.payment(shop, wallet, PIN_FREE_MINOR_MAX + 1))
        return await wallet.wait_for_version(answer["payment_id"], answer["version"])


Step = Callable[[Day, Shop, Wallet], Awaitable[object]]


def _outcome_of(payment_id: str) -> Callable[[Message], bool]:
    return lambda message: message["type"] == "payment.result" and message["payment_id"] == payment_id


async def right_pin_after_wrong(day: Day, shop: Shop, wallet: Wallet) -> None:
    await day.with_pin(shop, wallet, WRONG_PIN, PIN)


async def three_wrong_pins(day: Day, shop: Shop, wallet: Wallet) -> None:
    await day.with_pin(shop, wallet, WRONG_PIN, WRONG_PIN, WRONG_PIN)
    # Resets the count of wrong PINs, so that the next one does not lock the wallet.
    await day.with_pin(shop, wallet, PIN)


async def rejected(day: Day, shop: Shop, wallet: Wallet) -> None:
    request = await day.pending(shop, wallet, till := day.rng.choice(shop.tills))
    await day.notified(till, wallet, await wallet.reject(request["payment_id"]))


async def expired(day: Day, shop: Shop, wallet: Wallet) -> None:
    """Let a payment expire. The second till is at the server with a short confirmation time."""
    request = await day.pending(shop, wallet, till := shop.tills[1])
    day.waiting.append((till, wallet, request["payment_id"]))


async def canceled_while_pending(day: Day, shop: Shop, wallet: Wallet) -> None:
    request = await day.pending(shop, wallet, till := day.rng.choice(shop.tills))
    await day.notified(till, wallet, await till.cancel(payment_id=request["payment_id"]))


async def too_expensive(day: Day, shop: Shop, wallet: Wallet) -> None:
    till = day.rng.choice(shop.tills)
    await day.notified(till, wallet, await till.scan(await day.payment(shop, wallet, TOO_MUCH_MINOR)))


async def over_limit(day: Day, shop: Shop, wallet: Wallet) -> None:
    till = day.rng.choice(shop.tills)
    await day.notified(till, wallet, await till.scan(await day.payment(shop, wallet, PAYMENT_MINOR_MAX + 1)))


async def code_used(day: Day, shop: Shop, wallet: Wallet) -> None:
    till, payment = day.rng.choice(shop.tills), await day.payment(shop, wallet, 100)
    await day.notified(till, wallet, await till.scan(payment))
    second = payment | {"payment_id": day.new_id(), "reference": f"{payment['reference']}-b"}
    await day.notified(till, wallet, await till.scan(second))


async def code_invalid(day: Day, shop: Shop, wallet: Wallet) -> None:
    till, payment = day.rng.choice(shop.tills), await day.payment(shop, wallet, 100)
    await day.notified(till, None, await till.scan(payment | {"code": forged(payment["code"])}))


async def code_malformed(day: Day, shop: Shop, wallet: Wallet) -> None:
    till, payment = day.rng.choice(shop.tills), await day.payment(shop, wallet, 100)
    await day.notified(till, None, await till.scan(payment | {"code": "4006381333931"}))


async def foreign_wallet(day: Day, shop: Shop, wallet: Wallet) -> None:
    stranger = next(other.wallets[0] for other in day.shops if other.terms.currency != shop.terms.currency)
    till = day.rng.choice(shop.tills)
    await day.notified(till, stranger, await till.scan(await day.payment(shop, stranger, 100)))


async def paid_twice(day: Day, shop: Shop, wallet: Wallet) -> None:
    till = day.rng.choice(shop.tills)
    paid = await day.sale(shop, wallet, till)
    payment = await day.payment(shop, wallet, paid["amount_minor"], reference=paid["reference"])
    await day.notified(till, wallet, await till.scan(payment))


async def repeated_scan(day: Day, shop: Shop, wallet: Wallet) -> None:
    """Send the same scan three times, the last one after a cancel."""
    till, payment = shop.tills[1], await day.payment(shop, wallet, day.amount())
    first = await day.notified(till, wallet, await till.scan(payment))
    assert await till.scan(payment) | {"reply_to": None} == first | {"reply_to": None}
    await day.notified(till, wallet, await till.cancel(payment_id=payment["payment_id"]))
    await day.notified(till, wallet, await till.scan(payment))


async def cancel(day: Day, shop: Shop, wallet: Wallet) -> None:
    """Cancel an earlier sale at either till, by its id or by its order."""
    sold, payer = await day.earlier_sale(shop, wallet)
    name = day.rng.choice(["payment_id", "reference"])
    till = day.rng.choice(shop.tills)
    await day.notified(till, payer, await till.cancel(**{name: sold[name]}))


async def cancel_by_office(day: Day, shop: Shop, wallet: Wallet) -> None:
    sold, payer = await day.earlier_sale(shop, wallet)
    await day.notified(None, payer, await shop.office.cancel(sold["payment_id"]))


async def cancel_before_scan(day: Day, shop: Shop, wallet: Wallet) -> None:
    """Send the cancel before the scan."""
    till, payment = day.rng.choice(shop.tills), await day.payment(shop, wallet, day.amount())
    name = day.rng.choice(["payment_id", "reference"])
    await day.notified(till, None, await till.cancel(**{name: payment[name]}))
    if isinstance(till, PlainTill):  # pos_client does not scan what it has canceled
        await day.notified(till, wallet, await till.scan(payment))


async def refund(day: Day, shop: Shop, wallet: Wallet) -> None:
    """Refund an earlier sale in up to three parts, at either till or by the back office; send each request twice."""
    sold, payer = await day.earlier_sale(shop, wallet)
    rest_minor = sold["amount_minor"]
    for _ in range(day.rng.randint(1, 3)):
        part_minor = day.rng.choice([day.amount(1, rest_minor), rest_minor])
        request = {"refund_id": day.new_id(), "payment_id": sold["payment_id"], "amount_minor": part_minor}
        if day.rng.random() < 0.4:
            answer = await shop.office.refund(request)
            await shop.office.refund(request)
        else:
            answer = await (till := day.rng.choice(shop.tills)).refund(request)
            await till.refund(request)
        day.outcomes[answer["type"]] += 1
        refund_id = answer["refund_id"]
        await payer.wait_for(lambda message, refund_id=refund_id: message.get("refund_id") == refund_id)  # type: ignore[misc]
        rest_minor -= part_minor
        if rest_minor == 0:
            break
    over = {"refund_id": day.new_id(), "payment_id": sold["payment_id"], "amount_minor": rest_minor + 1}
    await day.notified(None, None, await day.rng.choice(shop.tills).refund(over))
    await day.notified(None, None, await day.rng.choice(shop.tills).cancel(payment_id=sold["payment_id"]))


async def top_up(day: Day, shop: Shop, wallet: Wallet) -> None:
    """Top up at the till; cancel one in three."""
    till, payment = day.rng.choice(shop.tills), await day.payment(shop, wallet, day.amount(), purpose="top_up")
    await day.notified(till, wallet, await till.scan(payment))
    if day.rng.random() < 0.33:
        await day.notified(till, wallet, await till.cancel(payment_id=payment["payment_id"]))


async def withdrawal(day: Day, shop: Shop, wallet: Wallet) -> None:
    """Withdraw at the till; cancel one in three."""
    done = await day.with_pin(shop, wallet, PIN, purpose="withdrawal")
    if day.rng.random() < 0.33:
        await day.notified(None, wallet, await shop.office.cancel(done["payment_id"]))


async def cash_by_office(day: Day, shop: Shop, wallet: Wallet) -> None:
    """Top up or withdraw through the API, with a repeat; cancel one in three."""
    path = day.rng.choice(["top-ups", "withdrawals"])
    request_id, amount_minor = day.new_id(), day.amount()
    for _ in range(2):
        done = await shop.office.cash(path, request_id, wallet.number, amount_minor)
        await day.notified(None, wallet, done)
    if day.rng.random() < 0.33:
        await day.notified(None, wallet, await shop.office.cancel(done["payment_id"]))


async def till_disconnected(day: Day, shop: Shop, wallet: Wallet) -> None:
    """Cut the connection after a scan, reconnect the till, and send the same scan again."""
    till = shop.tills[1]
    assert isinstance(till, PlainTill)
    payment = await day.payment(shop, wallet, day.amount())
    await till.send({"type": "payment.scan"} | payment)
    till.cut()
    await till.connect(day.there)
    await day.notified(till, wallet, await till.scan(payment))


async def wallet_disconnected(day: Day, shop: Shop, wallet: Wallet) -> None:
    """Pay while the wallet is offline; it receives the notice after it reconnects."""
    if not isinstance(wallet, PlainWallet):
        return
    till = day.rng.choice(shop.tills)
    wallet.cut()
    await wallet.leave()
    answer = await till.scan(await day.payment(shop, wallet, day.amount()))
    await wallet.connect(day.rng.choice([day.here, day.there]))
    await day.notified(till, wallet, answer)


async def sale(day: Day, shop: Shop, wallet: Wallet) -> None:
    await day.sale(shop, wallet)


async def pin(day: Day, shop: Shop, wallet: Wallet) -> None:
    await day.with_pin(shop, wallet, PIN)


STEPS: dict[str, Step] = {
    step.__name__: step
    for step in (
        *(
            sale,
            pin,
            right_pin_after_wrong,
            three_wrong_pins,
            rejected,
            expired,
            canceled_while_pending,
            too_expensive,
            over_limit,
        ),
        *(code_used, code_invalid, code_malformed, foreign_wallet, paid_twice, repeated_scan, cancel, cancel_by_office),
        *(cancel_before_scan, refund, top_up, withdrawal, cash_by_office, till_disconnected, wallet_disconnected),
    )
}
