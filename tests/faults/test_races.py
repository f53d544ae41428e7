"""Two server processes on one database, and two things that happen to one payment at once: exactly one legal outcome.

POS_RACE_ROUNDS=500 runs as many rounds of each race; `make test` runs fewer.
"""

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from pos_server.ledger.database import connect
from tests.end_to_end.server_process import pos_server, running_server
from tests.faults.concurrent_device import ConcurrentDevice, Message, concurrent_device
from tests.gateway.test_cancel import cancel_message
from tests.gateway.test_pin import OTHER_PIN, PIN, confirm_message, pin_message
from tests.gateway.test_refund import refund_message
from tests.support import MASTER_KEYS, Shop, TestDevice, build_shop, scan_message

pytestmark = pytest.mark.asyncio

ROUNDS = int(os.environ.get("POS_RACE_ROUNDS", "60"))
# A wallet has ten codes in a step, so each round has a wallet of its own, and rounds run side by side.
SIDE_BY_SIDE = 10
PIN_FREE_MAX = 1_000
CONFIRMATION_S = 0.5


@dataclass(slots=True)
class Stage:
    """A till at each of two servers, and a wallet for each round."""

    dsn: str
    urls: list[str]
    tills: list[ConcurrentDevice]
    shop: Shop

    async def rounds(self, play: Callable[[TestDevice], Awaitable[str]]) -> Counter[str]:
        """Play every round; returns how often each outcome came."""
        turn = asyncio.Semaphore(SIDE_BY_SIDE)

        async def one(wallet: TestDevice) -> str:
            async with turn:
                return await play(wallet)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(wallet)) for wallet in self.shop.wallets]
        outcomes = Counter(task.result() for task in tasks)
        print(f"\n{ROUNDS} rounds: {dict(outcomes)}")  # noqa: T201 - what `pytest -s` is run for
        return outcomes

    async def settled(self) -> dict[str, Any]:
        """The audit of all of it."""
        report: dict[str, Any] = json.loads((await pos_server("audit", "--json", POS_DATABASE_URL=self.dsn)).out)
        assert report["audit"] == "ok", report
        return report


@pytest_asyncio.fixture
async def stage(dsn: str) -> AsyncIterator[Stage]:
    connection = await connect(dsn, timeout_s=10)
    shop = await build_shop(connection, terminals=2, wallets=ROUNDS, balance_minor=10_000)
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
        yield Stage(dsn, [server.url for server in servers], tills, shop)


async def both(first: Awaitable[Message], second: Awaitable[Message]) -> tuple[Message, Message]:
    """Two requests at once, in either order, sometimes a little apart."""
    apart_s = random.choice([0, 0, 0.001, 0.003])

    async def late(request: Awaitable[Message]) -> Message:
        await asyncio.sleep(apart_s)
        return await request

    if random.random() < 0.5:
        one, other = await asyncio.gather(first, late(second))
    else:
        one, other = await asyncio.gather(late(first), second)
    return one, other


async def test_cancel_against_scan(stage: Stage) -> None:
    here, there = stage.tills

    async def play(wallet: TestDevice) -> str:
        scan = scan_message(wallet.code(), amount_minor=PIN_FREE_MAX)
        scanned, canceled = await both(here.ask(scan), there.ask(cancel_message(payment_id=scan["payment_id"])))
        state = await there.ask(cancel_message(payment_id=scan["payment_id"]))
        if scanned["status"] == "approved":
            # The scan was first, and the cancel gave the money back.
            assert (canceled["status"], canceled["amount_minor"]) == ("canceled", PIN_FREE_MAX)
            assert state == canceled | {"reply_to": state["reply_to"]}
            return "scan first"
        assert (scanned["status"], scanned["decline_code"]) == ("declined", "canceled")
        assert canceled["status"] == "canceled"
        assert (state["status"], state["decline_code"]) == ("declined", "canceled")
        return "cancel first"

    outcomes = await stage.rounds(play)
    assert set(outcomes) == {"scan first", "cancel first"}
    await stage.settled()
    assert await balances(stage) == {10_000}


async def test_confirm_against_expiry(stage: Stage) -> None:
    till = stage.tills[0]

    async def play(wallet: TestDevice) -> str:
        async with concurrent_device(stage.urls[1], wallet) as phone:
            assert (await phone.ask(pin_message()))["type"] == "pin.changed"
            scan = scan_message(wallet.code(), amount_minor=PIN_FREE_MAX + 1)
            pending = await till.ask(scan)
            assert pending["type"] == "payment.pending"
            asked = await phone.notice("payment.confirmation_required", scan["payment_id"])
            await asyncio.sleep(random.uniform(CONFIRMATION_S - 0.05, CONFIRMATION_S + 0.03))
            answer = await phone.ask(confirm_message(asked))
            result = await till.notice("payment.result", scan["payment_id"])
        assert (answer["status"], answer["version"]) == (result["status"], result["version"])
        assert (answer["status"], answer["version"]) in (("approved", 2), ("expired", 2))
        return str(answer["status"])

    outcomes = await stage.rounds(play)
    assert set(outcomes) == {"approved", "expired"}
    await stage.settled()
    assert await balances(stage) == {10_000, 10_000 - PIN_FREE_MAX - 1}


async def test_refund_against_refund_to_more_than_the_rest(stage: Stage) -> None:
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

    outcomes = await stage.rounds(play)
    assert set(outcomes) == {"first", "second"}
    await stage.settled()
    assert await balances(stage) == {10_000 - PIN_FREE_MAX + 600}


async def test_the_same_id_on_two_servers(stage: Stage) -> None:
    """Same id, other terminal: one is paid, the other is told that the id is taken."""
    here, there = stage.tills

    async def play(wallet: TestDevice) -> str:
        scan = scan_message(wallet.code(), amount_minor=PIN_FREE_MAX)
        one, other = await both(here.ask(scan), there.ask(scan | {"code": wallet.code()}))
        assert sorted([one.get("code", one.get("status")), other.get("code", other.get("status"))]) == [
            "approved",
            "id_reused",
        ]
        return "first" if one["type"] == "payment.result" else "second"

    outcomes = await stage.rounds(play)
    assert set(outcomes) == {"first", "second"}
    report = await stage.settled()
    assert report["payments"] == ROUNDS
    assert await balances(stage) == {10_000 - PIN_FREE_MAX}


async def test_the_same_reference_with_two_ids_on_two_servers(stage: Stage) -> None:
    here, there = stage.tills

    async def play(wallet: TestDevice) -> str:
        scans = [
            scan_message(wallet.code(), amount_minor=PIN_FREE_MAX, reference=str(wallet.device.number)) for _ in "ab"
        ]
        one, other = await both(here.ask(scans[0]), there.ask(scans[1]))
        won, lost = (one, other) if one["status"] == "approved" else (other, one)
        assert (won["status"], lost["status"], lost["decline_code"], lost["paid_by"]) in (
            ("approved", "declined", "already_paid", won["payment_id"]),
            # Codes of a step are spent in order: the second may overtake the first.
            ("approved", "declined", "code_used", None),
        )
        return "first" if won is one else "second"

    outcomes = await stage.rounds(play)
    assert set(outcomes) == {"first", "second"}
    await stage.settled()
    assert await balances(stage) == {10_000 - PIN_FREE_MAX}


async def test_two_phones_and_a_wrong_pin(stage: Stage) -> None:
    """A wrong PIN and the right one for the same version: whichever comes first, the other counts for nothing."""
    till = stage.tills[0]

    async def play(wallet: TestDevice) -> str:
        async with concurrent_device(stage.urls[0], wallet) as phone:
            await phone.ask(pin_message())
            scan = scan_message(wallet.code(), amount_minor=PIN_FREE_MAX + 1)
            await till.ask(scan)
            asked = await phone.notice("payment.confirmation_required", scan["payment_id"])
            right, wrong = await both(
                phone.ask(confirm_message(asked, PIN)), phone.ask(confirm_message(asked, OTHER_PIN))
            )
        assert right["version"] == wrong["version"] == 2
        assert right["type"] == wrong["type"]
        return str(right["type"])

    outcomes = await stage.rounds(play)
    assert set(outcomes) == {"payment.result", "payment.confirmation_required"}
    await stage.settled()


async def balances(stage: Stage) -> set[int]:
    connection = await connect(stage.dsn, timeout_s=10)
    try:
        return {row["balance_minor"] for row in await connection.fetch("select balance_minor from wallet")}
    finally:
        await connection.close()
