"""A scripted day: the server's statements and balances equal an independent accounting of the clients' messages.

There are four merchants, three currencies and two servers, one of which is restarted. Business days end during the
script.
"""

import asyncio
import csv
import io
import json
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from pos_server.cli.operator_acts import new_key, settle_into
from pos_server.core.credentials.api_keys import Role
from pos_server.core.credentials.device_keys import DeviceId, DeviceKind
from pos_server.ledger import directory
from pos_server.ledger.audit import audit
from pos_server.ledger.database import connect
from tests.end_to_end.bookkeeper import Message, Terms, approval, cash, flows, payments, statements, wallet_balance
from tests.end_to_end.recording_clients import (
    BackOffice,
    ClientTill,
    ClientWallet,
    PlainTill,
    PlainWallet,
    Till,
    Wallet,
)
from tests.end_to_end.scripted_day import FIRST_TOP_UP_MINOR, PAYMENT_MINOR_MAX, PIN, PIN_FREE_MINOR_MAX, Day, Shop
from tests.end_to_end.server_process import pos_server, running_server
from tests.end_to_end.test_crash import credentials, free_port
from tests.support import MASTER_KEYS, TestDevice, activated

pytestmark = pytest.mark.asyncio

SEED = 20261124
WALLETS_PER_SHOP = 8
# Name, currency, time zone (none with summer time), basis points, fixed part.
MERCHANTS = [
    ("Corner Canteen", "EUR", "UTC", 145, 7),
    ("Night Market", "JPY", "Asia/Shanghai", 325, 0),
    ("Gulf Books", "KWD", "Asia/Dubai", 90, 25),
    ("Garden Kiosk", "EUR", "America/Phoenix", 0, 60),
]
MINOR_DIGITS = {"EUR": 2, "JPY": 0, "KWD": 3}
# Number of each step in each third of the day, about 200 in total.
MORNING = Counter(sale=20, pin=5, right_pin_after_wrong=3, rejected=2, too_expensive=3, over_limit=2, code_used=3)
MORNING += Counter(code_invalid=2, code_malformed=2, foreign_wallet=2, paid_twice=3, top_up=8, cash_by_office=5)
MORNING += Counter(canceled_while_pending=2)
NOON = Counter(sale=12, pin=4, three_wrong_pins=2, expired=3, repeated_scan=4, cancel=6, cancel_by_office=3, refund=12)
NOON += Counter(cancel_before_scan=5, withdrawal=6, till_disconnected=5, wallet_disconnected=6, cash_by_office=3)
EVENING = Counter(sale=11, pin=3, rejected=2, expired=2, refund=16, cancel=5, withdrawal=5, cash_by_office=5)
EVENING += Counter(
    till_disconnected=3, wallet_disconnected=4, paid_twice=2, top_up=4, cancel_before_scan=3, code_used=2
)
# Outcomes that the day must include.
EXPECTED = {
    "approved",
    "canceled",
    "expired",
    "refund.result",
    "refund_exceeds_remaining",
    "already_refunded",
    "code_used",
}
EXPECTED |= {"code_invalid", "code_malformed", "currency_mismatch", "already_paid", "insufficient_funds", "pin_wrong"}
EXPECTED |= {"amount_over_limit", "customer_rejected"}


async def new_shop(
    admin: asyncpg.Connection, url: str, name: str, currency: str, zone: str, bps: int, fixed: int
) -> Shop:
    """Create a merchant with tills, wallets and API keys. In the canteen, every second device uses pos_client."""
    merchant_id = await directory.create_merchant(admin, name, currency)
    devices: list[TestDevice] = []
    for store in ("Hall", "Yard"):
        store_id = await directory.create_store(admin, merchant_id, store)
        number = await directory.create_terminal(admin, store_id, f"{store} till")
        devices.append(await activated(admin, DeviceId(DeviceKind.TERMINAL, number)))
    for index in range(WALLETS_PER_SHOP):
        number = await directory.create_wallet(admin, f"Customer {index} of {name}", currency)
        devices.append(await activated(admin, DeviceId(DeviceKind.WALLET, number)))
    tills: list[Till] = []
    wallets: list[Wallet] = []
    for index, device in enumerate(devices):
        by_client = name == "Corner Canteen" and index % 2 == 0
        if device.device.kind is DeviceKind.TERMINAL:
            tills.append(ClientTill(credentials(device, url)) if by_client else PlainTill(device))
        else:
            wallets.append(ClientWallet(credentials(device, url)) if by_client else PlainWallet(device))
    key = await new_key(admin, Role.MERCHANT, merchant_id, "back office")
    issuer_key = await new_key(admin, Role.ISSUER, None, "cash desk")
    return Shop(
        merchant_id,
        name,
        Terms(currency, zone, rates=[(0, bps, fixed)]),
        tills,
        BackOffice(key, issuer_key, merchant_id, url),
        wallets,
    )


async def set_terms(dsn: str, shop: Shop) -> None:
    """Set the shop's current terms with `pos-server terms`, and a cut-off in the middle of a minute by SQL."""
    _, bps, fixed_minor = shop.terms.rates[-1]
    rates = ("--fee-bps", str(bps), "--fee-fixed", str(fixed_minor), "--time-zone", shop.terms.time_zone)
    done = await pos_server("terms", str(shop.merchant_id), *rates, POS_DATABASE_URL=dsn)
    assert done.status == 0, done.err
    owner = await connect(dsn, timeout_s=10, role=None)
    await owner.execute("update merchant set cut_off = $2 where id = $1", shop.merchant_id, shop.terms.cut_off)
    await owner.close()


async def end_business_day(dsn: str, day: Day, shop: Shop) -> None:
    """End the business day and change the fees while a payment waits for its PIN."""
    wallet, till = shop.wallets[-1], shop.tills[0]
    request = await day.pending(shop, wallet, till)
    assert request["type"] == "payment.confirmation_required", request
    # Every earlier decision is before this millisecond.
    at_ms = time.time_ns() // 1_000_000 + 1
    local = datetime.fromtimestamp(at_ms // 1000, ZoneInfo(shop.terms.time_zone))
    shop.terms.cut_off = (local + timedelta(milliseconds=at_ms % 1000)).time()
    _, bps, fixed_minor = shop.terms.rates[-1]
    shop.terms.rates.append((at_ms, bps + 155, fixed_minor + 3))
    await set_terms(dsn, shop)
    await day.notified(till, wallet, await wallet.confirm(request, PIN))


async def open_shops(day: Day, clients: AsyncExitStack) -> None:
    """Connect every client; set each customer's PIN and make the first top-up."""
    for shop in day.shops:
        clients.push_async_callback(shop.office.close)
        for device in (*shop.tills, *shop.wallets):
            if isinstance(device, ClientTill | ClientWallet):
                await clients.enter_async_context(device.client)
                await clients.enter_async_context(listening(device))
                await device.client.ready()
            else:
                await device.connect(day.here)
                clients.push_async_callback(device.leave)
        for index, wallet in enumerate(shop.wallets):
            await wallet.set_pin(PIN, day.new_id())
            if index % 2:
                payment = await day.payment(shop, wallet, FIRST_TOP_UP_MINOR, purpose="top_up")
                await day.notified(shop.tills[1], wallet, await shop.tills[1].scan(payment))
            else:
                answer = await shop.office.cash("top-ups", day.new_id(), wallet.number, FIRST_TOP_UP_MINOR)
                await day.notified(None, wallet, answer)


@asynccontextmanager
async def listening(device: ClientTill | ClientWallet) -> AsyncIterator[None]:
    task = asyncio.create_task(device.listen())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def move(day: Day) -> None:
    """Connect the second till and every third customer of each shop to the other server, and reconnect the others."""
    for shop in day.shops:
        for index, device in enumerate((*shop.tills, *shop.wallets)):
            if isinstance(device, PlainTill | PlainWallet):
                await device.connect(day.there if index % 3 == 1 else day.here)
            else:
                await device.client.ready()


def shuffled(day: Day, steps: Counter[str]) -> list[str]:
    kinds = sorted(steps.elements())
    day.rng.shuffle(kinds)
    return kinds


async def play(dsn: str, day: Day, port: int, clients: AsyncExitStack) -> None:
    """Play the whole day, until every client has received every notice."""
    variables = {
        "POS_DATABASE_URL": dsn,
        "POS_MASTER_KEYS": MASTER_KEYS,
        "POS_PIN_FREE_MINOR_MAX": str(PIN_FREE_MINOR_MAX),
        "POS_PAYMENT_MINOR_MAX": str(PAYMENT_MINOR_MAX),
        "POS_EXPIRY_CHECK_S": "0.05",
        "POS_DRAIN_RECONNECT_WITHIN_S": "1",
    }
    # Payments at the other server expire after 2 s without a PIN.
    async with running_server(**variables, POS_CONFIRMATION_S="2") as other:
        async with running_server(port=port, **variables) as first:
            await open_shops(day, clients)
            await day.play(shuffled(day, MORNING))
            day.there = other.url
            await move(day)
            await asyncio.gather(*(end_business_day(dsn, day, shop) for shop in day.shops[:2]))
            # The two shops with this currency exchange their customers.
            day.shops[0].wallets, day.shops[3].wallets = day.shops[3].wallets, day.shops[0].wallets
            await day.play(shuffled(day, NOON))
            assert await first.stop() == 0
        async with running_server(port=port, **variables):
            await move(day)
            await asyncio.gather(*(end_business_day(dsn, day, shop) for shop in day.shops[2:]))
            await day.play(shuffled(day, EVENING))
            await wait_for_all_notices(day)
            # A new `ready` has the current balance in any case.
            await move(day)
            await clients.aclose()


async def wait_for_all_notices(day: Day) -> None:
    """Wait until the till and the wallet of each payment have received its last version. Raises TimeoutError."""
    wallets = [wallet for shop in day.shops for wallet in shop.wallets]
    last = Counter[str]()
    for message in (message for device in (*day.shops, *wallets) for message in device.messages):
        if "payment_id" in message:
            last[message["payment_id"]] = max(last[message["payment_id"]], message.get("version", 0))
    for device in (*wallets, *(till for shop in day.shops for till in shop.tills)):
        for payment_id, versions in payments(device.messages).items():
            # Another till that canceled or refunded the payment receives no later notices.
            if versions[0]["version"] == 1 or device in wallets:
                await device.wait_for_version(payment_id, last[payment_id])


def views(messages: list[Message]) -> dict[str, tuple[object, ...]]:
    """Return one side's view of each approved payment: status, amount, currency, purpose, refunded."""
    refunded_minor = Counter[str]()
    for message in messages:
        if "refunded_minor" in message:
            refunded_minor[message["payment_id"]] = max(
                refunded_minor[message["payment_id"]], message["refunded_minor"]
            )
    return {
        payment_id: (
            *(versions[-1][name] for name in ("status", "amount_minor", "currency", "purpose")),
            refunded_minor[payment_id],
        )
        for payment_id, versions in payments(messages).items()
        if approval(versions)
    }


def check_files(folder: Path, day: date, shops: list[Shop], expected: dict[int, dict[str, int]]) -> None:
    """Check that both files of a business day have exactly these figures per merchant and their sums per currency."""
    document = json.loads((folder / f"settlement-{day}.json").read_text())
    rows = list(csv.reader(io.StringIO((folder / f"settlement-{day}.csv").read_bytes().decode(), newline="")))
    names = rows[1][1:]
    in_csv = [dict(zip(names, row[1:], strict=True)) for row in rows if row[0] == "S"]
    assert [statement["merchant_id"] for statement in document["statements"]] == list(expected)
    for shop, statement, row in zip(shops, document["statements"], in_csv, strict=True):
        figures = expected[shop.merchant_id]
        assert {name: statement[name] for name in figures} == figures, (day, shop.name)
        assert {name: int(row[name]) for name in figures} == figures, (day, shop.name)
        assert (statement["currency"], statement["merchant_name"]) == (shop.terms.currency, shop.name)
        assert statement["ends_at"] == row["ends_at"] == shop.terms.ends_at(day)
        assert statement["starts_at"] == row["starts_at"] == shop.terms.ends_at(day - timedelta(days=1))
    sums: dict[str, Counter[str]] = {}
    for shop in shops:
        sums.setdefault(shop.terms.currency, Counter()).update(expected[shop.merchant_id])
    totals = {row[names.index("currency") + 1]: dict(zip(names, row[1:], strict=True)) for row in rows if row[0] == "T"}
    for currency, total in sums.items():
        assert {name: document["totals"][currency][name] for name in total} == dict(total)
        assert {name: int(totals[currency][name]) for name in total} == dict(total)


async def balances(dsn: str) -> dict[tuple[str, str], int]:
    """Return the output of `pos-server balances`: minor units by owner and currency."""
    done = await pos_server("balances", POS_DATABASE_URL=dsn)
    assert done.status == 0, done.err
    by_owner = {}
    for line in done.out.splitlines():
        match = re.fullmatch(r"(?:merchant|house) +(\S.*?) +(-?[\d.]+) ([A-Z]{3})", line)
        assert match, line
        assert len(match[2].partition(".")[2]) == MINOR_DIGITS[match[3]], line
        by_owner[match[1], match[3]] = int(match[2].replace(".", ""))
    return by_owner


def expected_balances(
    shops: list[Shop], stated: dict[int, dict[date, dict[str, int]]], *, paid: bool
) -> dict[tuple[str, str], int]:
    """Return the balances of merchants and of the house, before or after the payouts."""
    by_owner = Counter[tuple[str, str]]()
    for shop in shops:
        currency, moved = shop.terms.currency, cash(shop.messages)
        days = stated[shop.merchant_id].values()
        net_minor, paid_minor = (sum(day[name] for day in days) for name in ("net_minor", "paid_out_minor"))
        by_owner[shop.name, currency] = net_minor - paid_minor * paid
        by_owner["settlement", currency] += paid_minor * paid
        by_owner["fees", currency] += sum(day["fees_minor"] - day["fees_returned_minor"] for day in days)
        by_owner["cash_in", currency] -= moved["top_up"]
        by_owner["payout", currency] += moved["withdrawal"]
    return dict(by_owner)


@pytest.mark.long
async def test_statements_and_balances_match_the_messages_of_the_clients(
    dsn: str, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    shops = [await new_shop(admin, url, *merchant) for merchant in MERCHANTS]
    day = Day(random.Random(SEED), shops, here=url, there=url)
    await asyncio.gather(*(set_terms(dsn, shop) for shop in shops))
    async with AsyncExitStack() as clients:
        await play(dsn, day, port, clients)
    assert set(day.outcomes) >= EXPECTED, day.outcomes

    # Tills and wallets have the same view, and each wallet's balance follows from its own messages.
    wallets = [wallet for shop in shops for wallet in shop.wallets]
    assert views([message for shop in shops for message in shop.messages]) == views(
        [message for wallet in wallets for message in wallet.messages]
    )
    rows = await admin.fetch("select number, currency, balance_minor from wallet")
    in_ledger = {row["number"]: row["balance_minor"] for row in rows}
    assert {wallet.number: wallet_balance(wallet.messages) for wallet in wallets} == in_ledger
    for wallet in (wallet for wallet in wallets if isinstance(wallet, PlainWallet)):
        ready_messages = [message for message in wallet.messages if message["type"] == "ready"]
        assert (ready_messages[0]["balance_minor"], ready_messages[-1]["balance_minor"]) == (
            0,
            in_ledger[wallet.number],
        )

    # A merchant's statements begin with the day of its first transfer, which may be that after the first cut-off.
    first_days = {
        shop.merchant_id: min(shop.terms.day_of(at_ms) for at_ms, _, _ in flows(shop.messages, shop.terms))
        for shop in shops
    }
    business_days = [shop.terms.day_of(at_ms) for shop in shops for at_ms, _, _ in flows(shop.messages, shop.terms)]
    count = (max(business_days) - min(business_days)).days + 1
    days = [min(business_days) + timedelta(days=number) for number in range(count)]
    stated = {shop.merchant_id: statements(shop.messages, shop.terms, days) for shop in shops}
    assert await balances(dsn) == expected_balances(shops, stated, paid=False)
    later = datetime.now(UTC) + timedelta(days=4)
    for business_day in days:
        await settle_into(admin, business_day, later, tmp_path)
        begun = [shop for shop in shops if first_days[shop.merchant_id] <= business_day]
        expected = {shop.merchant_id: stated[shop.merchant_id][business_day] for shop in begun}
        check_files(tmp_path, business_day, begun, expected)
    after = await balances(dsn)
    assert after == expected_balances(shops, stated, paid=True)
    sums = Counter[str]()
    for (_, currency), minor in after.items():
        sums[currency] += minor
    for row in rows:
        sums[row["currency"]] += row["balance_minor"]
    assert set(sums.values()) == {0}, "the accounts of a currency must sum to 0"
    # Days are stated here before they are over, which the audit names. Their figures are compared above.
    assert [finding.check for finding in (await audit(admin)).findings] == ["settlements"]
