"""Compare the journals of a market with the ledger: nothing lost, nothing doubled, every notice delivered."""

from collections import defaultdict
from dataclasses import dataclass, field

import asyncpg

from tests.faults.market import Market

ROWS = """
select id::text, status, version, amount_minor, wallet_number, terminal_number from payment where purpose = 'sale'
"""
MOVED = """
select p.id::text, t.kind, count(*) as transfers, sum(t.amount_minor)::bigint as amount_minor
from payment p join transfer t on t.source_id = p.id where p.purpose = 'sale' group by p.id, t.kind
"""
REFUNDS = """
select r.id::text, r.payment_id::text, r.amount_minor, count(t.id) as transfers,
    sum(t.amount_minor)::bigint as moved_minor
from refund r left join transfer t on t.source_id = r.id and t.kind = 'refund' group by r.id, r.merchant_id
"""


@dataclass(slots=True)
class Order:
    """An order as its till knows it, from the journal alone."""

    amount_minor: int
    wallet_number: int
    status: str = "unknown"
    version: int = 0
    refunds_sent: dict[str, int] = field(default_factory=dict)
    refunds_done: dict[str, int] = field(default_factory=dict)


def orders_of(market: Market) -> dict[str, Order]:
    """Read the journals. The state of an order is its answer with the greatest version."""
    orders: dict[str, Order] = {}
    for till in market.tills:
        for line in till.journal.read():
            payment_id = line["payment_id"]
            if line["event"] == "scan":
                assert payment_id not in orders
                orders[payment_id] = Order(line["amount_minor"], line["wallet_number"])
                continue
            order = orders[payment_id]
            if line["event"] == "result" and line["version"] >= order.version:
                order.status, order.version = line["status"], line["version"]
            elif line["event"] == "refund":
                order.refunds_sent[line["refund_id"]] = line["amount_minor"]
            elif line["event"] == "refunded":
                order.refunds_done[line["refund_id"]] = line["amount_minor"]
    return orders


async def check_ledger(market: Market, connection: asyncpg.Connection, opening_minor: int) -> dict[str, int]:
    """Compare journals and ledger. Returns how many payments are lost, doubled or in another state; all must be 0."""
    orders = orders_of(market)
    rows = {row["id"]: row for row in await connection.fetch(ROWS)}
    moved: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    for row in await connection.fetch(MOVED):
        moved[row["id"]][row["kind"]] = (row["transfers"], row["amount_minor"])
    refunds = {row["id"]: row for row in await connection.fetch(REFUNDS)}

    once = {payment_id: (1, order.amount_minor) for payment_id, order in orders.items()}
    lost = [payment_id for payment_id in orders if payment_id not in rows]
    foreign = [payment_id for payment_id in rows if payment_id not in orders]
    different = [
        payment_id
        for payment_id, order in orders.items()
        if payment_id in rows and not _is_same(order, rows[payment_id], moved[payment_id], once[payment_id])
    ]
    sent = {refund_id: amount for order in orders.values() for refund_id, amount in order.refunds_sent.items()}
    done = {refund_id: amount for order in orders.values() for refund_id, amount in order.refunds_done.items()}
    wrong_refunds = [
        refund_id
        for refund_id in sent.keys() | done.keys() | refunds.keys()
        if not (row := refunds.get(refund_id))
        or not (sent.get(refund_id) == done.get(refund_id) == row["amount_minor"] == row["moved_minor"])
        or row["transfers"] != 1
    ]
    balances = {wallet.number: opening_minor for wallet in market.wallets}
    for order in orders.values():
        if order.status == "approved":
            balances[order.wallet_number] += sum(order.refunds_done.values()) - order.amount_minor
    stored = dict(await connection.fetch("select number, balance_minor from wallet"))
    wrong_balances = [number for number, balance in balances.items() if stored[number] != balance]
    return {
        "lost": len(lost),
        "doubled or foreign": len(foreign),
        "in another state": len(different),
        "refunds": len(wrong_refunds),
        "balances": len(wrong_balances),
    }


def _is_same(order: Order, row: asyncpg.Record, moved: dict[str, tuple[int, int]], once: tuple[int, int]) -> bool:
    if order.status != row["status"] or row["amount_minor"] not in (order.amount_minor, None):
        return False
    if order.status == "approved":
        return moved == {"payment": once} and row["wallet_number"] == order.wallet_number
    if order.status == "canceled":
        return moved in ({}, {"payment": once, "cancel": once})
    return order.status in ("declined", "expired") and not moved


async def missing_notices(market: Market, connection: asyncpg.Connection) -> list[str]:
    """Return the payments whose state is not the one that their till or their wallet has received last."""
    missing = []
    tills = {till.number: till for till in market.tills}
    wallets = {wallet.number: wallet for wallet in market.wallets}
    for row in await connection.fetch(ROWS):
        for device in (tills.get(row["terminal_number"]), wallets.get(row["wallet_number"])):
            if device is None:
                continue
            latest = device.latest.get(row["id"])
            if latest is None or latest["version"] != row["version"]:
                version = None if latest is None else latest["version"]
                missing.append(f"{type(device).__name__} {device.number}: {dict(row)}, received version {version}")
    return missing
