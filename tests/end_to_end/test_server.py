"""`pos-server` for its operator: starts, stops, databases, and error messages."""

import asyncio
import json
import signal
import socket
import time
from pathlib import Path

import pytest

from pos_client import TerminalClient
from pos_server.ledger.database import connect
from pos_server.ledger.migrate import load_migrations
from tests.end_to_end.server_process import POS_SERVER, data_directory, environment, pos_server, running_server
from tests.end_to_end.test_crash import credentials, free_port, seed_shop
from tests.support import MASTER_KEYS, Shop, ask, forged, logged_in, receive, scan_message

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]


def postgres_is_running(data_dir: Path) -> bool:
    return (data_dir / "postgres" / "postmaster.pid").exists()


def wait_until_connected(data_dir: Path, deadline_s: float = 20) -> None:
    """Wait until another process has started Postgres. There is no event for it."""
    end_s = time.monotonic() + deadline_s
    while not postgres_is_running(data_dir) and time.monotonic() < end_s:
        time.sleep(0.001)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
async def test_a_signal_stops_the_server_and_its_postgres(number: signal.Signals) -> None:
    async with data_directory() as data_dir, running_server("--data-dir", data_dir) as server:
        assert postgres_is_running(data_dir)
        assert await server.stop(number) == 0
        assert not postgres_is_running(data_dir)


@pytest.mark.long
async def test_sigterm_during_the_start_stops_postgres() -> None:
    async with data_directory() as data_dir:
        await pos_server("migrate", "--data-dir", data_dir)
        async with running_server("--data-dir", data_dir) as server:
            assert await server.stop() == 0
        process = await asyncio.create_subprocess_exec(
            POS_SERVER,
            "run",
            "--port",
            "0",
            "--data-dir",
            data_dir,
            env=environment(),
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(30):
            await asyncio.to_thread(wait_until_connected, data_dir)
            process.terminate()
            assert await process.wait() in (0, 128 + signal.SIGTERM)
        assert not postgres_is_running(data_dir)


async def test_a_start_after_kill_9_keeps_the_data_and_the_keys() -> None:
    async with data_directory() as data_dir:
        async with running_server("--data-dir", data_dir) as server:
            await server.stop(signal.SIGKILL)
        assert postgres_is_running(data_dir)
        keys = (data_dir / "master-keys").read_text()
        async with running_server("--data-dir", data_dir) as server:
            assert await server.stop() == 0
        assert (data_dir / "master-keys").read_text() == keys
        assert not postgres_is_running(data_dir)


@pytest.mark.long
async def test_two_servers_can_share_a_data_directory() -> None:
    async with data_directory() as data_dir, running_server("--data-dir", data_dir) as first:
        async with running_server("--data-dir", data_dir) as second:
            assert first.url != second.url
            assert await first.stop() == 0
            assert postgres_is_running(data_dir)
            assert await second.stop() == 0
        assert not postgres_is_running(data_dir)


async def test_two_servers_on_an_external_database_without_secrets_in_their_logs(dsn: str, shop: Shop) -> None:
    """A code that is spent at one server is also spent at the other one."""
    variables = {"POS_DATABASE_URL": dsn, "POS_MASTER_KEYS": MASTER_KEYS}
    async with running_server(**variables) as one, running_server(**variables) as two:
        code, bad = shop.wallets[0].code(), forged(shop.wallets[1].code())
        async with logged_in(one.url, shop.terminals[0]) as till, logged_in(one.url, shop.wallets[0]) as phone:
            assert (await ask(till, scan_message(code)))["status"] == "approved"
            assert (await receive(phone))["status"] == "approved"
            assert (await ask(till, scan_message(bad)))["decline_code"] == "code_invalid"
            await till.send("{" + code)
        async with logged_in(two.url, shop.terminals[1]) as till:
            assert (await ask(till, scan_message(code)))["decline_code"] == "code_used"
        assert (await one.stop(), await two.stop()) == (0, 0)
    for server in (one, two):
        assert "serves http" in server.log
        for secret in (code, bad, MASTER_KEYS.partition(":")[2], shop.terminals[0].key.hex()):
            assert secret not in server.log
    audit = await pos_server("audit", "--json", POS_DATABASE_URL=dsn)
    assert (audit.status, json.loads(audit.out)["audit"]) == (0, "ok")


async def test_the_error_for_an_unreachable_database_is_one_line_without_secrets() -> None:
    variables = {
        "POS_DATABASE_START_ATTEMPTS": "2",
        "POS_DATABASE_START_PAUSE_S": "0.01",
        "POS_MASTER_KEYS": MASTER_KEYS,
    }
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"postgresql://pos:hunter2@127.0.0.1:{closed.getsockname()[1]}/pos"
        for command in ("run", "audit", "migrate"):
            ended = await pos_server(command, POS_DATABASE_URL=url, **variables)
            assert ended.status == 3
            (line,) = ended.err.splitlines()
            assert line.startswith("pos-server: cannot use the database at 127.0.0.1:")
            assert "Check that Postgres is running there and that POS_DATABASE_URL is correct." in line
            assert "hunter2" not in line


@pytest.mark.parametrize("url", ["postgresql://pos@127.0.0.1:port/pos", "mysql://x/y", "nonsense"])
async def test_the_error_for_an_invalid_database_url_is_one_line(url: str) -> None:
    ended = await pos_server("audit", POS_DATABASE_URL=url)
    assert ended.status == 3
    assert ended.err.startswith("pos-server: cannot use the database at ")
    assert len(ended.err.splitlines()) == 1


async def test_the_error_for_missing_master_keys_names_the_command(dsn: str) -> None:
    ended = await pos_server("run", POS_DATABASE_URL=dsn)
    assert (ended.status, ended.err.count("\n")) == (3, 1)
    assert "pos-server master-key" in ended.err


async def test_the_error_for_a_port_in_use_names_the_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with data_directory() as data_dir:
            ended = await pos_server("run", "--port", str(port), "--data-dir", data_dir)
            assert ended.status == 3
            assert f"cannot listen on 127.0.0.1 port {port}: Address already in use." in ended.err
            assert not postgres_is_running(data_dir)


async def test_an_audit_without_a_ledger_fails_and_creates_nothing() -> None:
    async with data_directory() as data_dir:
        ended = await pos_server("audit", "--data-dir", data_dir)
        assert (ended.status, ended.err.count("\n")) == (3, 1)
        assert f"there is no ledger in {data_dir}" in ended.err
        assert not data_dir.exists()


async def test_an_audit_of_an_empty_database_names_the_migrate_command(empty_dsn: str) -> None:
    ended = await pos_server("audit", POS_DATABASE_URL=empty_dsn)
    assert ended.status == 3
    assert "pos-server migrate` first" in ended.err


async def test_an_audit_with_findings_names_them_and_exits_with_1(dsn: str, shop: Shop) -> None:
    admin = await connect(dsn, timeout_s=10, role=None)
    await admin.execute("update wallet set balance_minor = 1 where number = $1", shop.wallets[0].device.number)
    await admin.close()
    ended = await pos_server("audit", POS_DATABASE_URL=dsn)
    assert ended.status == 1
    assert "AUDIT FAILED" in ended.out
    assert (
        f"wallets whose balance differs from the sum of their transfers: {shop.wallets[0].device.number}" in ended.out
    )
    as_json = json.loads((await pos_server("audit", "--json", POS_DATABASE_URL=dsn)).out)
    assert as_json["audit"] == "failed"
    assert as_json["findings"][0]["offenders"] == [str(shop.wallets[0].device.number)]


async def test_a_second_migrate_changes_nothing(empty_dsn: str) -> None:
    first = await pos_server("migrate", POS_DATABASE_URL=empty_dsn)
    assert first.status == 0
    assert first.out.splitlines() == [f"applied {migration.name}" for migration in load_migrations()]
    second = await pos_server("migrate", POS_DATABASE_URL=empty_dsn)
    assert (second.status, second.out) == (0, "the database is up to date\n")


@pytest.mark.long
async def test_a_till_reconnects_after_a_restart() -> None:
    async with data_directory() as data_dir:
        port = free_port()
        async with running_server("--data-dir", data_dir, port=port, POS_MASTER_KEYS=MASTER_KEYS) as server:
            shop = await seed_shop(data_dir)
            till = TerminalClient(credentials(shop.terminals[0], server.url))
            await till.__aenter__()
            first = await till.scan(code=shop.wallets[0].code(), amount_minor=1, reference="before")
            assert await server.stop() == 0
        async with running_server("--data-dir", data_dir, port=port, POS_MASTER_KEYS=MASTER_KEYS):
            second = await till.scan(code=shop.wallets[1].code(), amount_minor=1, reference="after")
        await till.__aexit__()
    assert (first.status, second.status) == ("approved", "approved")
