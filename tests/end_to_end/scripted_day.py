"""The script of a store day: what cashiers, customers and back offices do, step by step, drawn from one seed.

Each step waits until everybody it concerns has heard, so the same seed plays the same day. What comes of a step is not
foreseen here: whatever the server says is written down, and added up in bookkeeper.py.
"""

import random
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.end_to_end.bookkeeper import Message, Terms
from tests.end_to_end.notebooks import BackOffice, PlainTill, PlainWallet, Till, Wallet
from tests.support import forged

PIN, WRONG_PIN = "407186", "407168"
PIN_FREE_MINOR_MAX = 5_000
PAYMENT_MINOR_MAX = 50_000
# More than any wallet holds, and still no more than one payment may be.
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
    def lines(self) -> list[Message]:
        """All that this merchant's side was told."""
        return [line for notebook in (*self.tills, self.office) for line in notebook.lines]


@dataclass(slots=True)
class Day:
    """The day at work. `here` and `there` are the servers' URLs, `seen` counts statuses, declines and errors."""

    rng: random.Random
    shops: list[Shop]
    here: str = ""
    there: str = ""
    seen: Counter[str] = field(default_factory=Counter)
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
            await self.told(till, wallet, await till.until(_outcome_of(payment_id)))
        self.waiting.clear()

    def new_id(self) -> str:
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def amount(self, least: int = 1, most: int = PIN_FREE_MINOR_MAX) -> int:
        return self.rng.randint(least, most)

    async def payment(self, shop: Shop, wallet: Wallet, amount_minor: int, **fields: str) -> Message:
        """A scan of the wallet's code for a new order."""
        self.orders += 1
        shared = {"currency": shop.terms.currency, "entry": "scanned", "purpose": "sale"}
        named = {"payment_id": self.new_id(), "reference": f"order-{self.orders}"}
        return {"amount_minor": amount_minor, "code": await wallet.code()} | shared | named | fields

    async def told(self, till: Till | None, wallet: Wallet | None, answer: Message) -> Message:
        """Count an answer, and wait until both sides have heard it."""
        self.seen[answer.get("code") or answer.get("decline_code") or answer.get("status") or answer["type"]] += 1
        for notebook in (till, wallet):
            if notebook is not None and answer["type"] != "error" and "version" in answer:
                await notebook.heard(answer["payment_id"], answer["version"])
        return answer

    async def sale(self, shop: Shop, wallet: Wallet, till: Till | None = None) -> Message:
        """A sale that needs no PIN: what the till was told."""
        till = till or self.rng.choice(shop.tills)
        answer = await till.scan(await self.payment(shop, wallet, self.amount()))
        if answer.get("status") == "approved":
            shop.sold.append((answer, wallet))
        return await self.told(till, wallet, answer)

    async def earlier_sale(self, shop: Shop, wallet: Wallet) -> tuple[Message, Wallet]:
        """A sale of before, as likely as not of the day before; a new one if there is none. It is then no more."""
        if not shop.sold:
            await self.sale(shop, wallet)
        return shop.sold.pop(self.rng.randrange(len(shop.sold)))

    async def with_pin(self, shop: Shop, wallet: Wallet, *pins: str, purpose: str = "sale") -> Message:
        """A payment above the limit, with these PINs entered one after the other while it waits."""
        till = self.rng.choice(shop.tills)
        amount_minor = self.amount(PIN_FREE_MINOR_MAX + 1, 2 * PIN_FREE_MINOR_MAX)
        answer = await till.scan(await self.payment(shop, wallet, amount_minor, purpose=purpose))
        for pin in pins:
            if answer["type"] not in ("payment.pending", "payment.confirmation_required"):
                break
            asked = await wallet.heard(answer["payment_id"], answer["version"])
            answer = await wallet.confirm(asked, pin)
        return await self.told(till, wallet, answer)

    async def pending(self, shop: Shop, wallet: Wallet, till: Till) -> Message:
        """A payment that waits for its PIN: what the customer was asked, or what came of it at once."""
        answer = await till.scan(await self.payment(shop, wallet, PIN_FREE_MINOR_MAX + 1))
        return await wallet.heard(answer["payment_id"], answer["version"])


Step = Callable[[Day, Shop, Wallet], Awaitable[object]]


def _outcome_of(payment_id: str) -> Callable[[Message], bool]:
    return lambda line: line["type"] == "payment.result" and line["payment_id"] == payment_id


async def pin_at_last(day: Day, shop: Shop, wallet: Wallet) -> None:
    await day.with_pin(shop, wallet, WRONG_PIN, PIN)


async def pin_never(day: Day, shop: Shop, wallet: Wallet) -> None:
    await day.with_pin(shop, wallet, WRONG_PIN, WRONG_PIN, WRONG_PIN)
    # So that the wallet's next wrong PIN does not lock it.
    await day.with_pin(shop, wallet, PIN)


async def rejected(day: Day, shop: Shop, wallet: Wallet) -> None:
    asked = await day.pending(shop, wallet, till := day.rng.choice(shop.tills))
    await day.told(till, wallet, await wallet.reject(asked["payment_id"]))


async def expired(day: Day, shop: Shop, wallet: Wallet) -> None:
    """Nobody confirms. The second till is at the server that waits only a moment."""
    asked = await day.pending(shop, wallet, till := shop.tills[1])
    day.waiting.append((till, wallet, asked["payment_id"]))


async def canceled_while_it_waits(day: Day, shop: Shop, wallet: Wallet) -> None:
    asked = await day.pending(shop, wallet, till := day.rng.choice(shop.tills))
    await day.told(till, wallet, await till.cancel(payment_id=asked["payment_id"]))


async def too_expensive(day: Day, shop: Shop, wallet: Wallet) -> None:
    till = day.rng.choice(shop.tills)
    await day.told(till, wallet, await till.scan(await day.payment(shop, wallet, TOO_MUCH_MINOR)))


async def over_limit(day: Day, shop: Shop, wallet: Wallet) -> None:
    till = day.rng.choice(shop.tills)
    await day.told(till, wallet, await till.scan(await day.payment(shop, wallet, PAYMENT_MINOR_MAX + 1)))


async def code_used(day: Day, shop: Shop, wallet: Wallet) -> None:
    till, payment = day.rng.choice(shop.tills), await day.payment(shop, wallet, 100)
    await day.told(till, wallet, await till.scan(payment))
    again = payment | {"payment_id": day.new_id(), "reference": f"{payment['reference']}-b"}
    await day.told(till, wallet, await till.scan(again))


async def code_invalid(day: Day, shop: Shop, wallet: Wallet) -> None:
    till, payment = day.rng.choice(shop.tills), await day.payment(shop, wallet, 100)
    await day.told(till, None, await till.scan(payment | {"code": forged(payment["code"])}))


async def code_malformed(day: Day, shop: Shop, wallet: Wallet) -> None:
    till, payment = day.rng.choice(shop.tills), await day.payment(shop, wallet, 100)
    await day.told(till, None, await till.scan(payment | {"code": "4006381333931"}))


async def foreign_wallet(day: Day, shop: Shop, wallet: Wallet) -> None:
    stranger = next(other.wallets[0] for other in day.shops if other.terms.currency != shop.terms.currency)
    till = day.rng.choice(shop.tills)
    await day.told(till, stranger, await till.scan(await day.payment(shop, stranger, 100)))


async def paid_twice(day: Day, shop: Shop, wallet: Wallet) -> None:
    till = day.rng.choice(shop.tills)
    paid = await day.sale(shop, wallet, till)
    payment = await day.payment(shop, wallet, paid["amount_minor"], reference=paid["reference"])
    await day.told(till, wallet, await till.scan(payment))


async def sent_again(day: Day, shop: Shop, wallet: Wallet) -> None:
    """The same scan three times, the last one after a cancel."""
    till, payment = shop.tills[1], await day.payment(shop, wallet, day.amount())
    first = await day.told(till, wallet, await till.scan(payment))
    assert await till.scan(payment) | {"reply_to": None} == first | {"reply_to": None}
    await day.told(till, wallet, await till.cancel(payment_id=payment["payment_id"]))
    await day.told(till, wallet, await till.scan(payment))


async def cancel(day: Day, shop: Shop, wallet: Wallet) -> None:
    """Of an earlier sale, at either till, by its id or by its order."""
    sold, payer = await day.earlier_sale(shop, wallet)
    name = day.rng.choice(["payment_id", "reference"])
    till = day.rng.choice(shop.tills)
    await day.told(till, payer, await till.cancel(**{name: sold[name]}))


async def cancel_by_office(day: Day, shop: Shop, wallet: Wallet) -> None:
    sold, payer = await day.earlier_sale(shop, wallet)
    await day.told(None, payer, await shop.office.cancel(sold["payment_id"]))


async def canceled_before(day: Day, shop: Shop, wallet: Wallet) -> None:
    """The cancel overtakes the scan."""
    till, payment = day.rng.choice(shop.tills), await day.payment(shop, wallet, day.amount())
    name = day.rng.choice(["payment_id", "reference"])
    await day.told(till, None, await till.cancel(**{name: payment[name]}))
    if isinstance(till, PlainTill):  # pos_client does not scan what it has canceled
        await day.told(till, wallet, await till.scan(payment))


async def refund(day: Day, shop: Shop, wallet: Wallet) -> None:
    """Some of an earlier sale, in up to three parts, at either till or by the back office, each asked for twice."""
    sold, payer = await day.earlier_sale(shop, wallet)
    rest_minor = sold["amount_minor"]
    for _ in range(day.rng.randint(1, 3)):
        part_minor = day.rng.choice([day.amount(1, rest_minor), rest_minor])
        wish = {"refund_id": day.new_id(), "payment_id": sold["payment_id"], "amount_minor": part_minor}
        if day.rng.random() < 0.4:
            answer = await shop.office.refund(wish)
            await shop.office.refund(wish)
        else:
            answer = await (till := day.rng.choice(shop.tills)).refund(wish)
            await till.refund(wish)
        day.seen[answer["type"]] += 1
        await payer.until(lambda line, of=answer: line.get("refund_id") == of["refund_id"])  # type: ignore[misc]
        rest_minor -= part_minor
        if rest_minor == 0:
            break
    over = {"refund_id": day.new_id(), "payment_id": sold["payment_id"], "amount_minor": rest_minor + 1}
    await day.told(None, None, await day.rng.choice(shop.tills).refund(over))
    await day.told(None, None, await day.rng.choice(shop.tills).cancel(payment_id=sold["payment_id"]))


async def top_up(day: Day, shop: Shop, wallet: Wallet) -> None:
    """At the till; one in three is taken back."""
    till, payment = day.rng.choice(shop.tills), await day.payment(shop, wallet, day.amount(), purpose="top_up")
    await day.told(till, wallet, await till.scan(payment))
    if day.rng.random() < 0.33:
        await day.told(till, wallet, await till.cancel(payment_id=payment["payment_id"]))


async def withdrawal(day: Day, shop: Shop, wallet: Wallet) -> None:
    """At the till; one in three is taken back."""
    done = await day.with_pin(shop, wallet, PIN, purpose="withdrawal")
    if day.rng.random() < 0.33:
        await day.told(None, wallet, await shop.office.cancel(done["payment_id"]))


async def cash_by_office(day: Day, shop: Shop, wallet: Wallet) -> None:
    """A top-up or a withdrawal, asked for twice; one in three is taken back."""
    path = day.rng.choice(["top-ups", "withdrawals"])
    wish_id, amount_minor = day.new_id(), day.amount()
    for _ in range(2):
        done = await shop.office.cash(path, wish_id, wallet.number, amount_minor)
        await day.told(None, wallet, done)
    if day.rng.random() < 0.33:
        await day.told(None, wallet, await shop.office.cancel(done["payment_id"]))


async def till_is_cut(day: Day, shop: Shop, wallet: Wallet) -> None:
    """The line is lost with the scan. The till comes back, and sends the same again."""
    till = shop.tills[1]
    assert isinstance(till, PlainTill)
    payment = await day.payment(shop, wallet, day.amount())
    await till.send({"type": "payment.scan"} | payment)
    till.cut()
    await till.connect(day.there)
    await day.told(till, wallet, await till.scan(payment))


async def wallet_is_cut(day: Day, shop: Shop, wallet: Wallet) -> None:
    """The customer pays without a network, and hears of it later."""
    if not isinstance(wallet, PlainWallet):
        return
    till = day.rng.choice(shop.tills)
    wallet.cut()
    await wallet.leave()
    answer = await till.scan(await day.payment(shop, wallet, day.amount()))
    await wallet.connect(day.rng.choice([day.here, day.there]))
    await day.told(till, wallet, answer)


async def sale(day: Day, shop: Shop, wallet: Wallet) -> None:
    await day.sale(shop, wallet)


async def pin(day: Day, shop: Shop, wallet: Wallet) -> None:
    await day.with_pin(shop, wallet, PIN)


STEPS: dict[str, Step] = {
    step.__name__: step
    for step in (
        *(sale, pin, pin_at_last, pin_never, rejected, expired, canceled_while_it_waits, too_expensive, over_limit),
        *(code_used, code_invalid, code_malformed, foreign_wallet, paid_twice, sent_again, cancel, cancel_by_office),
        *(canceled_before, refund, top_up, withdrawal, cash_by_office, till_is_cut, wallet_is_cut),
    )
}
