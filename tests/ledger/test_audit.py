"""The audit: it detects and names damage that was done directly in the database."""

import re
from typing import Any

import asyncpg
import pytest

from pos_server.core.payments.operations import Cancel, CreateRefund, Entry, MoveCash
from pos_server.core.payments.payment import Purpose
from pos_server.ledger import directory
from pos_server.ledger.audit import CHECKS, OFFENDERS_LISTED_MAX, audit
from tests.end_to_end.server_process import pos_server
from tests.ledger.test_payments import run_batch
from tests.support import EUR, Shop, new_id

pytestmark = pytest.mark.asyncio


async def sell(connection: asyncpg.Connection, shop: Shop) -> dict[str, str]:
    """Make payments of every kind; return their ids by name, and those of refunds, transfers and wallets."""
    till = shop.terminals[0].device.number
    sales = {
        "paid": shop.scan(0),
        "also_paid": shop.scan(1),
        "declined": shop.scan(2, amount_minor=99_999),
        "canceled": shop.scan(0, amount_minor=500),
        "refunded": shop.scan(1, amount_minor=700),
        "pending": shop.scan(2, entry=Entry.TYPED),
        "withdrawn": shop.scan(2, entry=Entry.TYPED),
    }
    refunds = {
        "refund": CreateRefund(new_id(), sales["refunded"].payment_id, shop.merchant_id, till, 300),
        "other_refund": CreateRefund(new_id(), sales["refunded"].payment_id, shop.merchant_id, None, 100),
    }
    cancels = [
        Cancel(till, shop.merchant_id, EUR, sales["canceled"].payment_id, None, new_id()),
        Cancel(till, shop.merchant_id, EUR, sales["withdrawn"].payment_id, None, new_id()),
        Cancel(till, shop.merchant_id, EUR, None, "order-never-seen", new_id()),
        Cancel(till, shop.merchant_id, EUR, new_id(), None, new_id()),
    ]
    await run_batch(connection, *sales.values(), *refunds.values(), *cancels)
    await sell_with_a_fee_and_move_cash(connection, shop, sales, refunds)
    ids = {name: str(sale.payment_id) for name, sale in sales.items()}
    ids |= {name: str(refund.refund_id) for name, refund in refunds.items()}
    ids |= {f"wallet_{index}": str(wallet.device.number) for index, wallet in enumerate(shop.wallets)}
    for index, row in enumerate(await connection.fetch("select id from payment where purpose = 'top_up' order by id")):
        ids[f"top_up_{index}"] = str(row["id"])
    for name in ("paid", "canceled", "cash_out"):
        row = "select id from transfer where kind in ('payment', 'withdrawal') and source_id = $1::text::uuid"
        ids[f"transfer_of_{name}"] = str(await connection.fetchval(row, ids[name]))
    return ids


async def sell_with_a_fee_and_move_cash(
    connection: asyncpg.Connection, shop: Shop, operations: dict[str, Any], refunds: dict[str, CreateRefund]
) -> None:
    """Make payments to another merchant; add their operations to the names."""
    merchant_id = await directory.create_merchant(connection, "Kiosk", EUR)
    await connection.execute("update merchant set fee_bps = 145, fee_fixed_minor = 7 where id = $1", merchant_id)
    store_id = await directory.create_store(connection, merchant_id, "Hall")
    till = await directory.create_terminal(connection, store_id, "Till")
    place = {"terminal_number": till, "merchant_id": merchant_id}
    sales = {name: shop.scan(1, amount_minor=999, **place) for name in ("with_fee", "canceled_with_fee")}
    refund = CreateRefund(new_id(), sales["with_fee"].payment_id, merchant_id, till, 500)
    wallet = shop.wallets[2].device.number
    cash = {
        name: MoveCash(new_id(), merchant_id, wallet, name, amount_minor, EUR, purpose)
        for name, amount_minor, purpose in (
            ("cash_out", 400, Purpose.WITHDRAWAL),
            ("cash_back", 300, Purpose.TOP_UP),
        )
    }
    cancels = [
        Cancel(None, merchant_id, EUR, canceled.payment_id, None, new_id())
        for canceled in (sales["canceled_with_fee"], cash["cash_back"])
    ]
    await run_batch(connection, *sales.values(), refund, *cash.values(), *cancels)
    operations |= sales | cash
    refunds["refund_of_fee"] = refund


async def findings(admin: asyncpg.Connection) -> dict[str, list[str]]:
    return {finding.check: finding.offenders for finding in (await audit(admin)).findings}


async def test_a_sound_ledger_passes(connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection) -> None:
    await sell(connection, shop)
    report = await audit(admin)
    assert report.findings == []
    assert report.ok
    # Nine payments, including two tombstones and two with fees; four top-ups and a withdrawal.
    assert (report.payments, report.cash_movements, report.wallets) == (11, 5, 3)
    kinds = await connection.fetch("select kind, count(*) from transfer group by kind")
    assert {row["kind"]: row["count"] for row in kinds} == {
        "payment": 6,
        "top_up": 4,
        "withdrawal": 1,
        "fee": 2,
        "fee_return": 2,
        "refund": 3,
        "cancel": 3,
    }
    assert report.transfers == 21


PAID, CANCEL, REFUND = (
    f"where kind = '{kind}' and source_id = '<{name}>'"
    for kind, name in (("payment", "paid"), ("cancel", "canceled"), ("refund", "refund"))
)
FEE, FEE_RETURN, WITHDRAWAL, CASH_CANCEL = (
    f"where kind = '{kind}' and source_id = '<{name}>'"
    for kind, name in (
        ("fee", "with_fee"),
        ("fee_return", "refund_of_fee"),
        ("withdrawal", "cash_out"),
        ("cancel", "cash_back"),
    )
)
REFUND_OF_FEE = "refund_of_fee"
OTHER_MERCHANT = "(select account_id from merchant where name = 'Corner Canteen')"
CASH_IN = "(select id from account where kind = 'house' and name = 'cash_in')"
# The audit does not rely on the schema's constraints, because a dump may have been restored without them.
WITHOUT_CHECK = "alter table payment drop constraint payment_is_sound"


def again(where: str, *, source: str = "source_id", amount: str = "amount_minor") -> str:
    """Return the statement that copies a transfer, with changed columns."""
    return (
        "drop index transfer_source; insert into transfer (kind, source_id, debit_account_id, credit_account_id, "
        "amount_minor, currency, wallet_number, merchant_id, created_at) "
        f"select kind, {source}, debit_account_id, credit_account_id, {amount}, currency, wallet_number, merchant_id, "
        f"created_at "
        f"from transfer {where}; "
    )


def add(wallet: str, amount_minor: int) -> str:
    return f"update wallet set balance_minor = balance_minor + {amount_minor} where number = <{wallet}>; "


NEW = "'00000000-0000-0000-0000-000000000009'"


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        # Accounts and balances.
        (
            f"update transfer set debit_account_id = 77777 {PAID}",
            {
                "accounts_exist": ["transfer_of_paid"],
                "sum_is_zero": ["EUR"],
                "balances": ["wallet_0"],
                "payments_paid": ["paid"],
            },
        ),
        (
            f"update transfer set currency = 'USD' {PAID}",
            {"accounts_exist": ["transfer_of_paid"], "payments_paid": ["paid"]},
        ),
        ("update wallet set balance_minor = balance_minor + 1 where number = <wallet_1>", {"balances": ["wallet_1"]}),
        (
            "delete from transfer where kind = 'top_up' and not source_id = '<cash_back>'",
            {
                "balances": ["wallet_0", "wallet_1", "wallet_2"],
                "payments_paid": ["top_up_0", "top_up_1", "top_up_2"],
            },
        ),
        # Payments and their transfers.
        (f"update transfer set amount_minor = 1 {PAID}", {"balances": ["wallet_0"], "payments_paid": ["paid"]}),
        (f"delete from transfer {PAID}", {"balances": ["wallet_0"], "payments_paid": ["paid"]}),
        (f"update transfer set credit_account_id = {CASH_IN} {PAID}", {"payments_paid": ["paid"]}),
        (f"update transfer set wallet_number = <wallet_2> {PAID}", {"payments_paid": ["paid"]}),
        (
            again(PAID),
            {"transfers_once": ["paid"], "balances": ["wallet_0"]},
        ),
        (
            again(PAID) + add("wallet_0", -1_000),
            {"transfers_once": ["paid"]},
        ),
        (
            "update payment set amount_minor = 7 where id = '<paid>'",
            {"payments_paid": ["paid"], "day_counters": ["wallet_0"]},
        ),
        (
            "delete from payment where id = '<paid>'",
            {"transfers_owed": ["transfer_of_paid"], "day_counters": ["wallet_0"]},
        ),
        (
            "update payment set status = 'declined', decline_code = 'code_used' where id = '<paid>'",
            {"transfers_owed": ["transfer_of_paid"], "day_counters": ["wallet_0"], "payments_sound": ["paid"]},
        ),
        (
            "update payment set status = 'expired' where id = '<paid>'",
            {"transfers_owed": ["transfer_of_paid"], "day_counters": ["wallet_0"], "payments_sound": ["paid"]},
        ),
        (
            "update payment set status = 'approved', decline_code = null, approved_at = now() where id = '<declined>'",
            {"payments_paid": ["declined"], "day_counters": ["wallet_2"], "payments_sound": ["declined"]},
        ),
        (
            "update payment set status = 'approved', approved_at = now() where id = '<pending>'",
            {"payments_paid": ["pending"], "day_counters": ["wallet_2"], "payments_sound": ["pending"]},
        ),
        # Cancels.
        (f"delete from transfer {CANCEL}", {"balances": ["wallet_0"], "cancels_paid": ["canceled"]}),
        (
            f"update transfer set amount_minor = 499 {CANCEL}",
            # Neither this payment's cancel transfer nor any other's.
            {"balances": ["wallet_0"], "cancels_paid": ["canceled", "canceled"]},
        ),
        (
            f"update transfer set debit_account_id = {CASH_IN} {CANCEL}",
            {"cancels_paid": ["canceled", "canceled"]},
        ),
        (
            again(CANCEL),
            {"transfers_once": ["canceled"], "balances": ["wallet_0"]},
        ),
        (
            again(CANCEL) + add("wallet_0", 500),
            {"transfers_once": ["canceled"]},
        ),
        (
            f"update transfer set source_id = '<paid>' {CANCEL}",
            {"cancels_paid": ["paid", "canceled"]},
        ),
        (
            "update payment set status = 'approved' where id = '<canceled>'",
            {"cancels_paid": ["canceled"], "day_counters": ["wallet_0"], "payments_sound": ["canceled"]},
        ),
        (
            "update payment set status = 'canceled' where id = '<paid>'",
            {"cancels_paid": ["paid"], "day_counters": ["wallet_0"], "payments_sound": ["paid"]},
        ),
        (
            "update payment set approved_at = null where id = '<canceled>'",
            {
                "transfers_owed": ["transfer_of_canceled"],
                "cancels_paid": ["canceled"],
                "day_counters": ["wallet_0"],
                "payments_sound": ["canceled"],
                "times": ["canceled"],
            },
        ),
        (
            "update payment set approved_at = now() where id = '<withdrawn>'",
            {"payments_paid": ["withdrawn"], "cancels_paid": ["withdrawn"], "payments_sound": ["withdrawn"]},
        ),
        # Refunds.
        (f"delete from transfer {REFUND}", {"balances": ["wallet_1"], "refunds_paid": ["refund"]}),
        (
            f"update transfer set amount_minor = 1 {REFUND}",
            {"balances": ["wallet_1"], "refunds_paid": ["refund", "refund"]},
        ),
        (
            f"update transfer set credit_account_id = {CASH_IN} {REFUND}",
            {"balances": ["wallet_1"], "refunds_paid": ["refund", "refund"]},
        ),
        (
            again(REFUND) + add("wallet_1", 300),
            {"transfers_once": ["refund"]},
        ),
        (
            "delete from refund where id = '<refund>'",
            {"refunds_paid": ["refund"], "refunds_within": ["refunded"]},
        ),
        (
            "update refund set payment_id = '<paid>' where id = '<refund>'",
            {"refunds_paid": ["refund", "refund"], "refunds_within": ["paid", "refunded"]},
        ),
        (
            "update refund set amount_minor = 301 where id = '<refund>'",
            {"refunds_paid": ["refund", "refund"], "refunds_within": ["refunded"]},
        ),
        (
            "update payment set refunded_minor = refunded_minor - 1 where id = '<refunded>'",
            {"refunds_within": ["refunded"]},
        ),
        (
            "update payment set refunds = refunds + 1 where id = '<refunded>'",
            {"refunds_within": ["refunded"], "payments_sound": ["refunded"]},
        ),
        (
            "update payment set refunded_minor = 0, refunds = 0 where id = '<refunded>'",
            {"refunds_within": ["refunded"], "payments_sound": ["refunded"]},
        ),
        (
            "update payment set refunded_minor = 1, refunds = 1 where id = '<paid>'",
            {"refunds_within": ["paid"], "payments_sound": ["paid"], "times": ["paid"]},
        ),
        # Refunds that exceed the payment, with all their rows.
        (
            f"{WITHOUT_CHECK}; update payment set refunded_minor = 800, refunds = 3 where id = '<refunded>'; "
            f"insert into refund select {NEW}, payment_id, merchant_id, terminal_number, wallet_number, 400, currency, "
            "created_at from refund where id = '<refund>'; "
            + again(REFUND, source=NEW, amount="400")
            + add("wallet_1", 400),
            {"refunds_within": ["refunded"], "payments_sound": ["refunded"]},
        ),
        # Fees.
        (f"delete from transfer {FEE}", {"fees": ["with_fee"]}),
        (f"update transfer set amount_minor = amount_minor + 1 {FEE}", {"fees": ["with_fee"]}),
        (f"update transfer set credit_account_id = {CASH_IN} {FEE}", {"fees": ["with_fee"]}),
        (f"update transfer set debit_account_id = {OTHER_MERCHANT} {FEE}", {"fees": ["with_fee"]}),
        (again(FEE), {"fees": ["with_fee"], "transfers_once": ["with_fee"]}),
        ("update payment set fee_minor = fee_minor - 1 where id = '<with_fee>'", {"fees": ["with_fee"]}),
        ("update payment set fee_minor = 5 where id = '<paid>'", {"fees": ["paid"]}),
        (f"delete from transfer {FEE_RETURN}", {"fees": ["with_fee"]}),
        (f"update transfer set amount_minor = 1 {FEE_RETURN}", {"fees": ["with_fee"]}),
        (f"update transfer set kind = 'fee' {FEE_RETURN}", {"fees": sorted([REFUND_OF_FEE, "with_fee"])}),
        (
            "delete from transfer where kind = 'fee_return' and source_id = '<canceled_with_fee>'",
            {"fees": ["canceled_with_fee"]},
        ),
        (
            again(FEE_RETURN, source=NEW, amount="1"),
            {"fees": [NEW.strip("'")]},
        ),
        # Cash.
        (f"delete from transfer {WITHDRAWAL}", {"balances": ["wallet_2"], "payments_paid": ["cash_out"]}),
        (f"update transfer set credit_account_id = {CASH_IN} {WITHDRAWAL}", {"payments_paid": ["cash_out"]}),
        (
            f"update transfer set kind = 'payment' {WITHDRAWAL}",
            {"payments_paid": ["cash_out"], "transfers_owed": ["transfer_of_cash_out"]},
        ),
        (
            "update payment set purpose = 'sale' where id = '<cash_out>'",
            {"payments_paid": ["cash_out"], "transfers_owed": ["transfer_of_cash_out"], "day_counters": ["wallet_2"]},
        ),
        (f"delete from transfer {CASH_CANCEL}", {"balances": ["wallet_2"], "cancels_paid": ["cash_back"]}),
        (
            f"update transfer set credit_account_id = {OTHER_MERCHANT} {CASH_CANCEL}",
            {"cancels_paid": ["cash_back", "cash_back"]},
        ),
        # Pending payments.
        (
            "update payment set expires_at = now() - interval '61 seconds' where id = '<pending>'",
            {"pending_in_time": ["pending"]},
        ),
        ("update payment set expires_at = now() - interval '50 seconds' where id = '<pending>'", {}),
    ],
)
async def test_damage_is_detected_and_named(
    damage: str,
    expected: dict[str, list[str]],
    connection: asyncpg.Connection,
    shop: Shop,
    admin: asyncpg.Connection,
) -> None:
    ids = await sell(connection, shop)
    await admin.execute("alter table payment disable trigger payment_is_fixed")
    await admin.execute(re.sub("<(.+?)>", lambda name: ids[name[1]], damage))
    found = await findings(admin)
    assert found == {check: sorted(ids.get(name, name) for name in names) for check, names in expected.items()}


async def test_the_audit_limits_the_listed_offenders(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection
) -> None:
    await admin.execute(
        "insert into transfer (kind, source_id, debit_account_id, credit_account_id, amount_minor, currency, "
        "wallet_number, merchant_id, created_at) select 'payment', gen_random_uuid(), 1, 2, 1, 'EUR', 0, 1, now() "
        "from generate_series(1, 1000)"
    )
    assert len((await findings(admin))["transfers_owed"]) == OFFENDERS_LISTED_MAX == 100


async def test_progress_has_each_check_and_its_duration(admin: asyncpg.Connection, shop: Shop) -> None:
    progress: list[tuple[str, float | None]] = []
    await audit(admin, lambda check, seconds: progress.append((check, seconds)))
    begun, done = progress[::2], progress[1::2]
    assert [check for check, _ in begun] == [check for check, _ in done]
    assert [check for check, _ in begun] == ["counts", *CHECKS]
    assert all(seconds is None for _, seconds in begun)
    assert all(seconds is not None and seconds >= 0 for _, seconds in done)


async def test_the_command_prints_progress_on_stderr(dsn: str, shop: Shop) -> None:
    silent = await pos_server("audit", "--json", POS_DATABASE_URL=dsn)
    verbose = await pos_server("audit", "--json", "--progress", POS_DATABASE_URL=dsn)
    assert (silent.status, silent.err) == (verbose.status, "") == (0, "")
    assert silent.out == verbose.out
    assert verbose.err.startswith("counts …\ncounts: 0.")
    assert re.search(r"^balances …\nbalances: \d+\.\d s$", verbose.err, re.MULTILINE)
