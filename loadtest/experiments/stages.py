"""Measure the CPU of each stage of a payment in isolation, for the table in docs/benchmarks.md.

    python -m loadtest.experiments.stages [--payments 20000] [--batch 100] [--json FILE]

Sales pass through the functions of the server in its order, with a Postgres of their own. Every stage runs for a whole
batch. Its CPU time is that of this process and of the one Postgres session, in nanoseconds from Linux's accounting. Not
included are the event loop, socket reads, asyncio's tasks, and the other processes of Postgres (log writer,
checkpointer).
"""

import argparse
import asyncio
import json
import socket
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import uuid_utils
import uvloop
from websockets.frames import Frame, Opcode, apply_mask  # type: ignore[attr-defined]

from loadtest.shared.codes import Codes
from loadtest.shared.messages import scan_message
from loadtest.shared.process import new_ledger, print_progress
from loadtest.shared.seed import KEYRING, Shop, seed_shop
from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.money import MAX_AMOUNT_MINOR
from pos_server.core.payments.decide import decide
from pos_server.core.payments.operations import Decided, Outcome, Scan
from pos_server.core.payments.rules import Limits, Rules
from pos_server.core.protocol.client_messages import PaymentScan
from pos_server.core.protocol.codec import encode
from pos_server.core.protocol.notices import notices
from pos_server.core.protocol.session import Session
from pos_server.core.texts import DEFAULT_LANGUAGE
from pos_server.engine.authorizer import Authorizer
from pos_server.engine.batch_record import BatchRecord
from pos_server.gateway.frames import split, text_frame
from pos_server.ledger.database import connect
from pos_server.ledger.payments import HouseAccounts, apply_changes, load_snapshot
from pos_server.limits import AuthorizerLimits
from pos_server.telemetry.metrics import Metrics

_TILLS = 100
_BALANCE_MINOR = 10**9
_RULES = Rules(Limits(*[MAX_AMOUNT_MINOR] * len(Limits.__dataclass_fields__)))
_LIMITS = AuthorizerLimits(
    queue_operations_max=10**6,
    device_operations_max=10**6,
    lanes=1,
    batch_operations_max=10**6,
    batch_attempts_max=1,
    batch_timeout_s=10,
    operation_deadline_s=60,
    connect_timeout_s=10,
)


class Costs:
    """CPU nanoseconds by stage, of this process and of a Postgres session."""

    def __init__(self, backend_pid: int) -> None:
        self._schedstat = Path(f"/proc/{backend_pid}/schedstat")
        self.own_ns: dict[str, int] = defaultdict(int)
        self.postgres_ns: dict[str, int] = defaultdict(int)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        start_postgres_ns, start_ns = self._session_ns(), time.process_time_ns()
        yield
        self.own_ns[stage] += time.process_time_ns() - start_ns
        self.postgres_ns[stage] += self._session_ns() - start_postgres_ns

    def _session_ns(self) -> int:
        return int(self._schedstat.read_text().split()[0])


class Peer:
    """A socket pair in this process. The remote end is read outside the measurements."""

    def __init__(self, transport: asyncio.Transport, remote: socket.socket) -> None:
        self.transport = transport
        self._remote = remote

    @classmethod
    async def open(cls) -> "Peer":
        local, remote = socket.socketpair()
        remote.setblocking(False)
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(asyncio.Protocol, local)
        return cls(transport, remote)

    def drain(self) -> None:
        try:
            while self._remote.recv(1 << 20):
                pass
        except BlockingIOError:
            pass


def _frames(shop: Shop, customers: list[Codes], batch: int, first: int) -> list[bytes]:
    frames = []
    for number in range(first, first + batch):
        code = customers[number % len(customers)].next(time.time())
        if code is None:
            raise SystemExit("the wallets have run out of codes: use fewer --payments")
        message = scan_message(code, str(uuid_utils.uuid7()), f"order-{number}", 250)
        frames.append(Frame(Opcode.TEXT, json.dumps(message).encode()).serialize(mask=True))
    return frames


def _scan(message: PaymentScan, terminal_number: int, merchant_id: int) -> Scan:
    return Scan(
        payment_id=message.payment_id,
        terminal_number=terminal_number,
        merchant_id=merchant_id,
        reference=message.reference,
        amount_minor=message.amount_minor,
        currency=message.currency,
        code=message.code,
    )


async def _one_batch(
    costs: Costs,
    connection: asyncpg.Connection,
    house: HouseAccounts,
    shop: Shop,
    frames: list[bytes],
    peer: Peer,
    metrics: Metrics,
) -> None:
    tills = [device.device.number for device in shop.terminals]
    session = Session(DeviceKind.TERMINAL)
    session.authenticated()
    queue = Authorizer("", KEYRING, _RULES, _LIMITS, _reject_outcome, day_start_ms=lambda now_ms: 0)
    with costs.measure("frame"):
        texts = [
            apply_mask(frame[start:], frame[start - 4 : start]).decode()
            for data in frames
            for start, frame in split(data, 0)[0]
        ]
    with costs.measure("check"):
        scans = []
        for index, text in enumerate(texts):
            message = session.receive(text)
            if not isinstance(message, PaymentScan):
                raise AssertionError("all messages are scans")
            scans.append(_scan(message, tills[index % len(tills)], shop.merchant_id))
    with costs.measure("queue"):
        for scan in scans:
            queue.submit(scan, "m1")
    with costs.measure("load"):
        snapshot = await load_snapshot(connection, scans, house)
    now_ms = time.time_ns() // 1_000_000
    with costs.measure("decide"):
        outcomes, changes = decide(scans, snapshot, KEYRING, now_ms, _RULES, day_start_ms=0)
    with costs.measure("apply"):
        await apply_changes(connection, changes, now_ms)
    if not all(isinstance(outcome, Decided) and not outcome.payment.decline_code for outcome in outcomes):
        raise SystemExit(f"not approved: {outcomes[0]}")
    with costs.measure("encode"):
        notice_texts = [
            encode(notice.render(DEFAULT_LANGUAGE)) for outcome in outcomes for notice in notices(outcome, "message-1")
        ]
    # In chunks, because a socket's buffer is bounded.
    for start in range(0, len(notice_texts), 50):
        with costs.measure("send"):
            for text in notice_texts[start : start + 50]:
                peer.transport.write(text_frame(text.encode()))
                # One system call each, as for separate sockets.
                await asyncio.sleep(0)
        peer.drain()
    # The engine's batch record and the metrics made from it.
    with costs.measure("count"):
        record = BatchRecord(time.monotonic(), time.monotonic(), time.monotonic(), time.monotonic())
        record.outcomes = outcomes
        record.accepted_s = [record.loading_s for _ in outcomes]
        for _ in outcomes:
            record.handed_s.append(time.monotonic())
        metrics.batch(record)


def _reject_outcome(outcome: Outcome, reply_to: str | None) -> None:
    raise AssertionError("the queue decides nothing here")


async def measure(payments: int, batch: int) -> dict[str, dict[str, float]]:
    """Return CPU microseconds per payment by stage, for `server` and `postgres`."""
    async with new_ledger() as (dsn, _):
        owner = await connect(dsn, timeout_s=30, role=None)
        shop = await seed_shop(
            owner, terminals=_TILLS, wallets=max(batch, payments // 10), balance_minor=_BALANCE_MINOR
        )
        await owner.execute("vacuum analyze")
        await owner.close()
        connection = await connect(dsn, timeout_s=30)
        costs, house = Costs(await connection.fetchval("select pg_backend_pid()")), HouseAccounts()
        customers = [Codes(device) for device in shop.wallets]
        peer, metrics = await Peer.open(), Metrics()
        # The first batches prepare plans and fill caches.
        warm_up = 10 * batch
        for first in range(0, payments + warm_up, batch):
            if first == warm_up:
                costs.own_ns.clear()
                costs.postgres_ns.clear()
            await _one_batch(costs, connection, house, shop, _frames(shop, customers, batch, first), peer, metrics)
        await connection.close()
        peer.transport.close()
    return {
        stage: {
            "server": round(own_ns / payments / 1000, 1),
            "postgres": round(costs.postgres_ns[stage] / payments / 1000, 1),
        }
        for stage, own_ns in costs.own_ns.items()
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="CPU of each stage of a payment")
    parser.add_argument("--payments", type=int, default=20_000, help="payments (default 20000)")
    parser.add_argument("--batch", type=int, default=100, help="payments per batch (default 100)")
    parser.add_argument("--json", type=Path, help="write the table to this file")
    arguments = parser.parse_args()
    payments = arguments.payments - arguments.payments % arguments.batch
    stages = uvloop.run(measure(payments, arguments.batch))
    print_progress(f"{'stage':10}{'server µs':>12}{'Postgres µs':>14}   per payment, in batches of {arguments.batch}")
    for stage, cost in stages.items():
        print_progress(f"{stage:10}{cost['server']:12.1f}{cost['postgres']:14.1f}")
    total = {part: sum(cost[part] for cost in stages.values()) for part in ("server", "postgres")}
    print_progress(f"{'all':10}{total['server']:12.1f}{total['postgres']:14.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(stages, indent=2) + "\n")


if __name__ == "__main__":
    main()
