"""The statements of a scripted day say what its clients were told, added up by code that is not the server's.

Four merchants, three currencies, two servers, one of which is restarted. Business days end in the middle of the script.
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
from tests.end_to_end.bookkeeper import Message, Terms, approval, cash, flows, payments, statements, wallet_balance
from tests.end_to_end.notebooks import BackOffice, ClientTill, ClientWallet, PlainTill, PlainWallet, Till, Wallet
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
# How often each step is played in each third of the day, which comes to 200 of them.
MORNING = Counter(sale=20, pin=5, pin_at_last=3, rejected=2, too_expensive=3, over_limit=2, code_used=3)
MORNING += Counter(code_invalid=2, code_malformed=2, foreign_wallet=2, paid_twice=3, top_up=8, cash_by_office=5)
MORNING += Counter(canceled_while_it_waits=2)
NOON = Counter(sale=12, pin=4, pin_never=2, expired=3, sent_again=4, cancel=6, cancel_by_office=3, refund=12)
NOON += Counter(canceled_before=5, withdrawal=6, till_is_cut=5, wallet_is_cut=6, cash_by_office=3)
EVENING = Counter(sale=11, pin=3, rejected=2, expired=2, refund=16, cancel=5, withdrawal=5, cash_by_office=5)
EVENING += Counter(till_is_cut=3, wallet_is_cut=4, paid_twice=2, top_up=4, canceled_before=3, code_used=2)
# What must have come about for the day to be worth adding up.
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
    """A merchant with its tills, wallets and a key. The canteen has a till and half of its customers by pos_client."""
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
    """Have the operator set what the shop's terms are now."""
    _, bps, fixed_minor = shop.terms.rates[-1]
    rates = ("--fee-bps", str(bps), "--fee-fixed", str(fixed_minor))
    days = ("--time-zone", shop.terms.time_zone, "--cut-off", shop.terms.cut_off.isoformat())
    done = await pos_server("terms", str(shop.merchant_id), *rates, *days, POS_DATABASE_URL=dsn)
    assert done.status == 0, done.err


async def end_business_day(dsn: str, day: Day, shop: Shop) -> None:
    """The business day ends now and other fees begin, while a customer looks for the PIN of a payment of before."""
    wallet, till = shop.wallets[-1], shop.tills[0]
    asked = await day.pending(shop, wallet, till)
    assert asked["type"] == "payment.confirmation_required", asked
    # What was told so far was decided before this millisecond.
    at_ms = time.time_ns() // 1_000_000 + 1
    local = datetime.fromtimestamp(at_ms // 1000, ZoneInfo(shop.terms.time_zone))
    shop.terms.cut_off = (local + timedelta(milliseconds=at_ms % 1000)).time()
    _, bps, fixed_minor = shop.terms.rates[-1]
    shop.terms.rates.append((at_ms, bps + 155, fixed_minor + 3))
    await set_terms(dsn, shop)
    await day.told(till, wallet, await wallet.confirm(asked, PIN))


async def open_shops(day: Day, clients: AsyncExitStack) -> None:
    """Everybody connects; each customer sets a PIN and brings cash."""
    for shop in day.shops:
        clients.push_async_callback(shop.office.close)
        for notebook in (*shop.tills, *shop.wallets):
            if isinstance(notebook, ClientTill | ClientWallet):
                await clients.enter_async_context(notebook.client)
                await clients.enter_async_context(listening(notebook))
                await notebook.client.ready()
            else:
                await notebook.connect(day.here)
                clients.push_async_callback(notebook.leave)
        for index, wallet in enumerate(shop.wallets):
            await wallet.set_pin(PIN, day.new_id())
            if index % 2:
                payment = await day.payment(shop, wallet, FIRST_TOP_UP_MINOR, purpose="top_up")
                await day.told(shop.tills[1], wallet, await shop.tills[1].scan(payment))
            else:
                answer = await shop.office.cash("top-ups", day.new_id(), wallet.number, FIRST_TOP_UP_MINOR)
                await day.told(None, wallet, answer)


@asynccontextmanager
async def listening(notebook: ClientTill | ClientWallet) -> AsyncIterator[None]:
    task = asyncio.create_task(notebook.listen())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def move(day: Day) -> None:
    """The second till of each shop, and every third customer, go to the other server; other plain ones stay here."""
    for shop in day.shops:
        for index, notebook in enumerate((*shop.tills, *shop.wallets)):
            if isinstance(notebook, PlainTill | PlainWallet):
                await notebook.connect(day.there if index % 3 == 1 else day.here)
            else:
                await notebook.client.ready()


def shuffled(day: Day, steps: Counter[str]) -> list[str]:
    kinds = sorted(steps.elements())
    day.rng.shuffle(kinds)
    return kinds


async def play(dsn: str, day: Day, port: int, clients: AsyncExitStack) -> None:
    """The whole day, until everybody has heard of everything."""
    variables = {
        "POS_DATABASE_URL": dsn,
        "POS_MASTER_KEYS": MASTER_KEYS,
        "POS_PIN_FREE_MINOR_MAX": str(PIN_FREE_MINOR_MAX),
        "POS_PAYMENT_MINOR_MAX": str(PAYMENT_MINOR_MAX),
        "POS_EXPIRY_CHECK_S": "0.05",
        "POS_DRAIN_RECONNECT_WITHIN_S": "1",
    }
    # The other server waits for a PIN just long enough, so that what nobody confirms there soon expires.
    async with running_server(**variables, POS_CONFIRMATION_S="2") as other:
        async with running_server(port=port, **variables) as first:
            await open_shops(day, clients)
            await day.play(shuffled(day, MORNING))
            day.there = other.url
            await move(day)
            await asyncio.gather(*(end_business_day(dsn, day, shop) for shop in day.shops[:2]))
            # Both shops with this currency know each other's customers.
            day.shops[0].wallets, day.shops[3].wallets = day.shops[3].wallets, day.shops[0].wallets
            await day.play(shuffled(day, NOON))
            assert await first.stop() == 0
        async with running_server(port=port, **variables):
            await move(day)
            await asyncio.gather(*(end_business_day(dsn, day, shop) for shop in day.shops[2:]))
            await day.play(shuffled(day, EVENING))
            await all_heard(day)
            # A `ready` says the balance in any case, whatever was told late.
            await move(day)
            await clients.aclose()


async def all_heard(day: Day) -> None:
    """Wait until the till of each payment and its customer have heard of its last change. It fails if they do not."""
    wallets = [wallet for shop in day.shops for wallet in shop.wallets]
    last = Counter[str]()
    for line in (line for notebook in (*day.shops, *wallets) for line in notebook.lines):
        if "payment_id" in line:
            last[line["payment_id"]] = max(last[line["payment_id"]], line.get("version", 0))
    for notebook in (*wallets, *(till for shop in day.shops for till in shop.tills)):
        for payment_id, versions in payments(notebook.lines).items():
            # Another till that canceled or refunded it is not told of what comes later.
            if versions[0]["version"] == 1 or notebook in wallets:
                await notebook.heard(payment_id, last[payment_id])


def views(lines: list[Message]) -> dict[str, tuple[object, ...]]:
    """What one side believes of each payment that moved money: status, amount, currency, purpose, refunded."""
    back_minor = Counter[str]()
    for line in lines:
        if "refunded_minor" in line:
            back_minor[line["payment_id"]] = max(back_minor[line["payment_id"]], line["refunded_minor"])
    return {
        payment_id: (
            *(versions[-1][name] for name in ("status", "amount_minor", "currency", "purpose")),
            back_minor[payment_id],
        )
        for payment_id, versions in payments(lines).items()
        if approval(versions)
    }


def check_files(folder: Path, day: date, shops: list[Shop], expected: dict[int, dict[str, int]]) -> None:
    """Both files of a business day hold exactly these figures, by merchant, and their sums by currency."""
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
    """What `pos-server balances` says: minor units by owner and currency."""
    done = await pos_server("balances", POS_DATABASE_URL=dsn)
    assert done.status == 0, done.err
    found = {}
    for line in done.out.splitlines():
        match = re.fullmatch(r"(?:merchant|house) +(\S.*?) +(-?[\d.]+) ([A-Z]{3})", line)
        assert match, line
        assert len(match[2].partition(".")[2]) == MINOR_DIGITS[match[3]], line
        found[match[1], match[3]] = int(match[2].replace(".", ""))
    return found


def expected_balances(
    shops: list[Shop], stated: dict[int, dict[date, dict[str, int]]], *, paid: bool
) -> dict[tuple[str, str], int]:
    """Of merchants and of the house, before or after merchants were paid."""
    found = Counter[tuple[str, str]]()
    for shop in shops:
        currency, moved = shop.terms.currency, cash(shop.lines)
        days = stated[shop.merchant_id].values()
        net_minor, paid_minor = (sum(day[name] for day in days) for name in ("net_minor", "paid_out_minor"))
        found[shop.name, currency] = net_minor - paid_minor * paid
        found["settlement", currency] += paid_minor * paid
        found["fees", currency] += sum(day["fees_minor"] - day["fees_returned_minor"] for day in days)
        found["cash_in", currency] -= moved["top_up"]
        found["payout", currency] += moved["withdrawal"]
    return dict(found)


async def test_a_scripted_day_adds_up_to_what_its_clients_were_told(
    dsn: str, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    shops = [await new_shop(admin, url, *merchant) for merchant in MERCHANTS]
    day = Day(random.Random(SEED), shops, here=url, there=url)
    await asyncio.gather(*(set_terms(dsn, shop) for shop in shops))
    async with AsyncExitStack() as clients:
        await play(dsn, day, port, clients)
    assert set(day.seen) >= EXPECTED, day.seen

    # Tills and customers believe the same, and each customer's balance is the sum of what that customer was told.
    wallets = [wallet for shop in shops for wallet in shop.wallets]
    assert views([line for shop in shops for line in shop.lines]) == views(
        [line for wallet in wallets for line in wallet.lines]
    )
    rows = await admin.fetch("select number, currency, balance_minor from wallet")
    in_ledger = {row["number"]: row["balance_minor"] for row in rows}
    assert {wallet.number: wallet_balance(wallet.lines) for wallet in wallets} == in_ledger
    for wallet in (wallet for wallet in wallets if isinstance(wallet, PlainWallet)):
        readies = [line for line in wallet.lines if line["type"] == "ready"]
        assert (readies[0]["balance_minor"], readies[-1]["balance_minor"]) == (0, in_ledger[wallet.number])

    business_days = [shop.terms.day_of(at_ms) for shop in shops for at_ms, _, _ in flows(shop.lines, shop.terms)]
    count = (max(business_days) - min(business_days)).days + 1
    days = [min(business_days) + timedelta(days=number) for number in range(count)]
    stated = {shop.merchant_id: statements(shop.lines, shop.terms, days) for shop in shops}
    assert await balances(dsn) == expected_balances(shops, stated, paid=False)
    later = datetime.now(UTC) + timedelta(days=4)
    for business_day in days:
        await settle_into(admin, business_day, later, tmp_path)
        expected = {shop.merchant_id: stated[shop.merchant_id][business_day] for shop in shops}
        check_files(tmp_path, business_day, shops, expected)
    after = await balances(dsn)
    assert after == expected_balances(shops, stated, paid=True)
    held = Counter[str]()
    for (_, currency), minor in after.items():
        held[currency] += minor
    for row in rows:
        held[row["currency"]] += row["balance_minor"]
    assert set(held.values()) == {0}, "all accounts of a currency together are 0"
    report = await pos_server("audit", POS_DATABASE_URL=dsn)
    assert report.status == 0, report.out
