"""The audit finds what somebody damaged behind the server's back, and names it."""

import asyncpg
import pytest

from pos_server.ledger.audit import audit
from tests.ledger.test_ledger import run_batch
from tests.support import Town

pytestmark = pytest.mark.asyncio


async def sell(connection: asyncpg.Connection, town: Town) -> list[str]:
    scans = [town.scan(0), town.scan(1), town.scan(2, amount_minor=99_999)]
    await run_batch(connection, *scans)
    return [str(scan.payment_id) for scan in scans]


async def test_an_honest_ledger_is_ok(connection: asyncpg.Connection, town: Town, admin: asyncpg.Connection) -> None:
    await sell(connection, town)
    report = await audit(admin)
    assert report.ok
    assert (report.payments, report.transfers, report.wallets) == (3, 5, 3)


FIRST_TRANSFER = "(select min(id) from transfer where kind = 'payment')"
CASH_IN = "(select id from account where kind = 'house')"
CASH_IN = "(select id from account where kind = 'house')"
FIRST_PAID = "(select min(id::text)::uuid from payment where status = 'approved')"


@pytest.mark.parametrize(
    ("damage", "checks"),
    [
        (f"update transfer set amount_minor = 1 where id = {FIRST_TRANSFER}", {"balances", "payments_paid"}),
        (f"delete from transfer where id = {FIRST_TRANSFER}", {"balances", "payments_paid"}),
        (
            f"update transfer set credit_account_id = {CASH_IN} where id = {FIRST_TRANSFER}",
            {"payments_paid"},
        ),
        (f"update transfer set debit_account_id = 77777 where id = {FIRST_TRANSFER}", {"accounts_exist"}),
        (f"update transfer set currency = 'USD' where id = {FIRST_TRANSFER}", {"accounts_exist", "payments_paid"}),
        ("update wallet set balance_minor = balance_minor + 1 where number = 1000000001", {"balances"}),
        (f"update payment set amount_minor = 7 where id = {FIRST_PAID}", {"payments_paid"}),
        (f"delete from payment where id = {FIRST_PAID}", {"transfers_owed"}),
        (
            f"update payment set status = 'declined', decline_code = 'code_used' where id = {FIRST_PAID}",
            {"transfers_owed"},
        ),
        ("update payment set status = 'approved', decline_code = null where status = 'declined'", {"payments_paid"}),
        ("delete from transfer where kind = 'top_up'", {"balances"}),
    ],
)
async def test_damage_is_found_and_named(
    damage: str, checks: set[str], connection: asyncpg.Connection, town: Town, admin: asyncpg.Connection
) -> None:
    await sell(connection, town)
    await admin.execute(damage)
    report = await audit(admin)
    assert checks <= {finding.check for finding in report.findings}
    assert all(finding.offenders for finding in report.findings)


async def test_the_offending_ids_are_those(
    connection: asyncpg.Connection, town: Town, admin: asyncpg.Connection
) -> None:
    first, *_ = await sell(connection, town)
    await admin.execute("delete from transfer where source_id = $1::text::uuid", first)
    findings = {finding.check: finding.offenders for finding in (await audit(admin)).findings}
    assert findings == {"balances": [str(town.wallets[0].device.number)], "payments_paid": [first]}
