"""Races between two servers: two concurrent requests about one payment have exactly one of the legal outcomes."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
import pytest_asyncio

from pos_server.ledger.database import connect
from tests.end_to_end.server_process import pos_server, running_server
from tests.faults.concurrent_device import ConcurrentDevice, Message, concurrent_device
from tests.gateway.test_cancel import cancel_message
from tests.gateway.test_pin import OTHER_PIN, PIN, confirm_message, pin_message
from tests.gateway.test_refund import refund_message
from tests.shared import shared_database
from tests.support import MASTER_KEYS, TestDevice, build_shop, scan_message
from tests.tiers import short_and_long

pytestmark = pytest.mark.asyncio
dsn = shared_database()
races = short_and_long("rounds", 40, 500)

# Each round has its own wallet, because a wallet has ten codes per step; rounds run concurrently.
CONCURRENT_ROUNDS = 10
PIN_FREE_MAX = 1_000
CONFIRMATION_S = 0.5


@dataclass(slots=True)
class Stage:
    """A till at each of two servers."""

    dsn: str
    urls: list[str]
    tills: list[ConcurrentDevice]

    async def race(self, rounds: int, play: Callable[[TestDevice], Awaitable[str]]) -> tuple[set[str], set[int]]:
        """Play the rounds, each with a new wallet, and audit. Returns the outcomes and the wallets' balances."""
        slots = asyncio.Semaphore(CONCURRENT_ROUNDS)

        async def one(wallet: TestDevice) -> str:
            async with slots:
                return await play(wallet)

        connection = await connect(self.dsn, timeout_s=10)
        try:
            shop = await build_shop(connection, terminals=0, wallets=rounds, balance_minor=10_000)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(wallet)) for wallet in shop.wallets]
            outcomes = Counter(task.result() for task in tasks)
            print(f"\n{rounds} rounds: {dict(outcomes)}")  # noqa: T201 - shown by `pytest -s`
            numbers = [wallet.device.number for wallet in shop.wallets]
            rows = await connection.fetch("select balance_minor from wallet where number = any($1)", numbers)
        finally:
            await connection.close()
        report = json.loads((await pos_server("audit", "--json", POS_DATABASE_URL=self.dsn)).out)
        assert report["audit"] == "ok", report
        return set(outcomes), {row["balance_minor"] for row in rows}


@pytest_asyncio.fixture(scope="module")
async def stage(dsn: str) -> AsyncIterator[Stage]:
    connection = await connect(dsn, timeout_s=10)
    shop = await build_shop(connection, terminals=2, wallets=0)
    await connection.close()
    variables = {
        "POS_DATABASE_URL": dsn,
        "POS_MASTER_KEYS": MASTER_KEYS,
        "POS_PIN_FREE_MINOR_MAX": str(PIN_FREE_MAX),
        "POS_CONFIRMATION_S": str(CONFIRMATION_S),
        "POS_EXPIRY_CHECK_S": "0.02",
        "POS_DEVICE_OPERATIONS_MAX": "1000",
        "POS_MESSAGES_BURST": "100000",
        "POS_PIN_ARGON2_MEMORY_KIB": "8",
        "POS_PIN_ARGON2_PASSES": "1",
    }
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(running_server(**variables)) for _ in range(2)]
        tills = [
            await stack.enter_async_context(concurrent_device(server.url, terminal))
            for server, terminal in zip(servers, shop.terminals, strict=True)
        ]
        yield Stage(dsn, [server.url for server in servers], tills)


async def both(first: Awaitable[Message], second: Awaitable[Message]) -> tuple[Message, Message]:
    """Send two requests concurrently, in random order, sometimes with a short delay between them."""
    delay_s = random.choice([0, 0, 0.001, 0.003])

    async def late(request: Awaitable[Message]) -> Message:
        await asyncio.sleep(delay_s)
        return await request

    if random.random() < 0.5:
        one, other = await asyncio.gather(first, late(second))
    else:
        one, other = await asyncio.gather(late(first), second)
    return one, other


@races
async def test_cancel_against_scan(rounds: int, stage: Stage) -> None:
    here, there = stage.tills

    async def play(wallet: TestDevice) -> str:
        scan = scan_message(wallet.code(), amount_minor=PIN_FREE_MAX)
        scanned, canceled = await both(here.ask(scan), there.ask(cancel_message(payment_id=scan["payment_id"])))
        state = await there.ask(cancel_message(payment_id=scan["payment_id"]))
        if scanned["status"] == "approved":
            # The scan came first, and the cancel returned the money.
            assert (canceled["status"], canceled["amount_minor"]) == ("canceled", PIN_FREE_MAX)
            assert state == canceled | {"reply_to": state["reply_to"]}
            return "scan first"
        assert (scanned["status"], scanned["decline_code"]) == ("declined", "canceled")
        assert canceled["status"] == "canceled"
        assert (state["status"], state["decline_code"]) == ("declined", "canceled")
        return "cancel first"

    outcomes, balances = await stage.race(rounds, play)
    assert outcomes == {"scan first", "cancel first"}
    assert balances == {10_000}


@races
async def test_confirm_against_expiry(rounds: int, stage: Stage) -> None:
    till = stage.tills[0]

    async def play(wallet: TestDevice) -> str:
        async with concurrent_device(stage.urls[1], wallet) as phone:
            assert (await phone.ask(pin_message()))["type"] == "pin.changed"
            scan = scan_message(wallet.code(), amount_minor=PIN_FREE_MAX + 1)
            pending = await till.ask(scan)
            assert pending["type"] == "payment.pending"
            request = await phone.notice("payment.confirmation_required", scan["payment_id"])
            await asyncio.sleep(random.uniform(CONFIRMATION_S - 0.05, CONFIRMATION_S + 0.03))
            answer = await phone.ask(confirm_message(request))
            result = await till.notice("payment.result", scan["payment_id"])
        assert (answer["status"], answer["version"]) == (result["status"], result["version"])
        assert (answer["status"], answer["version"]) in (("approved", 2), ("expired", 2))
        return str(answer["status"])

    outcomes, balances = await stage.race(rounds, play)
    assert outcomes == {"approved", "expired"}
    assert balances == {10_000, 10_000 - PIN_FREE_MAX - 1}


@races
async def test_two_refunds_that_exceed_the_rest_together(rounds: int, stage: Stage) -> None:
    here, there = stage.tills

    async def play(wallet: TestDevice) -> str:
        paid = await here.ask(scan_message(wallet.code(), amount_minor=PIN_FREE_MAX))
        one, other = await both(
            here.ask(refund_message(paid["payment_id"], 600)), there.ask(refund_message(paid["payment_id"], 600))
        )
        assert sorted([one.get("code", one["type"]), other.get("code", other["type"])]) == [
            "refund.result",
            "refund_exceeds_remaining",
        ]
        return "first" if one["type"] == "refund.result" else "second"

    outcomes, balances = await stage.race(rounds, play)
    assert outcomes == {"first", "second"}
    assert balances == {10_000 - PIN_FREE_MAX + 600}


@races
async def test_the_same_id_on_two_servers(rounds: int, stage: Stage) -> None:
    """Two terminals use the same id: one payment is approved, the other is rejected as id_reused."""
    here, there = stage.tills

    async def play(wallet: TestDevice) -> str:
        scan = scan_message(wallet.code(), amount_minor=PIN_FREE_MAX)
        one, other = await both(here.ask(scan), there.ask(scan | {"code": wallet.code()}))
        assert sorted([one.get("code", one.get("status")), other.get("code", other.get("status"))]) == [
            "approved",
            "id_reused",
        ]
        return "first" if one["type"] == "payment.result" else "second"

    outcomes, balances = await stage.race(rounds, play)
    assert outcomes == {"first", "second"}
    assert balances == {10_000 - PIN_FREE_MAX}


@races
async def test_the_same_reference_with_two_ids_on_two_servers(rounds: int, stage: Stage) -> None:
    here, there = stage.tills

    async def play(wallet: TestDevice) -> str:
        scans = [
            scan_message(wallet.code(), amount_minor=PIN_FREE_MAX, reference=str(wallet.device.number)) for _ in "ab"
        ]
        one, other = await both(here.ask(scans[0]), there.ask(scans[1]))
        won, lost = (one, other) if one["status"] == "approved" else (other, one)
        assert (won["status"], lost["status"], lost["decline_code"], lost["paid_by"]) in (
            ("approved", "declined", "already_paid", won["payment_id"]),
            # Codes of a step are spent in order, and the second scan can overtake the first.
            ("approved", "declined", "code_used", None),
        )
        return "first" if won is one else "second"

    outcomes, balances = await stage.race(rounds, play)
    assert outcomes == {"first", "second"}
    assert balances == {10_000 - PIN_FREE_MAX}


@races
async def test_two_phones_and_a_wrong_pin(rounds: int, stage: Stage) -> None:
    """A wrong and a right PIN for the same version: only the first one counts."""
    till = stage.tills[0]

    async def play(wallet: TestDevice) -> str:
        async with concurrent_device(stage.urls[0], wallet) as phone:
            await phone.ask(pin_message())
            scan = scan_message(wallet.code(), amount_minor=PIN_FREE_MAX + 1)
            await till.ask(scan)
            request = await phone.notice("payment.confirmation_required", scan["payment_id"])
            right, wrong = await both(
                phone.ask(confirm_message(request, PIN)), phone.ask(confirm_message(request, OTHER_PIN))
            )
        assert right["version"] == wrong["version"] == 2
        assert right["type"] == wrong["type"]
        return str(right["type"])

    outcomes, balances = await stage.race(rounds, play)
    assert outcomes == {"payment.result", "payment.confirmation_required"}
    assert balances == {10_000, 10_000 - PIN_FREE_MAX - 1}
