"""A market goes on selling while servers, Postgres and connections are killed, ended and stalled, many times.

At the end, the journals of the tills are compared with the ledger, every device has every notice, and no log has an
error that nobody handled. `pytest -s` prints the recovery times, which docs/operations.md states.
"""

import asyncio
import json
import os
import random
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from loadtest.shared.seed import MASTER_KEYS, Shop, seed_pins, seed_shop
from pos_server.ledger.database import connect
from pos_server.postgres.embedded import EmbeddedPostgres
from tests.end_to_end.server_process import data_directory, pos_server
from tests.faults.drill_faults import RECOVERY_TIMEOUT_S, DrillFaults, Servers
from tests.faults.drill_logs import findings_of_postgres, findings_of_server
from tests.faults.market import PIN_FREE_MINOR_MAX, Market, open_market
from tests.faults.market_check import check_ledger, missing_notices
from tests.faults.own_postgres import OwnPostgres
from tests.support import settings
from tests.tested_postgres import BIN_DIR
from tests.tiers import LONG as LONG_MARK

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]

TILLS = 40
SLOTS = 10
OPENING_MINOR = 1_000_000
VARIABLES = {
    "POS_MASTER_KEYS": MASTER_KEYS,
    "POS_PIN_FREE_MINOR_MAX": str(PIN_FREE_MINOR_MAX),
    "POS_DRAIN_RECONNECT_WITHIN_S": "1",
}


@dataclass(frozen=True, slots=True)
class Drill:
    """Numbers of faults by kind, and the orders per second meanwhile.

    `wallets` have SLOTS devices each, and a device has ten codes in 30 s.
    """

    faults: Mapping[str, int]
    rate: float
    wallets: int
    answers_between: int


SHORT = Drill(
    {
        "kill -9 of a server": 1,
        "kill -9 of the postmaster": 1,
        "kill -9 of a backend": 1,
        "terminated backend": 1,
        "stalled server": 1,
        "SIGTERM of a server": 1,
    },
    rate=100,
    wallets=40,
    answers_between=30,
)
# Four rounds together have 64 kills of a server, 16 of the postmaster, and so on. One drill with all faults would take
# longer than a test may.
LONG = Drill(
    {
        "kill -9 of a server": 8,
        "kill -9 of the postmaster": 2,
        "kill -9 of a backend": 1,
        "terminated backend": 2,
        "stalled server": 1,
        "stalled Postgres": 1,
        "SIGTERM of a server": 1,
    },
    rate=250,
    wallets=120,
    answers_between=400,
)


# `DRILL_ROUNDS=4 pytest -m long tests/faults/test_kills.py` is the whole drill; `make test-all` has one of its rounds.
ROUNDS = int(os.environ.get("DRILL_ROUNDS", "1"))


def drills(short_servers: int) -> pytest.MarkDecorator:
    """Run a test in a short form and in long ones, with so many servers; in every other round with the other number."""
    forms = [pytest.param(SHORT, short_servers, id="short")]
    for number in range(ROUNDS):
        count = short_servers if number % 2 == 0 else 3 - short_servers
        forms.append(pytest.param(LONG, count, id=f"long-{number + 1}", marks=LONG_MARK))
    return pytest.mark.parametrize(("drill", "server_count"), forms)


async def seed(dsn: str, drill: Drill) -> Shop:
    connection = await connect(dsn, timeout_s=10, role=None)
    try:
        shop = await seed_shop(
            connection, terminals=TILLS, wallets=drill.wallets, balance_minor=OPENING_MINOR, devices=SLOTS
        )
        await seed_pins(connection, [wallet.device.number for wallet in shop.wallets], settings())
        return shop
    finally:
        await connection.close()


async def play(drill: Drill, market: Market, faults: DrillFaults) -> str:
    """Let all faults happen in random order, each amid payments. Returns a table of the recovery times."""
    seed_number = random.randrange(10**6)
    kinds = [kind for kind, count in drill.faults.items() for _ in range(count)]
    random.Random(seed_number).shuffle(kinds)
    recoveries: dict[str, list[float]] = defaultdict(list)
    pauses: dict[str, list[float]] = defaultdict(list)
    calm_s, calm_answers = 0.0, 0
    started_s = time.monotonic()
    for number, kind in enumerate(kinds):
        calm_since_s, before = time.monotonic(), len(market.answers)
        await market.more_answers(drill.answers_between, RECOVERY_TIMEOUT_S)
        if number % 2:  # every other fault happens while devices still return from the last one
            await market.all_caught_up(RECOVERY_TIMEOUT_S)
        calm_s, calm_answers = calm_s + time.monotonic() - calm_since_s, calm_answers + len(market.answers) - before
        fault, url = faults.of_kind(kind)
        begun = len(market.answers)
        fault_s = await fault()
        recoveries[kind].append(await market.answer_after(fault_s, url, RECOVERY_TIMEOUT_S))
        times_s = [answered_s for _, _, answered_s in market.answers[begun - 1 :]]
        pauses[kind].append(max(after - before for before, after in pairwise(times_s)))
    seconds, answers = time.monotonic() - started_s, len(market.answers)
    rates = f"{answers / seconds:.0f} answers/s, {calm_answers / calm_s:.0f} between faults"
    return "\n".join(
        [
            f"{len(kinds)} faults in {seconds:.0f} s (order {seed_number}), {rates}",
            f"{'fault':<26} count  first answer p50 / max  longest pause p50 / max",
            *(
                f"{kind:<26} {len(each):>5}  {_p50_max(each)}  {_p50_max(pauses[kind])}"
                for kind, each in recoveries.items()
            ),
        ]
    )


def _p50_max(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):>10.2f} s {max(seconds):>8.2f} s"


async def check(market: Market, servers: Servers, dsn: str, postgres_log: str, **audit: str) -> None:
    """Compare journals, ledger, notices and logs. All differences are reported together."""
    connection = await connect(dsn, timeout_s=10, role=None)
    try:
        differences = await check_ledger(market, connection, OPENING_MINOR)
        missing = await missing_notices(market, connection)
    finally:
        await connection.close()
    audited = await pos_server("audit", "--json", **audit)
    findings = {
        "ledger": {name: count for name, count in differences.items() if count},
        "notices": missing[:5],
        "protocol": Counter(market.devices.problems).most_common(5),
        "servers": findings_of_server(servers.log),
        "postgres": findings_of_postgres(postgres_log),
        "audit": [] if audited.status == 0 else [audited.out, audited.err],
    }
    assert not {name: found for name, found in findings.items() if found}, json.dumps(findings, indent=2, default=str)
    assert market.outcomes.keys() <= {"approved", "canceled", "expired", "code_expired", "code_used"}
    # Otherwise the drill would prove little.
    assert market.outcomes["approved"] > market.outcomes.total() / 2


async def hold(
    drill: Drill, servers: Servers, faults: DrillFaults, postgres_log: Callable[[], str], directory: Path, **audit: str
) -> None:
    """Hold a drill with running servers: seed a shop, open the market, let the faults happen, and check everything.

    `directory` keeps the journals and the logs.
    """
    shop = await seed(faults.dsn, drill)
    async with open_market(shop, servers.urls, directory, rate=drill.rate, slots=SLOTS) as market:
        try:
            recoveries = await play(drill, market, faults)
        finally:
            (directory / "servers.log").write_text(servers.log)
            (directory / "postgres.log").write_text(postgres_log())
        await market.close()
        await market.reconnect_all(RECOVERY_TIMEOUT_S)
        pages = sum(device.pages for device in (*market.tills, *market.wallets))
        print(f"\n{recoveries}\n{dict(market.outcomes)}, {pages} pages of replays")  # noqa: T201 - shown by `pytest -s`
        await check(market, servers, faults.dsn, postgres_log(), **audit)


@drills(short_servers=1)
async def test_an_embedded_postgres_loses_nothing(drill: Drill, server_count: int, tmp_path: Path) -> None:
    async with data_directory() as data_dir, AsyncExitStack() as stack:
        servers = Servers(stack, server_count, "--data-dir", data_dir, **VARIABLES)
        await servers.start_all()
        postgres = EmbeddedPostgres(data_dir, bin_dir=BIN_DIR)
        dsn = await asyncio.to_thread(postgres.start)  # joins the servers' Postgres, only to learn its address
        await asyncio.to_thread(postgres.stop)
        faults = DrillFaults(servers, dsn, data_dir / "postgres")

        def log() -> str:
            return "".join(path.read_text() for path in data_dir.glob("postgres.log*"))

        await hold(drill, servers, faults, log, tmp_path, POS_DATA_DIR=str(data_dir))


@drills(short_servers=2)
async def test_an_own_postgres_loses_nothing(drill: Drill, server_count: int, tmp_path: Path) -> None:
    with OwnPostgres() as postgres:
        async with AsyncExitStack() as stack:
            servers = Servers(stack, server_count, POS_DATABASE_URL=postgres.dsn, **VARIABLES)
            await servers.start_all()
            faults = DrillFaults(servers, postgres.dsn, postgres.cluster, postgres.start)
            await hold(drill, servers, faults, lambda: postgres.log, tmp_path, POS_DATABASE_URL=postgres.dsn)
