"""The matrix of database errors, raised by a real Postgres in each stage of a batch.

Each row has the answer to the scan, whether the lane keeps its connection, and whether a person is alarmed. In each
case the scan that is sent again after the fault is approved, once.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest
from structlog.testing import capture_logs

from pos_server.core.errors import ErrorCode
from pos_server.core.payments.operations import Outcome, Scan
from pos_server.ledger.audit import audit
from pos_server.ledger.failures import alarms
from tests.copies import replace
from tests.engine.test_authorizer import LIMITS, Engine, payments, running, status
from tests.shared import shared_database
from tests.support import Shop

pytestmark = pytest.mark.asyncio

dsn = shared_database()

LANE = replace(LIMITS, lanes=1, batch_attempts_max=2)
BUSY, UNKNOWN = "busy", "unknown_outcome"

# SQLSTATE, answer, connection is kept, alarm.
IN_THE_WRITE = [
    ("08006", UNKNOWN, False, False),
    ("0A000", BUSY, False, True),
    ("22003", BUSY, True, True),
    ("23514", BUSY, True, True),
    ("25006", BUSY, False, False),
    ("26000", BUSY, False, True),
    ("28000", BUSY, False, True),
    ("3D000", BUSY, False, True),
    ("40001", BUSY, True, False),
    ("40003", UNKNOWN, False, True),
    ("40P01", BUSY, True, False),
    ("42501", BUSY, False, True),
    ("53100", BUSY, True, True),
    ("53200", BUSY, True, False),
    ("54001", BUSY, True, True),
    ("55P03", BUSY, True, False),
    ("57014", BUSY, True, False),
    ("57P01", UNKNOWN, False, False),
    ("58030", BUSY, False, True),
    ("F0000", BUSY, False, True),
    ("P0001", BUSY, True, True),
    ("XX001", BUSY, False, True),
    ("ZZ999", UNKNOWN, False, True),
]
AT_THE_COMMIT = [row for row in IN_THE_WRITE if row[0] in ("23514", "40001", "53100", "57014", "ZZ999")]


@asynccontextmanager
async def raised_in_the_write(admin: asyncpg.Connection, sqlstate: str, *, deferred: bool) -> AsyncIterator[None]:
    """Let every new payment raise `sqlstate`: in its statement, or at the commit if `deferred`."""
    await admin.execute(
        f"""
        create or replace function injected() returns trigger language plpgsql as $$
        begin raise exception 'injected' using errcode = '{sqlstate}'; end $$
        """
    )
    kind = "constraint trigger injected after insert" if deferred else "trigger injected before insert"
    timing = "deferrable initially deferred" if deferred else ""
    await admin.execute(f"create {kind} on payment {timing} for each row execute function injected()")
    try:
        yield
    finally:
        await admin.execute("drop trigger injected on payment")


async def backends(admin: asyncpg.Connection) -> set[int]:
    rows = await admin.fetch(
        "select pid from pg_stat_activity where datname = current_database() and application_name = 'pos-server'"
    )
    return {row["pid"] for row in rows}


async def lane_backends(admin: asyncpg.Connection, others: set[int], engine: Engine, scan: Scan) -> set[int]:
    assert [status(outcome) for outcome in await engine.authorize(scan)] == ["approved"]
    return await backends(admin) - others


@pytest.mark.parametrize(
    ("sqlstate", "answer", "keeps", "alarming", "deferred"),
    [(*row, False) for row in IN_THE_WRITE] + [(*row, True) for row in AT_THE_COMMIT],
)
async def test_an_error_that_postgres_raises_in_the_write(
    dsn: str,
    shop: Shop,
    admin: asyncpg.Connection,
    sqlstate: str,
    answer: str,
    keeps: bool,
    alarming: bool,
    deferred: bool,
) -> None:
    scan = shop.scan()
    others, before, alarms_before = await backends(admin), await payments(admin), alarms()
    async with running(dsn, LANE) as engine:
        (lane,) = await lane_backends(admin, others, engine, shop.scan(1))
        with capture_logs() as logs:
            async with raised_in_the_write(admin, sqlstate, deferred=deferred):
                outcomes = await engine.authorize(scan)
        assert [status(outcome) for outcome in outcomes] == [answer]
        assert await payments(admin) == before + 1
        assert [status(outcome) for outcome in await engine.authorize(scan)] == ["approved"]
        assert (await backends(admin) - others == {lane}) is keeps
    assert (alarms() > alarms_before) is alarming
    assert not [log for log in logs if "exc_info" in log]
    assert await payments(admin) == before + 2


async def test_an_error_in_the_load_is_busy(dsn: str, shop: Shop, admin: asyncpg.Connection) -> None:
    """The login role loses a privilege, and gets it back."""
    scan = shop.scan()
    async with running(dsn, LANE) as engine:
        await admin.execute("revoke select on wallet_device from pos_app")
        try:
            assert [status(outcome) for outcome in await engine.authorize(scan)] == [BUSY]
        finally:
            await admin.execute("grant select on wallet_device to pos_app")
        assert [status(outcome) for outcome in await engine.authorize(scan)] == ["approved"]


async def test_an_operation_at_fault_leaves_the_others_of_its_batch(
    dsn: str, shop: Shop, admin: asyncpg.Connection
) -> None:
    at_fault = shop.scan(1, reference="at fault")
    await admin.execute("alter table payment add constraint injected check (reference <> 'at fault')")
    try:
        async with running(dsn, LANE) as engine:
            outcomes = await engine.authorize(shop.scan(0), at_fault, shop.scan(2))
    finally:
        await admin.execute("alter table payment drop constraint injected")
    assert [status(outcome) for outcome in outcomes] == ["approved", BUSY, "approved"]


# Ways in which no connection can be opened, by a change of the DSN.
UNREACHABLE: dict[str, Callable[[str], str]] = {
    "no server": lambda dsn: dsn.replace("port=", "port=1"),
    "no database": lambda dsn: dsn.replace("/pos_test_", "/no_such_"),
    "no login": lambda dsn: dsn.replace("//pos@", "//nobody@"),
    "no writable host": lambda dsn: dsn.replace("target_session_attrs=any", "target_session_attrs=standby"),
}


@pytest.mark.parametrize("way", UNREACHABLE)
async def test_without_a_connection_nothing_was_sent(dsn: str, shop: Shop, way: str) -> None:
    unreachable = UNREACHABLE[way](dsn)
    assert unreachable != dsn
    with capture_logs() as logs:
        async with running(unreachable, LANE) as engine:
            outcomes = await engine.authorize(shop.scan())
    assert [status(outcome) for outcome in outcomes] == [BUSY]
    assert {log["during"] for log in logs} == {"connecting"}
    assert not [log for log in logs if "exc_info" in log]


async def test_a_server_that_became_a_standby_is_left(dsn: str, shop: Shop, admin: asyncpg.Connection) -> None:
    """`default_transaction_read_only` stands for the standby: it holds for connections that are opened now."""
    name = await admin.fetchval("select current_database()")
    scan = shop.scan()
    async with running(dsn, LANE) as engine:
        await admin.execute(f"alter database {name} set default_transaction_read_only = on")
        try:
            assert [status(outcome) for outcome in await engine.authorize(scan)] == [BUSY]
        finally:
            await admin.execute("set default_transaction_read_only = off")
            await admin.execute(f"alter database {name} reset default_transaction_read_only")
        assert [status(outcome) for outcome in await engine.authorize(scan)] == ["approved"]


# Exceptions that a driver raises at moments which a test cannot hit, the answers in the load and in the write.
OF_THE_DRIVER = [
    (asyncpg.InternalClientError("cannot switch to state 11"), BUSY, UNKNOWN),
    (asyncpg.InterfaceError("another operation is in progress"), BUSY, UNKNOWN),
    (asyncpg.TargetServerAttributeNotMatched("none"), BUSY, BUSY),
    (ConnectionResetError("reset"), BUSY, UNKNOWN),
    (TimeoutError(), BUSY, UNKNOWN),
]
NAMES = [type(row[0]).__name__ for row in OF_THE_DRIVER]


@pytest.mark.parametrize("stage", ["load_snapshot", "apply_changes"])
@pytest.mark.parametrize(("error", "in_load", "in_write"), OF_THE_DRIVER, ids=NAMES)
async def test_an_exception_of_the_driver(
    dsn: str,
    shop: Shop,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    error: Exception,
    in_load: str,
    in_write: str,
) -> None:
    async def fail(*_: object) -> None:
        raise error

    scan = shop.scan()
    async with running(dsn, LANE) as engine:
        with monkeypatch.context() as patch, capture_logs() as logs:
            patch.setattr(f"pos_server.engine.authorizer.{stage}", fail)
            outcomes = await engine.authorize(scan)
        assert [status(outcome) for outcome in outcomes] == [in_load if stage == "load_snapshot" else in_write]
        assert not [log for log in logs if "exc_info" in log]
        assert [status(outcome) for outcome in await engine.authorize(scan)] == ["approved"]


async def test_an_earlier_lost_write_is_not_forgotten(dsn: str, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in the second attempt splits the batch. Its scans stay unknown, since the first attempt may have paid."""
    attempts = iter([ConnectionResetError(), ValueError("a bug"), asyncpg.DiskFullError("full")])

    async def fail(*_: object) -> None:
        raise next(attempts, asyncpg.DiskFullError("full"))

    monkeypatch.setattr("pos_server.engine.authorizer.apply_changes", fail)
    async with running(dsn, replace(LANE, batch_attempts_max=3)) as engine:
        outcomes: list[Outcome] = await engine.authorize(shop.scan(0), shop.scan(1))
    assert [status(outcome) for outcome in outcomes] == [ErrorCode.UNKNOWN_OUTCOME] * 2


async def test_terminated_backends_leave_no_traceback_and_clean_books(
    dsn: str, shop: Shop, admin: asyncpg.Connection
) -> None:
    others = await backends(admin)
    with capture_logs() as logs:
        async with running(dsn, replace(LIMITS, batch_attempts_max=50)) as engine:

            async def end_backends() -> None:
                for _ in range(20):
                    for pid in await backends(admin) - others:
                        await admin.execute("select pg_terminate_backend($1)", pid)

            scans = [shop.scan(index % 3, amount_minor=1) for index in range(27)]
            outcomes, _ = await asyncio.gather(engine.authorize(*scans), end_backends())
    assert {status(outcome) for outcome in outcomes} <= {"approved", UNKNOWN, BUSY}
    assert not [log for log in logs if "exc_info" in log or log["log_level"] == "error"]
    assert (await audit(admin)).ok
