"""An operator changes a row between the load of a batch and its write.

What belongs to the customer has a version: the batch is decided again. What belongs to the shop has none: the batch is
stored as it was decided, and every later load sees the change (docs/payments.md, "Changes by an operator").
"""

import time
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from pos_server.core.payments.decide import decide
from pos_server.core.payments.operations import Decided, Operation
from pos_server.core.payments.snapshot import Changeset, MerchantStatus, OwnLimits, TerminalStatus, WalletStatus
from pos_server.ledger import directory, wallets
from pos_server.ledger.audit import audit
from pos_server.ledger.payments import apply_changes, load_snapshot
from tests.support import KEYRING, LEDGER_CONFLICT, RULES, Shop, activated

pytestmark = pytest.mark.asyncio

Change = Callable[[asyncpg.Connection, Shop], Awaitable[object]]


def wallet_of(shop: Shop) -> int:
    return shop.wallets[0].device.number


async def decided(connection: asyncpg.Connection, operation: Operation) -> tuple[Decided, Changeset, int]:
    now_ms = int(time.time() * 1000)
    snapshot = await load_snapshot(connection, [operation])
    (outcome,), changes = decide([operation], snapshot, KEYRING, now_ms, RULES, day_start_ms=0)
    assert isinstance(outcome, Decided)
    return outcome, changes, now_ms


@pytest.mark.parametrize(
    ("change", "later"),
    [
        (lambda c, s: directory.set_wallet_status(c, wallet_of(s), WalletStatus.FROZEN), "wallet_frozen"),
        (lambda c, s: wallets.revoke_device(c, wallet_of(s), s.wallets[0].device.slot), "code_invalid"),
        (lambda c, s: activated(c, s.wallets[0].device), "code_invalid"),
        (lambda c, s: wallets.set_own_limits(c, wallet_of(s), OwnLimits(payment_minor_max=1)), "amount_over_limit"),
    ],
    ids=["freeze", "revoke", "new key", "limit"],
)
async def test_a_change_for_the_customer_takes_effect_at_once(
    change: Change, later: str, connection: asyncpg.Connection, shop: Shop
) -> None:
    scan = shop.scan()
    outcome, changes, now_ms = await decided(connection, scan)
    assert outcome.payment.status == "approved"
    await change(connection, shop)
    with pytest.raises(LEDGER_CONFLICT):
        await apply_changes(connection, changes, now_ms)
    again, _, _ = await decided(connection, scan)
    assert again.payment.decline_code == later


@pytest.mark.parametrize(
    ("change", "later"),
    [
        (
            lambda c, s: directory.set_terminal_status(c, s.terminals[0].device.number, TerminalStatus.DISABLED),
            "terminal_disabled",
        ),
        (lambda c, s: directory.set_merchant_status(c, s.merchant_id, MerchantStatus.INACTIVE), "merchant_inactive"),
        (
            lambda c, s: directory.set_terms(
                c, s.merchant_id, fee_bps=None, fee_fixed_minor=7, time_zone=None, cut_off=None
            ),
            7,
        ),
    ],
    ids=["terminal", "merchant", "fee"],
)
async def test_a_change_for_the_shop_lets_a_loaded_batch_through(
    change: Change, later: object, connection: asyncpg.Connection, admin: asyncpg.Connection, shop: Shop
) -> None:
    outcome, changes, now_ms = await decided(connection, shop.scan())
    await change(admin, shop)
    await apply_changes(connection, changes, now_ms)
    row = await connection.fetchrow("select status, fee_minor from payment where id = $1", outcome.payment.payment_id)
    assert row is not None
    assert (row["status"], row["fee_minor"]) == ("approved", 0)
    after, _, _ = await decided(connection, shop.scan())
    assert later in (after.payment.decline_code, after.payment.fee_minor)
    assert (await audit(admin)).findings == []
