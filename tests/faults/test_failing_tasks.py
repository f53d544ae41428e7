"""Each long-lived task of a running server ends with an unexpected error, and its work goes on after the restart.

Two servers share a database. While a task of both fails again and again, it is down: logged, counted, and named by
`/readyz` if payments or safety depend on it. Something is left for it to do meanwhile.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import asyncpg
import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs
from websockets.asyncio.client import ClientConnection

from pos_server.core.errors import CloseCode
from pos_server.delivery import revocation
from pos_server.delivery.peer_messages import CHANNEL
from pos_server.delivery.peers import Peers
from pos_server.engine.authorizer import Authorizer
from pos_server.engine.expiry import Sweeper
from pos_server.gateway.catch_up import CatchUp
from pos_server.ledger import history
from pos_server.ledger.rollup import RollUp
from pos_server.server import RunningServer, ServerFailed, serving
from tests.api.test_health import probe
from tests.gateway.test_terminal import close_code
from tests.monitoring.observed import TOKEN, scrape
from tests.support import KEYRING, Shop, ask, logged_in, receive, scan_message, settings

pytestmark = pytest.mark.asyncio

WAIT_S = 30


@dataclass
class World:
    """Two servers, with a till at one and a wallet at the other."""

    here: RunningServer
    there: RunningServer
    till: ClientConnection
    phone: ClientConnection
    shop: Shop
    admin: asyncpg.Connection


@asynccontextmanager
async def world(dsn: str, shop: Shop, admin: asyncpg.Connection, **overrides: Any) -> AsyncIterator[World]:
    quick = {"peers_alive_s": 0.1, "revocation_check_s": 0.1, "expiry_check_s": 0.05, "metrics_token": TOKEN}
    limits = settings(**(quick | overrides))
    async with (
        serving(limits, KEYRING, dsn) as here,
        serving(limits, KEYRING, dsn) as there,
        logged_in(here.url, shop.terminals[0]) as till,
        logged_in(there.url, shop.wallets[0]) as phone,
    ):
        yield World(here, there, till, phone, shop, admin)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await condition():
            pass


async def answers(server: RunningServer, status: int, text: str) -> bool:
    return await probe(server) == (status, text)


async def is_down(server: RunningServer, task: str) -> bool:
    return await value(server, "pos_task_down", task) == 1


async def value(server: RunningServer, name: str, task: str) -> float:
    for family in text_string_to_metric_families(await scrape(server.url)):
        for sample in family.samples:
            if sample.name == name and sample.labels["task"] == task:
                return sample.value
    raise AssertionError(f"no {name} of {task}")


class Switch:
    """Makes a function raise `error` while it is set, in every server of this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, attribute: str) -> None:
        self.error: Exception | None = None
        self._function = getattr(owner, attribute)
        monkeypatch.setattr(owner, attribute, lambda *arguments: self._call(*arguments))

    def _call(self, *arguments: Any) -> Any:
        if self.error is not None:
            raise self.error
        return self._function(*arguments)


async def result(socket: ClientConnection, payment_id: str) -> dict[str, Any]:
    """Return a payment's result. A gap repeats those of other payments."""
    message = await receive(socket)
    while (message["type"], message["payment_id"]) != ("payment.result", payment_id):
        message = await receive(socket)
    return message


async def pay(world: World) -> str:
    """Make a payment and return its id."""
    scan = scan_message(world.shop.wallets[0].code())
    await world.till.send(json.dumps(scan))
    assert (await result(world.till, scan["payment_id"]))["status"] == "approved"
    return str(scan["payment_id"])


class Payment:
    """A payment during the fault is decided after it."""

    async def start(self, world: World) -> None:
        self.scan = scan_message(world.shop.wallets[0].code())
        await world.till.send(json.dumps(self.scan))

    async def finish(self, world: World) -> None:
        await result(world.till, self.scan["payment_id"])
        await pay(world)


class Push:
    """A wallet at another server is notified of a payment during the fault, and of one after it."""

    async def start(self, world: World) -> None:
        self.payment_id = await pay(world)

    async def finish(self, world: World) -> None:
        await result(world.phone, self.payment_id)
        await result(world.phone, await pay(world))


class Revocation:
    """A device that is revoked during the fault is closed after it."""

    async def start(self, world: World) -> None:
        await world.admin.execute("update wallet_device set generation = generation + 1")

    async def finish(self, world: World) -> None:
        assert await close_code(world.phone) == CloseCode.REVOKED


class Expiry:
    """A payment that waits for its PIN expires after the fault."""

    async def start(self, world: World) -> None:
        pending = await ask(world.till, scan_message(world.shop.wallets[0].code(), entry="typed"))
        assert pending["type"] == "payment.pending"
        self.payment_id = pending["payment_id"]

    async def finish(self, world: World) -> None:
        assert (await result(world.till, self.payment_id))["status"] == "expired"


class Replay:
    """A wallet receives what it has missed, because another server had a gap."""

    async def start(self, world: World) -> None:
        self.payment_id = await pay(world)
        await result(world.phone, self.payment_id)
        gap = json.dumps({"type": "gap", "from": "another server", "age_s": 60})
        await world.admin.execute("select pg_notify($1, $2)", CHANNEL, gap)

    async def finish(self, world: World) -> None:
        await result(world.phone, self.payment_id)


# The function that fails, the names of the tasks that end, whether the server needs them, and the work.
TASKS: dict[str, tuple[Any, str, list[str], bool, Callable[[], Any]]] = {
    "lanes": (Authorizer, "_take", ["lane-1", "lane-2"], True, Payment),
    "peers": (Peers, "_forget_silent", ["peers"], True, Push),
    "peers in a send": (Peers, "_stayed_in_touch", ["peers"], True, Push),
    "revocation": (revocation, "close_revoked", ["revocation"], True, Revocation),
    "leader": (Sweeper, "sweep", ["leader"], False, Expiry),
    "catch-up": (CatchUp, "_start_reading", ["catch-up"], False, Replay),
    "catch-up in a query": (history, "changed_since", ["catch-up"], False, Replay),
}


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyError("another bug")], ids=type)
@pytest.mark.parametrize("task", TASKS)
async def test_a_task_that_ends_is_seen_and_comes_back(
    task: str, error: Exception, dsn: str, shop: Shop, admin: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, attribute, names, is_needed, make_work = TASKS[task]
    work, switch = make_work(), Switch(monkeypatch, owner, attribute)
    named = f"tasks have failed and will be restarted: {', '.join(names)}\n"
    async with world(dsn, shop, admin, confirmation_s=0.2) as it:
        with capture_logs() as logs:
            switch.error = error
            await work.start(it)
            for name in names:
                await until(partial(is_down, it.here, name))
            if is_needed:
                await until(partial(answers, it.here, 503, named))
            else:
                assert await probe(it.here) == (200, "ready\n")
            switch.error = None
            await work.finish(it)
            await until(partial(answers, it.here, 200, "ready\n"))
        for name in names:
            assert await value(it.here, "pos_task_restarts_total", name) >= 1
            failed = [log for log in logs if log["event"] == "task_failed" and log["task"] == name]
            assert failed
            assert all(log["log_level"] == "error" and log["exc_info"] for log in failed)


async def test_every_task_of_a_server_is_tested_here(dsn: str, shop: Shop, admin: asyncpg.Connection) -> None:
    async with world(dsn, shop, admin) as it:
        names = {
            sample.labels["task"]
            for family in text_string_to_metric_families(await scrape(it.here.url))
            if family.name == "pos_task_down"
            for sample in family.samples
        }
    assert names == {name for _, _, tasks, _, _ in TASKS.values() for name in tasks}


async def test_a_duty_of_the_leader_that_fails_does_not_stop_the_others(
    dsn: str, shop: Shop, admin: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def is_rolled_up() -> bool:
        return bool(await admin.fetchval("select last_id = (select max(id) from transfer) from rollup_horizon"))

    expiry, roll_up = Switch(monkeypatch, Sweeper, "sweep"), Switch(monkeypatch, RollUp, "step")
    async with world(dsn, shop, admin, confirmation_s=0.2) as it:
        with capture_logs() as logs:
            roll_up.error = RuntimeError("a bug")
            work = Expiry()
            await work.start(it)
            await work.finish(it)
            await until(partial(is_down, it.here, "leader"))
            roll_up.error, expiry.error = None, RuntimeError("a bug")
            await pay(it)
            await until(is_rolled_up)
    assert {log["task"] for log in logs if log["event"] == "task_failed"} == {"leader"}


async def test_a_failure_of_the_http_server_stops_it_in_order(
    dsn: str, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process ends, so that a supervisor outside starts it again. Devices are sent away first."""
    switch = Switch(monkeypatch, uvicorn.Server, "on_tick")

    async def fail() -> None:
        async with serving(settings(), KEYRING, dsn) as server, logged_in(server.url, shop.terminals[0]) as till:
            switch.error = RuntimeError("a bug")
            async with asyncio.timeout(WAIT_S):
                await server.stop_wanted()
                assert (await receive(till))["type"] == "draining"
                assert await close_code(till) == CloseCode.DRAINING

    with capture_logs() as logs, pytest.raises(ServerFailed):
        await fail()
    assert [log["task"] for log in logs if log["event"] == "task_failed"] == ["uvicorn"]
