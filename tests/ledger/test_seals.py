"""The chain of seals: changed, removed and added transfers are detected and named."""

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from pos_server.core.accounting.seals import NO_HASH, Seal
from pos_server.ledger.database import connect
from pos_server.ledger.seals import SealReport, check_seals, seal_days
from tests.end_to_end.server_process import pos_server
from tests.ledger.test_payments import run_batch
from tests.support import Shop

pytestmark = pytest.mark.asyncio
# Yesterday at noon, so that the days before have ended whenever and however long the tests run.
NOW = datetime.now(UTC).replace(hour=12) - timedelta(days=1)


EDITED = "or the seal before it was edited"


def silent(seal: Seal) -> None:
    """Ignore the progress."""


async def check(admin: asyncpg.Connection, expected: str | None = None) -> SealReport:
    return await check_seals(admin, silent, expected)


async def three_days(connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection) -> list[int]:
    """Make three sealed days, the second without transfers, and an open day; return the ids of sealed transfers."""
    for days_ago in (3, 1, 0):
        await run_batch(connection, *(shop.scan(wallet) for wallet in range(3)))
        last = "select id from transfer order by id desc limit 3"
        await admin.execute(f"update transfer set created_at = $1 where id in ({last})", NOW - timedelta(days=days_ago))
    await admin.execute("delete from transfer where kind = 'top_up'")
    await seal_days(admin, NOW, "UTC", silent)
    open_from = datetime(NOW.year, NOW.month, NOW.day, tzinfo=UTC)
    return [
        row["id"] for row in await admin.fetch("select id from transfer where created_at < $1 order by id", open_from)
    ]


async def test_past_days_are_sealed_once(connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection) -> None:
    ids = await three_days(connection, shop, admin)
    seals = await admin.fetch("select number, day, transfers, previous_hash, hash from seal order by number")
    assert [seal["transfers"] for seal in seals] == [3, 0, 3]
    assert [seal["day"] for seal in seals] == [(NOW - timedelta(days=days)).date() for days in (3, 2, 1)]
    assert seals[0]["previous_hash"] == NO_HASH
    assert [seal["previous_hash"] for seal in seals[1:]] == [seal["hash"] for seal in seals[:-1]]
    report = await check(admin)
    assert (report.ok, report.seals, report.transfers) == (True, 3, len(ids))
    again = await seal_days(admin, NOW, "UTC", silent)
    assert again == report.last_hash == seals[-1]["hash"]
    assert await admin.fetchval("select count(*) from seal") == 3


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("update transfer set amount_minor = amount_minor + 1 where id = <0>", ["transfer <0> was changed"]),
        ("update transfer set created_at = created_at + interval '1 us' where id = <4>", ["transfer <4> was changed"]),
        ("update transfer set wallet_number = wallet_number + 1 where id = <3>", ["transfer <3> was changed"]),
        ("delete from transfer where id = <2>", ["transfer <2> was removed"]),
        ("update transfer set id = 100000 where id = <5>", ["transfer <5> was removed"]),
        (
            "update transfer set id = -id where id in (<0>, <1>); "
            "update transfer set id = case when id = -<0> then <1> else <0> end where id < 0",
            ["transfer <0> was changed", "transfer <1> was changed"],
        ),
        (
            "update seal set hash = sha256('x') where number = 1",
            [f"seal 1 of <d3> {EDITED}", f"seal 2 of <d2> {EDITED}"],
        ),
        ("update seal set transfers = 4 where number = 3", [f"seal 3 of <d1> {EDITED}"]),
        ("update seal set digests = '' where number = 3", [f"seal 3 of <d1> {EDITED}"]),
        ("update seal set day = day - 1 where number = 3", [f"seal 3 of <d2> {EDITED}"]),
        (
            "delete from seal where number = 2",
            ["seal 2 was removed", f"seal 3 of <d1> {EDITED}"],
        ),
    ],
)
async def test_damaged_transfers_are_named(
    damage: str, named: list[str], connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection
) -> None:
    ids = await three_days(connection, shop, admin)

    def filled(text: str) -> str:
        for index, number in enumerate(ids):
            text = text.replace(f"<{index}>", str(number))
        for days in (1, 2, 3):
            text = text.replace(f"<d{days}>", str((NOW - timedelta(days=days)).date()))
        return text

    await admin.execute("alter table transfer alter id drop identity")
    await admin.execute(filled(damage))
    assert (await check(admin)).problems == [filled(text) for text in named]


async def test_an_added_transfer_is_named(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection
) -> None:
    ids = await three_days(connection, shop, admin)
    await admin.execute("delete from transfer where id = $1", ids[1])
    await admin.execute("alter table transfer alter id drop identity; drop index transfer_source")
    await admin.execute(
        "insert into transfer select (jsonb_populate_record(t, jsonb_build_object('id', $1::bigint))).* "
        "from transfer t where id = $2",
        ids[1],
        ids[0],
    )
    assert (await check(admin)).problems == [f"transfer {ids[1]} was changed"]


async def test_a_replaced_chain_lacks_the_expected_hash(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection
) -> None:
    ids = await three_days(connection, shop, admin)
    kept = (await check(admin)).last_hash.hex()
    assert (await check(admin, kept)).ok
    await admin.execute("update transfer set amount_minor = 1 where id = $1", ids[0])
    await admin.execute("delete from seal")
    await seal_days(admin, NOW, "UTC", silent)
    assert (await check(admin)).ok, "the rows and the new chain agree"
    assert (await check(admin, kept)).problems == [f"no seal has the hash {kept}: seals were removed or replaced"]


async def test_sealing_waits_for_transactions_that_add_transfers(
    dsn: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await three_days(connection, shop, admin)
    other = await connect(dsn, timeout_s=10)
    try:
        async with other.transaction():
            await run_batch(other, shop.scan())
            monkeypatch.setattr("pos_server.ledger.horizon.WRITERS_TIMEOUT_S", 0.2)
            tomorrow = NOW + timedelta(days=2)
            with pytest.raises(Exception, match="may add transfers and has been open"):
                await seal_days(admin, tomorrow, "UTC", silent)
        await seal_days(admin, tomorrow, "UTC", silent)
        report = await check(admin)
        assert (report.ok, report.transfers) == (True, 10)
    finally:
        await other.close()


async def test_the_commands(dsn: str, connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection) -> None:
    await three_days(connection, shop, admin)
    await admin.execute("delete from seal")
    sealed = await pos_server("seal", POS_DATABASE_URL=dsn)
    assert (sealed.status, len(sealed.out.strip())) == (0, 64), sealed.err
    assert "3 transfers" in sealed.err
    good = await pos_server("audit", "--seals", "--expect", sealed.out.strip(), "--json", POS_DATABASE_URL=dsn)
    assert f'"last_hash": "{sealed.out.strip()}"' in good.out
    await admin.execute("update transfer set created_at = created_at - interval '1 s' where kind = 'payment'")
    bad = await pos_server("audit", "--seals", POS_DATABASE_URL=dsn)
    assert bad.status == 1
    assert "SEALS BROKEN:\n  transfer " in bad.out
