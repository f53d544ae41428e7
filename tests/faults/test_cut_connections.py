"""Bad Wi-Fi: connections are cut all the time, and every device still receives every result exactly once."""

import asyncio
import json
import random
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from uuid import UUID

import pytest

from pos_client import Backoff, TerminalClient, WalletClient
from pos_server.ledger.database import connect
from tests.end_to_end.server_process import pos_server, running_server
from tests.end_to_end.test_crash import credentials
from tests.faults.chaos_proxy import chaos_proxy
from tests.support import MASTER_KEYS, build_shop
from tests.tiers import short_and_long

CUT_SHARE = 0.04
SETTLE_S = 20

pytestmark = pytest.mark.asyncio


@dataclass(frozen=True, slots=True)
class Storm:
    """The number of pairs, of sales per pair (a wallet has ten codes per 30 s), and the minimum of cuts per kind."""

    pairs: int
    sales: int
    cuts_min: int


class Pair:
    """A till and a wallet on separate connections, with the results and notices that they received."""

    def __init__(self, till: TerminalClient, wallet: WalletClient) -> None:
        self.till = till
        self.wallet = wallet
        self.results: dict[UUID, str] = {}
        self.notices: Counter[UUID] = Counter()
        self.outcomes: dict[UUID, str] = {}

    async def sell(self, sales: int) -> None:
        for number in range(sales):
            code = await self.wallet.next_code()
            reference = f"{self.till.credentials.number}-{number}"
            result = await self.till.scan(code=code.digits, amount_minor=7, reference=reference, timeout_s=SETTLE_S)
            assert result.payment_id not in self.results
            self.results[result.payment_id] = result.decline_code or result.status

    async def listen(self) -> None:
        while True:
            notice = await self.wallet.notice()
            self.notices[notice.payment_id] += 1
            self.outcomes[notice.payment_id] = notice.decline_code or notice.status

    def missing(self) -> set[UUID]:
        return self.results.keys() - self.notices.keys()


@short_and_long("storm", Storm(pairs=30, sales=8, cuts_min=1), Storm(pairs=100, sales=25, cuts_min=80))
async def test_every_scan_ends_in_one_result_at_the_till_and_at_the_wallet(storm: Storm, dsn: str) -> None:
    connection = await connect(dsn, timeout_s=10)
    shop = await build_shop(connection, terminals=storm.pairs, wallets=storm.pairs)
    await connection.close()
    backoff = Backoff(base_s=0.05, cap_s=0.5)
    async with AsyncExitStack() as stack:
        variables = {"POS_DATABASE_URL": dsn, "POS_MASTER_KEYS": MASTER_KEYS}
        server = await stack.enter_async_context(running_server(**variables))
        port = int(server.url.rpartition(":")[2])
        proxy = await stack.enter_async_context(chaos_proxy(port, random.Random(7), cut_share=CUT_SHARE))
        pairs = []
        for terminal, customer in zip(shop.terminals, shop.wallets, strict=True):
            till = TerminalClient(credentials(terminal, proxy.url), backoff=backoff)
            wallet = WalletClient(credentials(customer, proxy.url), backoff=backoff)
            await stack.enter_async_context(till)
            await stack.enter_async_context(wallet)
            pairs.append(Pair(till, wallet))
        # A device that was never connected has no point to resume from.
        await asyncio.gather(*(client.ready() for pair in pairs for client in (pair.till, pair.wallet)))
        listeners = [asyncio.create_task(pair.listen()) for pair in pairs]
        await asyncio.gather(*(pair.sell(storm.sales) for pair in pairs))
        proxy.on = False
        clock = asyncio.get_running_loop().time
        settled_s = clock() + SETTLE_S
        while any(pair.missing() for pair in pairs) and clock() < settled_s:  # noqa: ASYNC110 - a hundred listeners
            await asyncio.sleep(0.05)
        for listener in listeners:
            listener.cancel()
        assert await server.stop() == 0

    results = {payment_id: outcome for pair in pairs for payment_id, outcome in pair.results.items()}
    notices = sum((pair.notices for pair in pairs), Counter())
    missing = {pair.till.credentials.number: pair.missing() for pair in pairs if pair.missing()}
    assert not missing, f"{len(missing)} wallets have not received every notice"
    assert notices == Counter(results.keys())
    assert {payment_id: outcome for pair in pairs for payment_id, outcome in pair.outcomes.items()} == results
    # A phone that has not yet received the notice of its last payment still shows the used code.
    assert set(results.values()) <= {"approved", "code_used"}
    print(f"\n{len(results)} sales, cuts: {proxy.cuts}")  # noqa: T201 - shown by `pytest -s`
    assert min(proxy.cuts.values()) >= storm.cuts_min, proxy.cuts
    audit = await pos_server("audit", "--json", POS_DATABASE_URL=dsn)
    report = json.loads(audit.out)
    assert (report["audit"], report["payments"]) == ("ok", len(results))
