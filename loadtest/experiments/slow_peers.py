"""Measure the effect of slow peers on others: 5 of 200 wallets stop reading, and the others' latency is compared.

    python -m loadtest.experiments.slow_peers [--seconds 20] [--rounds 3] [--json FILE]

Rounds with and without slow peers alternate on one server. Both kinds of round have the same traffic: payments of all
wallets at a steady rate, and repeats that flood the five. In one kind the five stop reading. Latency is from the
intended time of a scan to the notice at its wallet, for the other 195 only. All traffic stays on loopback.
"""

import argparse
import asyncio
import itertools
import json
import socket as sockets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import uuid_utils.compat
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from loadtest.shared.codes import Codes
from loadtest.shared.histogram import nearest_rank
from loadtest.shared.messages import scan_message
from loadtest.shared.process import Server, print_progress, seeded_pos_server
from loadtest.shared.seed import Device, Shop
from loadtest.shared.session import open_session
from pos_server.core.errors import CloseCode

WALLETS = 200
SLOW = 5
TILLS = 10
SCANS_PER_S = 60
FLOOD_PER_S = 400
_SLOW_RECEIVE_BUFFER_BYTES = 16 * 1024


@dataclass(slots=True)
class Customer:
    """A wallet: its codes, the intended times of its open payments by id, and its latencies."""

    device: Device
    codes: Codes
    intended_s: dict[str, float] = field(default_factory=dict)
    latencies_s: list[float] = field(default_factory=list)

    async def listen(self, socket: ClientConnection) -> None:
        async for frame in socket:
            intended_s = self.intended_s.pop(json.loads(frame)["payment_id"], None)
            if intended_s is not None:
                self.latencies_s.append(time.perf_counter() - intended_s)


async def play_round(
    server: Server, shop: Shop, codes: list[Codes], seconds: float, *, slow: bool, orders: Iterator[int]
) -> tuple[list[float], list[int]]:
    """Play a round on new connections. Returns the others' latencies and the close codes of the slow peers.

    `codes` are those of the wallets, the same objects in all rounds.
    """
    customers = [Customer(device, wallet_codes) for device, wallet_codes in zip(shop.wallets, codes, strict=True)]
    tills = [await open_session(server.url, device) for device in shop.terminals]
    drains = [asyncio.create_task(_discard(till)) for till in tills]
    phones = [await open_session(server.url, customer.device) for customer in customers[SLOW:]]
    listeners = [
        asyncio.create_task(customer.listen(phone)) for customer, phone in zip(customers[SLOW:], phones, strict=True)
    ]
    slow_phones = [await _open_slow_phone(server, customer.device, slow=slow) for customer in customers[:SLOW]]
    readers = [] if slow else [asyncio.create_task(customers[i].listen(slow_phones[i])) for i in range(SLOW)]
    end_s = time.perf_counter() + seconds
    await asyncio.gather(
        _sell(tills[:-SLOW], customers[SLOW:], end_s, orders), _flood(tills[-SLOW:], customers[:SLOW], end_s, orders)
    )
    await asyncio.sleep(0.5)
    close_codes = [await _close_code(phone) for phone in slow_phones] if slow else []
    for task in (*drains, *listeners, *readers):
        task.cancel()
    await asyncio.gather(*drains, *listeners, *readers, return_exceptions=True)
    for connection in (*tills, *phones, *slow_phones):
        connection.transport.abort()
    missing_count = sum(len(customer.intended_s) for customer in customers[SLOW:])
    if missing_count:
        raise SystemExit(f"{missing_count} notices did not arrive")
    return [latency for customer in customers[SLOW:] for latency in customer.latencies_s], close_codes


async def _sell(tills: list[ClientConnection], customers: list[Customer], end_s: float, orders: Iterator[int]) -> None:
    start_s = time.perf_counter()
    for number, customer in enumerate(itertools.cycle(customers)):
        intended_s = start_s + number / SCANS_PER_S
        if intended_s >= end_s:
            return
        await asyncio.sleep(max(0.0, intended_s - time.perf_counter()))
        code = customer.codes.next(time.time())
        if code is None:
            continue
        payment_id = uuid_utils.compat.uuid7()
        customer.intended_s[str(payment_id)] = intended_s
        await tills[number % len(tills)].send(json.dumps(scan_message(code, str(payment_id), f"o{next(orders)}")))


async def _flood(tills: list[ClientConnection], customers: list[Customer], end_s: float, orders: Iterator[int]) -> None:
    """Repeat one payment of each customer: the server answers every repeat and notifies the wallet again."""
    repeats = []
    for till, customer in zip(tills, customers, strict=True):
        code = None
        while code is None:
            code = customer.codes.next(time.time())
            if code is None:
                await asyncio.sleep(1)
        repeats.append((till, json.dumps(scan_message(code, str(uuid_utils.compat.uuid7()), f"o{next(orders)}"))))
    start_s = time.perf_counter()
    for number, (till, message) in enumerate(itertools.cycle(repeats)):
        intended_s = start_s + number / FLOOD_PER_S
        if intended_s >= end_s:
            return
        await asyncio.sleep(max(0.0, intended_s - time.perf_counter()))
        await till.send(message)


async def _open_slow_phone(server: Server, device: Device, *, slow: bool) -> ClientConnection:
    """Connect a phone; a `slow` one has a small receive buffer and queue, and is not read."""
    options: dict[str, Any] = {}
    if slow:
        host, _, port = server.url.removeprefix("http://").rpartition(":")
        raw = sockets.socket()
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, _SLOW_RECEIVE_BUFFER_BYTES)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, (host, int(port)))
        options = {"sock": raw, "max_queue": 1}
    return await open_session(server.url, device, **options)


async def _close_code(socket: ClientConnection) -> int:
    """Read the remaining messages and return the server's close code."""
    try:
        async with asyncio.timeout(10):
            while True:
                await socket.recv()
    except (ConnectionClosed, TimeoutError):
        return socket.close_code or 0


async def _discard(socket: ClientConnection) -> None:
    async for _ in socket:
        pass


async def run(seconds: float, rounds: int) -> dict[str, Any]:
    """Alternate the two kinds of round and return the figures, medians over the pairs."""
    orders = itertools.count(1)
    ratios, close_codes, pairs = [], list[int](), []
    limits = {"POS_MESSAGES_PER_S": "1000", "POS_MESSAGES_BURST": "1000"}
    async with seeded_pos_server(terminals=TILLS, wallets=WALLETS, balance_minor=1_000_000, **limits) as (server, shop):
        print_progress("warming up …")
        codes = [Codes(device) for device in shop.wallets]
        await play_round(server, shop, codes, min(seconds, 5), slow=False, orders=orders)
        start_kib = server.resident_kib()
        for number in range(rounds):
            healthy_s, _ = await play_round(server, shop, codes, seconds, slow=False, orders=orders)
            slow_s, slow_close_codes = await play_round(server, shop, codes, seconds, slow=True, orders=orders)
            close_codes += slow_close_codes
            pairs.append((nearest_rank(healthy_s, 99) * 1000, nearest_rank(slow_s, 99) * 1000))
            ratios.append(pairs[-1][1] / pairs[-1][0])
            print_progress(
                f"round {number + 1}: p99 {pairs[-1][0]:.2f} ms with all reading, {pairs[-1][1]:.2f} ms with slow ones"
            )
        growth_kib = server.resident_kib() - start_kib
    return {
        "p99_ms_all_reading": round(median(pair[0] for pair in pairs), 2),
        "p99_ms_with_slow": round(median(pair[1] for pair in pairs), 2),
        "p99_ratio": round(median(ratios), 2),
        "slow_closed_with_slow_code": sum(code == CloseCode.SLOW_CONSUMER for code in close_codes),
        "slow_peers": SLOW * rounds,
        "server_memory_growth_kib": growth_kib,
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="effect of peers that stop reading on the latency of others")
    parser.add_argument("--seconds", type=float, default=20, help="length of a round (default 20)")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of rounds (default 3)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    text = json.dumps(asyncio.run(run(arguments.seconds, arguments.rounds)), indent=2)
    print(text)  # noqa: T201
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
