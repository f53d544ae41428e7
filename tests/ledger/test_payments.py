"""The two statements of the payment path against a real Postgres: what they load, store and reject."""

import re
import time

import asyncpg
import pytest

from loadtest.shared.seed import seed_shop
from pos_server.core.payments.decide import decide
from pos_server.core.payments.declines import DeclineCode
from pos_server.core.payments.operations import Decided, Operation, Outcome
from pos_server.core.payments.payment import Status
from pos_server.core.payments.snapshot import Changeset
from pos_server.ledger.payments import apply_changes, load_snapshot
from pos_server.ledger.sql import QUERIES
from tests.copies import replace
from tests.support import KEYRING, LEDGER_CONFLICT, RULES, Shop, activated, forged

pytestmark = pytest.mark.asyncio


async def run_batch(connection: asyncpg.Connection, *scans: Operation) -> list[Outcome]:
    now_ms = int(time.time() * 1000)
    snapshot = await load_snapshot(connection, scans)
    decisions, changes = decide(scans, snapshot, KEYRING, now_ms, RULES, day_start_ms=0)
    await apply_changes(connection, changes, now_ms)
    return decisions


async def balance(connection: asyncpg.Connection, shop: Shop, wallet: int = 0) -> int:
    number = shop.wallets[wallet].device.number
    value: int = await connection.fetchval("select balance_minor from wallet where number = $1", number)
    return value


async def test_an_approved_payment_moves_money_once(connection: asyncpg.Connection, shop: Shop) -> None:
    scan = shop.scan(amount_minor=1234)
    (decision,) = await run_batch(connection, scan)

    assert isinstance(decision, Decided)
    assert decision.payment.status is Status.APPROVED
    assert await balance(connection, shop) == 10_000 - 1234
    row = await connection.fetchrow("select * from transfer where source_id = $1", scan.payment_id)
    assert row is not None
    assert (row["kind"], row["amount_minor"], row["currency"]) == ("payment", 1234, "EUR")
    merchant_account = await connection.fetchval("select account_id from merchant where id = $1", shop.merchant_id)
    assert row["credit_account_id"] == merchant_account


async def test_a_stored_payment_is_loaded_with_every_field(connection: asyncpg.Connection, shop: Shop) -> None:
    approved, declined = shop.scan(), shop.scan(1, amount_minor=999_999)
    first = await run_batch(connection, approved, declined)
    again = await run_batch(connection, approved, declined)

    for before, after in zip(first, again, strict=True):
        assert isinstance(before, Decided)
        assert isinstance(after, Decided)
        assert after.replayed
        assert after.payment == before.payment
        assert after.wallet == before.wallet
    assert await balance(connection, shop) == 9_000


async def test_a_batch_of_every_kind_is_stored_together(connection: asyncpg.Connection, shop: Shop) -> None:
    same_order = "order-same"
    scans = [
        shop.scan(reference=same_order),
        shop.scan(1, reference=same_order),
        shop.scan(code="not a code"),
        shop.scan(code=forged(shop.wallets[0].code())),
        shop.scan(code=shop.wallets[0].code(steps=-3)),
        shop.scan(2, amount_minor=10_001),
        shop.scan(),
    ]
    decisions = await run_batch(connection, *scans)
    codes = [decision.payment.decline_code for decision in decisions if isinstance(decision, Decided)]
    assert codes == [
        None,
        DeclineCode.ALREADY_PAID,
        DeclineCode.CODE_MALFORMED,
        DeclineCode.CODE_INVALID,
        DeclineCode.CODE_EXPIRED,
        DeclineCode.INSUFFICIENT_FUNDS,
        None,
    ]
    assert await connection.fetchval("select count(*) from payment where purpose = 'sale'") == len(scans)
    assert await connection.fetchval("select count(*) from transfer where kind = 'payment'") == 2
    assert (
        await connection.fetchval("select paid_by from payment where decline_code = 'already_paid'")
        == scans[0].payment_id
    )


async def test_a_code_is_spent_with_the_payment(connection: asyncpg.Connection, shop: Shop) -> None:
    code = shop.wallets[0].code()
    await run_batch(connection, shop.scan(code=code))
    (second,) = await run_batch(connection, shop.scan(code=code, terminal=1))
    assert isinstance(second, Decided)
    assert second.payment.decline_code is DeclineCode.CODE_USED
    assert await balance(connection, shop) == 9_000


async def test_a_decision_on_outdated_rows_has_no_effect(connection: asyncpg.Connection, shop: Shop) -> None:
    """Two servers decide about one wallet concurrently: the second batch has no effect."""
    mine, other = shop.scan(amount_minor=6_000), shop.scan(1)
    theirs = shop.scan(amount_minor=6_000)
    now_ms = int(time.time() * 1000)
    snapshot = await load_snapshot(connection, [mine, other])
    await run_batch(connection, theirs)

    _, changes = decide([mine, other], snapshot, KEYRING, now_ms, RULES, day_start_ms=0)
    with pytest.raises(LEDGER_CONFLICT):
        await apply_changes(connection, changes, now_ms)

    assert await connection.fetchval("select count(*) from payment where purpose = 'sale'") == 1
    assert (await balance(connection, shop), await balance(connection, shop, 1)) == (4_000, 10_000)


async def test_two_servers_cannot_both_be_paid_for_one_order(connection: asyncpg.Connection, shop: Shop) -> None:
    mine, theirs = shop.scan(0, reference="order-x"), shop.scan(1, reference="order-x")
    now_ms = int(time.time() * 1000)
    snapshot = await load_snapshot(connection, [mine])
    await run_batch(connection, theirs)
    _, changes = decide([mine], snapshot, KEYRING, now_ms, RULES, day_start_ms=0)
    with pytest.raises(LEDGER_CONFLICT):
        await apply_changes(connection, changes, now_ms)
    assert await balance(connection, shop, 0) == 10_000


async def test_a_code_made_with_the_previous_key_cannot_debit(connection: asyncpg.Connection, shop: Shop) -> None:
    scan = shop.scan()
    now_ms = int(time.time() * 1000)
    snapshot = await load_snapshot(connection, [scan])
    _, changes = decide([scan], snapshot, KEYRING, now_ms, RULES, day_start_ms=0)
    await activated(connection, shop.wallets[0].device)
    with pytest.raises(LEDGER_CONFLICT):
        await apply_changes(connection, changes, now_ms)


async def test_the_schema_rejects_a_negative_balance(connection: asyncpg.Connection, shop: Shop) -> None:
    scan = shop.scan()
    now_ms = int(time.time() * 1000)
    snapshot = await load_snapshot(connection, [scan])
    _, changes = decide([scan], snapshot, KEYRING, now_ms, RULES, day_start_ms=0)
    number = shop.wallets[0].device.number
    changes.wallets[number] = replace(changes.wallets[number], balance_minor=-1)
    with pytest.raises(asyncpg.CheckViolationError):
        await apply_changes(connection, changes, now_ms)
    assert await connection.fetchval("select count(*) from payment where purpose = 'sale'") == 0


@pytest.mark.parametrize(
    "statement",
    [
        "update transfer set amount_minor = 1",
        "delete from transfer",
        "truncate transfer",
        "update payment set amount_minor = amount_minor + 1",
        "update payment set wallet_number = wallet_number + 1",
        "update payment set fingerprint = null",
        "delete from payment",
        "delete from wallet",
        "update merchant set account_id = 1",
        "drop table transfer",
        "update migration set checksum = ''",
    ],
)
async def test_forbidden_statements_of_the_servers_role(
    statement: str, connection: asyncpg.Connection, shop: Shop
) -> None:
    await run_batch(connection, shop.scan())
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(statement)


async def test_an_empty_batch_of_changes_changes_nothing(connection: asyncpg.Connection, shop: Shop) -> None:
    await apply_changes(connection, Changeset(), 0)
    assert await connection.fetchval("select count(*) from payment where purpose = 'sale'") == 0


@pytest.mark.parametrize("query", ["load_snapshot", "apply_new_payments", "apply_changes"])
async def test_a_plan_made_for_empty_tables_scans_no_table(query: str, connection: asyncpg.Connection) -> None:
    """The engine's statements are planned once, maybe on the first day, and must stay fast with millions of rows."""
    plan = await _generic_plan(connection, query)
    for table in ("payment", "transfer", "refund", "wallet", "wallet_device"):
        assert f"Seq Scan on {table} " not in plan, plan
        assert f"Bitmap Index Scan on {table}" not in plan, plan


@pytest.mark.parametrize("query", ["apply_new_payments", "apply_changes"])
async def test_a_plan_made_with_statistics_joins_no_batch_with_itself(
    query: str, admin: asyncpg.Connection, connection: asyncpg.Connection
) -> None:
    """Regression: after the first `analyze` the plan compared each row of a batch with every other row."""
    await seed_shop(admin, terminals=1, wallets=9_000, balance_minor=1_000)
    # Versions as if some of the wallets had paid.
    await admin.execute("update wallet set version = number % 3")
    await admin.execute("vacuum analyze")
    plan = await _generic_plan(connection, query)
    assert "Join Filter" not in plan, plan
    assert "Seq Scan on wallet" not in plan, plan


async def _generic_plan(connection: asyncpg.Connection, query: str) -> str:
    parameters = max(map(int, re.findall(r"\$(\d+)", QUERIES[query])))
    await connection.execute(f"set plan_cache_mode = force_generic_plan; prepare planned as {QUERIES[query]}")
    rows = await connection.fetch(f"explain execute planned ({', '.join(['null'] * parameters)})")
    return "\n".join(row[0] for row in rows)
