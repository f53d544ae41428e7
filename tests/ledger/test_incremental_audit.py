"""The incremental audit: each seal once, resumed after a stop, and the same findings as the full audit."""

import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from pos_server.core.payments.operations import CreateRefund
from pos_server.ledger.archive import archive
from pos_server.ledger.audit import audit
from pos_server.ledger.exclusive import Command, exclusive
from pos_server.ledger.incremental_audit import Audited, IncrementalReport, audit_incrementally
from pos_server.ledger.seals import seal_days
from pos_server.ledger.settlement import settle
from tests.end_to_end.server_process import pos_server
from tests.ledger.archived import age
from tests.ledger.falsifications import AUDIT, FALSIFICATIONS, Falsification
from tests.ledger.test_audit import sell
from tests.ledger.test_audit_coverage import World, allow_writing, falsifier, world
from tests.ledger.whole_ledger import expire_in_shifts, run_at, work_a_shift
from tests.support import Shop, new_id
from tests.tiers import LONG

__all__ = ["falsifier", "world"]
pytestmark = pytest.mark.asyncio

GIVE_AWAY = "update wallet set balance_minor = balance_minor + 1 where number = (select min(number) from wallet)"
Days = list[dict[str, str]]
# A change of an open shift: the incremental audit looks at a shift once its end is sealed.
NOT_YET = {("shift", "opened_at = now() - interval '30 days'")}


@pytest_asyncio.fixture
async def days(connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection) -> AsyncIterator[Days]:
    """Yield the ids of three sealed days with sales and shifts, oldest first."""
    made = []
    for _ in range(3):
        ids = await sell(connection, shop)
        await work_a_shift(connection, shop, ids, close=True)
        made.append(ids)
        await age(admin, days=1)
    await expire_in_shifts(admin)
    await admin.execute(
        "update wallet set day_start = now(), day_spent_minor = 0, day_pin_free_minor = 0, day_pin_free_count = 0"
    )
    await seal_days(admin, datetime.now(UTC), "UTC", lambda seal: None)
    full = await audit(admin)
    assert full.ok, full.findings
    yield made


async def falsify(owner: asyncpg.Connection, statement: str) -> None:
    """Change one row as somebody with all privileges can."""
    async with owner.transaction():
        await owner.execute("set local session_replication_role = replica")
        assert await owner.execute(statement) == "UPDATE 1"


async def run(owner: asyncpg.Connection) -> IncrementalReport:
    return await audit_incrementally(owner, datetime.now(UTC), lambda audited: None)


async def test_each_seal_is_audited_once(days: Days, admin: asyncpg.Connection, shop: Shop) -> None:
    first = await run(admin)
    assert first.ok, first.findings
    assert len(first.proved) == first.seals == await admin.fetchval("select count(*) from seal") >= 3
    assert first.transfers == await admin.fetchval("select count(*) from transfer") > 0
    assert first.later_transfers == 0
    again = await run(admin)
    assert (again.proved, again.seals, again.ok) == ([], first.seals, True)
    assert sum(seal.payments for seal in first.proved) > 20


async def test_later_transfers_are_counted_and_audited_when_they_are_sealed(
    days: Days, connection: asyncpg.Connection, admin: asyncpg.Connection, shop: Shop
) -> None:
    await run(admin)
    await sell(connection, shop)
    unsealed = await run(admin)
    assert (unsealed.proved, unsealed.ok) == ([], True)
    assert unsealed.later_transfers > 0
    await admin.execute(
        "update wallet set balance_minor = balance_minor + 1 where number = (select min(number) from wallet)"
    )
    assert [finding.check for finding in (await run(admin)).findings] == ["stored_balances"]


async def test_a_stopped_run_is_resumed_after_the_last_proved_seal(days: Days, admin: asyncpg.Connection) -> None:
    class Stop(Exception):
        pass

    def stop(audited: Audited) -> None:
        raise Stop

    with pytest.raises(Stop):
        await audit_incrementally(admin, datetime.now(UTC), stop)
    rest = await run(admin)
    assert rest.ok, rest.findings
    assert [seal.seal for seal in rest.proved] == list(range(2, rest.seals + 1))
    assert (await run(admin)).ok


async def test_a_run_stops_at_a_seal_with_findings_until_it_is_repaired(days: Days, admin: asyncpg.Connection) -> None:
    await falsify(admin, f"update payment set fee_minor = fee_minor + 1 where id = '{days[1]['with_fee']}'")
    for _ in range(2):
        stopped = await run(admin)
        assert not stopped.ok
        assert {finding.check for finding in stopped.findings} == {"fees"}
        assert days[1]["with_fee"] in stopped.findings[0].offenders
        assert stopped.unproved_seal == stopped.seals + 1
    await falsify(admin, f"update payment set fee_minor = fee_minor - 1 where id = '{days[1]['with_fee']}'")
    repaired = await run(admin)
    assert (repaired.ok, repaired.later_transfers) == (True, 0)


async def test_a_refund_of_an_audited_payment_is_audited_with_its_payment(
    days: Days, connection: asyncpg.Connection, admin: asyncpg.Connection, shop: Shop
) -> None:
    """A row that was falsified after its audit is named by `--seals`, or here when it changes again."""
    await run(admin)
    sale, till = UUID(days[0]["sale"]), shop.terminals[0].device.number
    await falsify(admin, f"update payment set fee_minor = fee_minor + 1 where id = '{sale}'")
    assert (await run(admin)).ok
    refund = CreateRefund(new_id(), sale, shop.merchant_id, till, 10)
    await run_at(connection, int(time.time() * 1000), refund)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    await seal_days(admin, tomorrow, "UTC", lambda seal: None)
    found = (await audit_incrementally(admin, tomorrow, lambda audited: None)).findings
    assert [(finding.check, finding.offenders) for finding in found] == [("fees", [str(sale)])]


async def test_the_archive_takes_only_what_was_audited(days: Days, admin: asyncpg.Connection, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    await settle(admin, now.date() - timedelta(days=1), now)

    class Stop(Exception):
        pass

    def stop(audited: Audited) -> None:
        if audited.transfers:
            raise Stop

    with pytest.raises(Stop):
        await audit_incrementally(admin, now, stop)
    audited_id = await admin.fetchval("select max(last_id) from audited_seal")

    async def move() -> int:
        parts = await archive(
            admin,
            now.date() - timedelta(days=1),
            tmp_path,
            now,
            lambda part: None,
            min_age=timedelta(days=1),
            part_payments_max=5,
        )
        return sum(part.transfers for part in parts)

    assert await move() > 0
    assert await admin.fetchval("select min(id) from transfer where id > $1", audited_id) == audited_id + 1
    assert (await run(admin)).ok
    assert await move() > 0
    later = await run(admin)
    assert (later.ok, later.proved) == (True, [])


async def test_it_excludes_itself_and_the_archive(
    days: Days, dsn: str, admin: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pos_server.ledger import exclusive as module
    from pos_server.ledger.database import connect

    monkeypatch.setattr(module, "EXCLUSIVE_TIMEOUT_S", 0.0)
    other = await connect(dsn, timeout_s=10, role=None)
    try:
        for command in (Command.AUDIT, Command.ARCHIVE):
            async with exclusive(other, command):
                with pytest.raises(module.AlreadyRunning, match=f"another {command.name.lower()} is running"):
                    await run(admin)
    finally:
        await other.close()
    assert (await run(admin)).ok


async def test_a_replaced_seal_is_named(days: Days, admin: asyncpg.Connection) -> None:
    await run(admin)
    await admin.execute("update audited_seal set seal_hash = '\\x00' where seal_number = 2")
    assert [(f.check, f.offenders) for f in (await run(admin)).findings] == [("stored_seals", ["seal 2"])]


async def test_an_empty_ledger_passes(admin: asyncpg.Connection) -> None:
    report = await run(admin)
    assert (report.ok, report.proved, report.last_day, report.later_transfers) == (True, [], None, 0)


async def test_the_command(days: Days, dsn: str, admin: asyncpg.Connection) -> None:
    seals = await admin.fetchval("select count(*) from seal")
    transfers = await admin.fetchval("select count(*) from transfer")
    day = await admin.fetchval("select max(day)::text from seal")
    first = await pos_server("audit", "--incremental", "--progress", POS_DATABASE_URL=dsn)
    text = f"{seals} seals with {transfers} transfers proved now, {seals} with {transfers} in all, up to {day}"
    assert (first.status, first.out) == (
        0,
        f"incremental audit ok: {text}; 0 later transfers are not proved yet\n",
    ), first.err
    assert f"audited {day}: " in first.err
    await admin.execute(
        "update wallet set balance_minor = balance_minor + 1 where number = (select min(number) from wallet)"
    )
    failed = await pos_server("audit", "--incremental", "--json", POS_DATABASE_URL=dsn)
    report = json.loads(failed.out)
    assert (failed.status, report["audit"], report["proved"], report["seals"]) == (1, "failed", [], seals)
    assert [finding["check"] for finding in report["findings"]] == ["stored_balances"]
    both = await pos_server("audit", "--incremental", "--seals", POS_DATABASE_URL=dsn)
    assert (both.status, "two commands" in both.err) == (2, True)


async def test_a_ledger_with_an_archive_passes(world: World, falsifier: asyncpg.Connection) -> None:
    report = await run(falsifier)
    assert report.ok, report.findings
    assert report.later_transfers > 0


@LONG
@pytest.mark.parametrize(
    "planted",
    [planted for planted in FALSIFICATIONS if planted.by == AUDIT],
    ids=lambda planted: f"{planted.table}: {planted.changes}: {planted.check}",
)
async def test_a_falsification_of_a_sealed_ledger_is_named(
    planted: Falsification, world: World, falsifier: asyncpg.Connection
) -> None:
    for table, column in planted.columns:
        await allow_writing(falsifier, table, column)
    assert await falsifier.execute(world.filled(planted.statement)) == "UPDATE 1"
    report = await run(falsifier)
    assert report.ok == ((planted.table, planted.changes) in NOT_YET), report.findings
