"""The backups of docs/operations.md: made during payments, and restored with the document's commands."""

import asyncio
import itertools
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from websockets.asyncio.client import ClientConnection

from pos_client import TerminalClient
from pos_client.terminal.journal import Journal, JournaledScan
from pos_client.terminal.recovery import RecoveredScan
from pos_server.cli import operator_acts
from pos_server.core.credentials.api_keys import Role
from pos_server.core.protocol.server_messages import TerminalPaymentResult
from pos_server.ledger.database import connect
from pos_server.postgres.embedded import EmbeddedPostgres
from pos_server.settings import Settings, new_master_key, parse_master_keys
from tests.backup.documented import Operator, operator, section
from tests.end_to_end.server_process import pos_server, running_server
from tests.end_to_end.test_crash import credentials, seed_shop
from tests.support import MASTER_KEYS, Shop, activated, ask, build_shop, logged_in, receive, scan_message
from tests.tested_postgres import BIN_DIR

pytestmark = [pytest.mark.asyncio, pytest.mark.long]

# Between sales, to stay below the limits on messages and on codes per wallet.
PAUSE_S = 0.03


@dataclass(slots=True)
class Till:
    """A till that sells to its wallets in turn. `results` maps payment ids to statuses."""

    socket: ClientConnection
    shop: Shop
    results: dict[str, str] = field(default_factory=dict)
    turns: Iterator[int] = field(default_factory=itertools.count)

    async def sell(self, **fields: Any) -> dict[str, Any]:
        wallet = self.shop.wallets[next(self.turns) % len(self.shop.wallets)]
        answer = await ask(self.socket, scan_message(wallet.code(), amount_minor=1, **fields))
        self.results[answer["payment_id"]] = answer["status"]
        return answer

    async def sell_until(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.sell()
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), PAUSE_S)


@asynccontextmanager
async def till(url: str, shop: Shop) -> AsyncIterator[Till]:
    async with logged_in(url, shop.terminals[0]) as socket:
        yield Till(socket, shop)


@asynccontextmanager
async def ledger(data_dir: Path) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection to the embedded Postgres in `data_dir`."""
    postgres = EmbeddedPostgres(data_dir, bin_dir=BIN_DIR)
    dsn = await asyncio.to_thread(postgres.start)
    try:
        connection = await connect(dsn, timeout_s=10, role=None)
        yield connection
        await connection.close()
    finally:
        await asyncio.to_thread(postgres.stop)


async def sales(connection: asyncpg.Connection) -> dict[str, str]:
    rows = await connection.fetch("select id::text, status from payment where purpose = 'sale'")
    return {row["id"]: row["status"] for row in rows}


def make_keys(data_dir: Path, text: str = MASTER_KEYS) -> None:
    """Write the tests' master keys to the file of a server with an embedded Postgres."""
    data_dir.mkdir()
    (data_dir / "master-keys").write_text(text)


async def test_a_dump_is_restored_into_a_new_directory_and_serves() -> None:
    async with operator() as op:
        make_keys(op.data)
        async with running_server("--data-dir", op.data) as server:
            shop = await seed_shop(op.data)
            async with till(server.url, shop) as cashier:
                for _ in range(10):
                    assert (await cashier.sell())["status"] == "approved"
                spent = shop.wallets[0].code()
                assert (await ask(cashier.socket, scan_message(spent)))["status"] == "approved"
                waits = await ask(cashier.socket, scan_message(shop.wallets[1].code(), entry="typed"))
                assert waits["type"] == "payment.pending"
                await op.take_names()
                await op.seal()
                await op.run(section("The keys").fence("sh"))
                await op.run(section("Make one").fence("sh"))
                lost = await cashier.sell()
            assert await server.stop() == 0
        shutil.rmtree(op.data)

        (dump,) = op.backup.iterdir()
        assert dump.stat().st_mode & 0o077 == 0
        op.variables["DUMP"] = str(dump)
        await op.run(section("Restore it").fence("sh"))
        proof = await op.run(section("Prove it").fence("sh"))
        assert "audit ok: 12 payments" in proof.out
        assert f"last hash {op.variables['HASH']}" in proof.out
        async with ledger(op.new) as connection:
            assert lost["payment_id"] not in (restored := await sales(connection))
            assert restored.items() >= {key: cashier.results[key] for key in list(cashier.results)[:10]}.items()
            # Simulates a backup of yesterday.
            await connection.execute(
                "update payment set expires_at = expires_at - interval '1 day' where status = 'pending'"
            )
        (harmless,) = re.findall(r"`(payments that [^`]+)`", section("Prove it").text)
        with pytest.raises(AssertionError, match=f"{harmless}: {waits['payment_id']}\n"):
            await op.run(section("Prove it").fence("sh"))

        async with running_server("--data-dir", op.new) as server:
            await has_expired(server.url, shop, waits["payment_id"])
            async with till(server.url, shop) as cashier:
                assert (await cashier.sell())["status"] == "approved"
                assert (await ask(cashier.socket, scan_message(spent)))["decline_code"] == "code_used"
            assert await server.stop() == 0
        assert (await op.run(section("Prove it").fence("sh"))).out.startswith("audit ok: 14 payments")


async def has_expired(url: str, shop: Shop, payment_id: str) -> None:
    """Wait until the till is notified of the expiry, by replay or push."""
    async with logged_in(url, shop.terminals[0], since_ms=0) as socket:
        while True:
            notice = await receive(socket)
            if (notice.get("payment_id"), notice.get("status")) == (payment_id, "expired"):
                return


async def test_a_restore_never_changes_an_existing_ledger() -> None:
    async with operator() as op:
        make_keys(op.data)
        await pos_server("migrate", "--data-dir", op.data)
        await op.take_names()
        await op.run(section("Make one").fence("sh"))
        (dump,) = op.backup.iterdir()
        async with ledger(op.data) as connection:
            await build_shop(connection)
        op.variables |= {"NEW": str(op.data), "DUMP": str(dump)}
        for line in section("Restore it").fence("sh").splitlines()[:2]:
            with pytest.raises(AssertionError, match=r"already contains a ledger|already exists"):
                await op.run(line)
        async with ledger(op.data) as connection:
            assert await connection.fetchval("select count(*) from wallet") == 3


@contextmanager
def external_postgres(op: Operator, name: str) -> Iterator[tuple[str, str]]:
    """Run a Postgres as an external one; yield the DSNs of its administrator and of the ledger's owner."""
    with EmbeddedPostgres(op.home / name, bin_dir=BIN_DIR) as dsn:
        yield dsn, dsn.replace("//pos@/pos?", "//pos_owner@/ledger?")


async def server_connections(dsn: str) -> int:
    """Return the number of connections of the server."""
    connection = await connect(dsn, timeout_s=10)
    here = "datname = current_database() and pid <> pg_backend_pid()"
    count: int = await connection.fetchval(f"select count(*) from pg_stat_activity where {here}")
    await connection.close()
    return count


async def test_an_external_postgres_is_set_up_dumped_and_restored() -> None:
    install, restore = section("With your Postgres"), section("Restore your Postgres")

    async def as_administrator(dsn: str, *scripts: str) -> None:
        connection = await connect(dsn, timeout_s=10, role=None)
        for statement in "".join(scripts).split(";\n")[:-1]:
            await connection.execute(statement)
        await connection.close()

    async with operator() as op:
        op.data.mkdir()
        (op.data / "postgres").mkdir()
        await op.take_names()
        shutil.rmtree(op.data)
        with external_postgres(op, "one") as (administrator, dsn):
            del op.variables["POS_DATA_DIR"]
            op.variables |= {"POS_DATABASE_URL": dsn, "POS_MASTER_KEYS": MASTER_KEYS}
            await as_administrator(administrator, install.fence("sql"))
            assert "applied 0001_ledger.sql" in (await op.run(install.fence("sh"))).out
            await as_administrator(administrator, "alter role pos_owner nocreaterole;\n")
            owner = await connect(dsn, timeout_s=10)
            shop = await build_shop(owner)
            await owner.close()
            async with running_server(**op.variables) as server, till(server.url, shop) as cashier:
                assert (await cashier.sell())["status"] == "approved"
                connections = await server_connections(dsn)
                assert 3 < connections <= 3 + Settings.model_fields["database_pool_max"].default
                await op.seal()
                await op.run(section("Dump your Postgres").fence("sh"))
        (dump,) = op.backup.iterdir()
        with external_postgres(op, "two") as (administrator, dsn):
            op.variables |= {"POS_DATABASE_URL": dsn, "DUMP": str(dump)}
            await as_administrator(administrator, install.fence("sql"), restore.fence("sql"))
            proof = await op.run(restore.fence("sh"))
            assert "audit ok: 1 payments" in proof.out
            assert f"last hash {op.variables['HASH']}" in proof.out
            async with running_server(**op.variables) as server, till(server.url, shop) as cashier:
                assert (await cashier.sell())["status"] == "approved"


@dataclass(slots=True)
class Past:
    """The sales before a moment, and the later ones that a restore to that moment loses."""

    shop: Shop
    kept: dict[str, str]
    lost: list[dict[str, Any]]
    # Made after the moment: a top-up with its API key, and the key of a device.
    top_up: dict[str, Any]
    api_key: str
    activated: bytes


async def trade(op: Operator) -> Past:
    """Archive the WAL, make a backup during payments, and note a moment."""
    async with running_server("--data-dir", op.data) as server:
        shop = await seed_shop(op.data)
        await op.take_names()
        await op.run(section("The keys").fence("sh"))
        await op.run(section("Archive the WAL").fence("sh"))
        assert await server.stop() == 0
    backup, clean_up = section("Make a base backup").fences("sh")
    async with running_server("--data-dir", op.data) as server:
        async with till(server.url, shop) as cashier, ledger(op.data) as connection:
            await op.seal()
            api_key = await operator_acts.new_key(connection, Role.ISSUER, None, "cash desk")
            await cashier.sell()
            stop = asyncio.Event()
            selling = asyncio.create_task(cashier.sell_until(stop))
            await op.run(backup)
            stop.set()
            await selling
            await cashier.sell()
            kept = dict(cashier.results)
            # No payment is in progress, so the moment lies between two payments.
            op.variables["MOMENT"] = (await connection.fetchval("select clock_timestamp()")).isoformat(" ")
            lost = [await cashier.sell() for _ in range(5)]
            number = shop.wallets[-1].device.number
            top_up = {"wallet_number": number, "merchant_id": shop.merchant_id, "amount_minor": 700}
            assert await top_up_answer(server.url, api_key, top_up) == HTTPStatus.CREATED
            assert await top_up_answer(server.url, api_key, top_up) == HTTPStatus.OK
            device = await activated(connection, shop.wallets[0].device)
        assert await server.stop() == 0
    await op.run(clean_up)
    (base,) = op.backup.glob("base-*")
    op.variables["BASE"] = str(base)
    return Past(shop, kept, lost, top_up, api_key, device.key)


async def top_up_answer(url: str, key: str, body: dict[str, Any]) -> int:
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}) as http:
        return (await http.post("/v1/top-ups", json=body, headers={"Idempotency-Key": "receipt-1"})).status_code


async def test_a_backup_made_during_payments_restores_any_moment() -> None:
    async with operator() as op:
        make_keys(op.data)
        past = await trade(op)
        assert len(past.kept) > 10
        restore = section("Restore to a moment").fence("sh")
        proof = await op.run(restore)
        assert f"audit ok: {len(past.kept)} payments" in proof.out
        assert f"last hash {op.variables['HASH']}" in proof.out
        async with ledger(op.new) as connection:
            assert await sales(connection) == past.kept
            device = await activated(connection, past.shop.wallets[0].device)
        assert device.key == past.activated, "with the same master key, the next activation repeats a lost key"
        await continue_after_restore(op, past)

        op.variables["NEW"] = str(op.home / "latest")
        await op.run("\n".join(line for line in restore.split("\n") if "recovery_target" not in line))
        async with ledger(op.home / "latest") as connection:
            assert await sales(connection) == past.kept | {sale["payment_id"]: sale["status"] for sale in past.lost}

        op.variables |= {"NEW": str(op.home / "later"), "MOMENT": "2100-01-01 00:00:00+00"}
        with pytest.raises(AssertionError, match="recovery ended before configured recovery target was reached"):
            await op.run(restore)


async def continue_after_restore(op: Operator, past: Past) -> None:
    """Check the document's statements about lost payments, with a new master key first."""
    shop, (lost, unanswered, *_) = past.shop, past.lost
    master_keys = f"{new_master_key('k2')},{MASTER_KEYS}"
    async with running_server("--data-dir", op.new, POS_MASTER_KEYS=master_keys) as server:
        async with till(server.url, shop) as cashier:
            query = {"type": "payment.query", "message_id": "q", "payment_id": lost["payment_id"]}
            assert (await ask(cashier.socket, query))["code"] == "payment_unknown"
            cashier.turns = itertools.count(1)  # the first wallet was activated again
            same_ids = {"payment_id": lost["payment_id"], "reference": lost["reference"]}
            assert (await cashier.sell(**same_ids))["status"] == "approved"
            assert (await cashier.sell(reference=lost["reference"]))["decline_code"] == "already_paid"
        assert await top_up_answer(server.url, past.api_key, past.top_up) == HTTPStatus.CREATED
        assert await top_up_answer(server.url, past.api_key, past.top_up) == HTTPStatus.OK
        await a_journal_charges_nothing(op, server.url, shop, unanswered)
        assert await server.stop() == 0
    assert (await pos_server("audit", "--data-dir", op.new)).status == 0
    # With the new master key, the next activation does not repeat the lost key.
    device, keyring = shop.wallets[0].device, parse_master_keys(master_keys)
    assert keyring.device_key(keyring.current, device, 2) != past.activated


async def a_journal_charges_nothing(op: Operator, url: str, shop: Shop, lost: dict[str, Any]) -> None:
    """Start a till with a journaled scan that the restored ledger does not know: it is canceled, not scanned again."""
    own = credentials(shop.terminals[1], url)
    journal = op.home / "till.journal"
    scan = JournaledScan(
        device=f"{own.number} at {own.server}",
        created_at_ms=0,
        payment_id=lost["payment_id"],
        reference=lost["reference"],
        amount_minor=lost["amount_minor"],
        currency=lost["currency"],
        code=shop.wallets[2].code(steps=-10),
    )
    Journal(journal, scan.device).add(scan)
    async with TerminalClient(own, journal=journal) as client:
        (recovered,) = await client.recovered()
    assert isinstance(recovered, RecoveredScan)
    assert isinstance(recovered.outcome, TerminalPaymentResult)
    assert (recovered.outcome.status, recovered.outcome.amount_minor) == ("canceled", None)
