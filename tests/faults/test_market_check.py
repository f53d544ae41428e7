"""The comparison of journals and ledger names every kind of difference. The rows are literal, without a Postgres."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.faults import market_check
from tests.faults.market_check import check_ledger, missing_notices

pytestmark = pytest.mark.asyncio

OPENING_MINOR = 1_000
JOURNAL = [
    {"event": "scan", "payment_id": "paid", "amount_minor": 100, "wallet_number": 7},
    {"event": "result", "payment_id": "paid", "version": 1, "status": "approved"},
    {"event": "refund", "payment_id": "paid", "refund_id": "back", "amount_minor": 30},
    {"event": "refunded", "payment_id": "paid", "refund_id": "back", "amount_minor": 30},
    {"event": "scan", "payment_id": "declined", "amount_minor": 200, "wallet_number": 7},
    {"event": "result", "payment_id": "declined", "version": 1, "status": "declined"},
]
PAID = {"id": "paid", "status": "approved", "version": 2, "amount_minor": 100}
DECLINED = {"id": "declined", "status": "declined", "version": 1, "amount_minor": 200}
PARTIES = {"wallet_number": 7, "terminal_number": 1}
MOVE = {"id": "paid", "kind": "payment", "transfers": 1, "amount_minor": 100}
REFUND = {"id": "back", "payment_id": "paid", "amount_minor": 30, "transfers": 1, "moved_minor": 30}
ROWS = {
    market_check.ROWS: [PAID | PARTIES, DECLINED | PARTIES],
    market_check.MOVED: [MOVE],
    market_check.REFUNDS: [REFUND],
    "select number, balance_minor from wallet": [(7, 930)],
}
NO_DIFFERENCE = {"lost": 0, "doubled or foreign": 0, "in another state": 0, "refunds": 0, "balances": 0}


class Ledger:
    """A connection that answers each query with literal rows."""

    def __init__(self, **changes: list[Any]) -> None:
        self._rows = ROWS | {getattr(market_check, name, name): rows for name, rows in changes.items()}

    async def fetch(self, query: str) -> list[Any]:
        return self._rows[query]


def market(*received: tuple[str, int]) -> Any:
    """A market with a till and a wallet, which have received these versions of payments."""
    latest = {payment_id: {"version": version} for payment_id, version in received}
    till = SimpleNamespace(number=1, journal=SimpleNamespace(read=lambda: JOURNAL), latest=latest)
    return SimpleNamespace(tills=[till], wallets=[SimpleNamespace(number=7, latest=latest)])


async def differences(ledger: Ledger) -> dict[str, int]:
    found = await check_ledger(market(), ledger, OPENING_MINOR)  # type: ignore[arg-type]
    return {name: count for name, count in found.items() if count}


async def test_an_equal_ledger_has_no_difference() -> None:
    assert await check_ledger(market(), Ledger(), OPENING_MINOR) == NO_DIFFERENCE  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ROWS": [DECLINED | PARTIES]}, {"lost": 1}),
        ({"ROWS": [*ROWS[market_check.ROWS], PAID | PARTIES | {"id": "other"}]}, {"doubled or foreign": 1}),
        ({"ROWS": [PAID | PARTIES, DECLINED | PARTIES | {"status": "approved"}]}, {"in another state": 1}),
        ({"ROWS": [PAID | PARTIES | {"amount_minor": 101}, DECLINED | PARTIES]}, {"in another state": 1}),
        ({"ROWS": [PAID | PARTIES | {"wallet_number": 8}, DECLINED | PARTIES]}, {"in another state": 1}),
        ({"MOVED": []}, {"in another state": 1}),
        ({"MOVED": [MOVE | {"transfers": 2, "amount_minor": 200}]}, {"in another state": 1}),
        ({"MOVED": [MOVE, MOVE | {"id": "declined", "amount_minor": 200}]}, {"in another state": 1}),
        ({"REFUNDS": []}, {"refunds": 1}),
        ({"REFUNDS": [REFUND, REFUND | {"id": "other"}]}, {"refunds": 1}),
        ({"REFUNDS": [REFUND | {"transfers": 2, "moved_minor": 60}]}, {"refunds": 1}),
        ({"select number, balance_minor from wallet": [(7, 929)]}, {"balances": 1}),
    ],
)
async def test_a_difference_is_named(changes: dict[str, list[Any]], expected: dict[str, int]) -> None:
    assert await differences(Ledger(**changes)) == expected


async def test_a_device_without_the_last_version_has_missed_a_notice() -> None:
    assert await missing_notices(market(("paid", 2), ("declined", 1)), Ledger()) == []  # type: ignore[arg-type]
    missing = await missing_notices(market(("paid", 1), ("declined", 1)), Ledger())  # type: ignore[arg-type]
    assert [each.rpartition(", ")[2] for each in missing] == ["received version 1"] * 2
    assert len(await missing_notices(market(), Ledger())) == 4  # type: ignore[arg-type]
