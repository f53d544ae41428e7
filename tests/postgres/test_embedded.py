"""The embedded Postgres with real binaries: one server, and several processes that share it."""

import os
import signal
import subprocess
from pathlib import Path

import asyncpg
import pytest

from pos_server.postgres import embedded, server_log
from pos_server.postgres.embedded import EmbeddedPostgres, EmbeddedPostgresError
from tests.postgres.processes import (
    WHEEL_BIN,
    Log,
    User,
    alive,
    kill_server,
    on_linux,
    postmaster,
    query,
    until,
)

pytestmark = pytest.mark.postgres

# --- One server ---


def test_data_survive_stop_and_start(base: Path) -> None:
    data_dir = base / "new" / "data"
    messages: list[str] = []
    parents = {path: (path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in base.parents}
    server = EmbeddedPostgres(data_dir, say=messages.append)
    server.stop()
    dsn = server.start()
    with pytest.raises(EmbeddedPostgresError, match="already been started"):
        server.start()
    query(dsn, "create table sale (amount_minor bigint)")
    query(dsn, "insert into sale values (1250)")
    server.stop()
    assert query(server.start(), "select amount_minor from sale") == 1250
    pid = postmaster(data_dir)
    server.stop()
    server.stop()
    until(lambda: not alive(pid))
    assert messages == [f"Creating a database in {data_dir}."]
    assert {path: (path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in base.parents} == parents
    assert sorted(path.name for path in data_dir.iterdir()) == [
        "postgres",
        "postgres.log",
        "server.lock",
        "start.lock",
        "users.lock",
    ]
    assert (data_dir / "postgres").stat().st_mode & 0o777 == 0o700


def test_dsn_names_role_database_and_socket(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as dsn:
        encoded = str(data_dir / "run").replace("/", "%2F")
        assert dsn == f"postgresql://pos@/pos?host={encoded}&port=5432&sslmode=disable&target_session_attrs=any"
        assert query(dsn, "select current_user || ' ' || current_database()") == "pos pos"
        assert (data_dir / "run").stat().st_mode & 0o777 == 0o700
        for command, output in (["psql", "-Atc", "show port"], "5432\n"), (["pg_dump"], "PostgreSQL database dump"):
            child = subprocess.run([WHEEL_BIN / command[0], *command[1:], dsn], capture_output=True, text=True)
            assert output in child.stdout
            assert child.stderr == ""


def test_settings_keep_commits_and_secrets_safe(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir, max_connections=17, shared_buffers_mb=16) as dsn:
        expected = embedded.SETTINGS | {
            "max_connections": "17",
            "shared_buffers": "16MB",
            "unix_socket_directories": str(data_dir / "run"),
            "data_directory": str(data_dir / "postgres"),
            "data_checksums": "on",
            "server_encoding": "UTF8",
            "log_statement": "none",
            "log_min_duration_statement": "-1",
        }
        assert {name: query(dsn, "select current_setting($1)", name) for name in expected} == expected
        assert query(dsn, "select datcollate from pg_database where datname = 'pos'") == "C"


def test_settings_override_alter_system(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as dsn:
        query(dsn, "alter system set fsync = off")
    with EmbeddedPostgres(data_dir) as dsn:
        assert query(dsn, "show fsync") == "on"
        query(dsn, "alter system reset fsync")


@on_linux
def test_nothing_listens_on_tcp(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir):
        links = [os.readlink(path) for path in Path(f"/proc/{postmaster(data_dir)}/fd").iterdir()]
        sockets = {link[8:-1] for link in links if link.startswith("socket:")}
        of_tcp = {
            line.split()[9] for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]
        }
        assert sockets
        assert not sockets & of_tcp


def test_environment_does_not_leak_in(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PGDATA": "/nonexistent",
        "PGHOST": "db.example",
        "PGPORT": "1",
        "PGUSER": "nobody",
        "PGDATABASE": "none",
        "PGOPTIONS": "-c fsync=off",
        "PGSSLMODE": "verify-full",
        "PGTARGETSESSIONATTRS": "standby",
        "POS_MASTER_KEYS": "do-not-tell",
    }.items():
        monkeypatch.setenv(name, value)
    with EmbeddedPostgres(data_dir) as dsn:
        query(dsn, "create table variable (line text)")
        query(dsn, "copy variable from program 'env'")
        environment = query(dsn, "select string_agg(line, ' ') from variable")
        assert "TZ=UTC" in environment
        assert "do-not-tell" not in environment
        assert "db.example" not in environment
        assert query(dsn, "show fsync") == "on"


def test_log_has_no_statements_or_values(data_dir: Path) -> None:
    log = Log(data_dir)
    with EmbeddedPostgres(data_dir) as dsn:
        query(dsn, "create table device (key text primary key)")
        query(dsn, "insert into device values ($1)", "secret-key")
        with pytest.raises(asyncpg.UniqueViolationError, match="device_pkey"):
            query(dsn, "insert into device values ($1)", "secret-key")
        with pytest.raises(asyncpg.UniqueViolationError):
            query(dsn, "insert into device values ('secret-key')")
    assert log.count("device_pkey") == 2
    assert log.count("secret-key") == 0
    assert log.count("insert into") == 0


def test_large_log_is_rotated(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (data_dir / "postgres.log").read_bytes()
    monkeypatch.setattr(server_log, "LOG_BYTES_MAX", len(before) - 1)
    with EmbeddedPostgres(data_dir):
        pass
    assert (data_dir / "postgres.log.1").read_bytes() == before
    assert Log(data_dir).path.read_text().count("ready to accept connections") == 1


@pytest.mark.parametrize("name", ["long-" + "x" * 120, "comma,colon:quote'"], ids=["too long", "special characters"])
def test_path_that_does_not_fit_a_socket_address(shared: Path, data_dir: Path, name: str) -> None:
    moved = data_dir.rename(shared / name)
    server = EmbeddedPostgres(moved)
    first = Path(query(server.start(), "show unix_socket_directories"))
    assert first.parent == Path("/tmp")
    assert first.stat().st_mode & 0o777 == 0o700
    kill_server(moved)
    server.stop()
    with server as dsn:
        assert not first.exists()
        second = Path(query(dsn, "show unix_socket_directories"))
    assert not second.exists()
    moved.rename(data_dir)


def test_data_directory_by_a_symbolic_link(base: Path, data_dir: Path) -> None:
    (base / "link").symlink_to(data_dir)
    with EmbeddedPostgres(data_dir) as dsn, EmbeddedPostgres(base / "link") as dsn_by_link:
        assert dsn_by_link == dsn


# --- Several processes ---


def test_the_last_user_stops_the_server(data_dir: Path) -> None:
    first = User(data_dir)
    dsn = first.says()
    second = User(data_dir)
    assert second.says() == dsn
    pid = postmaster(data_dir)
    first.leave()
    assert alive(pid)
    assert query(dsn, "select 1") == 1
    second.leave()
    assert not alive(pid)


def test_two_users_in_one_process(data_dir: Path) -> None:
    first, second = EmbeddedPostgres(data_dir), EmbeddedPostgres(data_dir)
    dsn = first.start()
    assert second.start() == dsn
    pid = postmaster(data_dir)
    first.stop()
    assert query(dsn, "select 1") == 1
    second.stop()
    until(lambda: not alive(pid))


def test_concurrent_first_starts(base: Path) -> None:
    users = [User(base / "data") for _ in range(4)]
    assert len({user.says() for user in users}) == 1
    pid = postmaster(base / "data")
    for user in users:
        assert alive(pid)
        user.leave()
    assert not alive(pid)
    assert (base / "data" / "postgres.log").read_text().count("ready to accept connections") == 1


def test_ctrl_c_does_not_reach_the_server(data_dir: Path) -> None:
    log = Log(data_dir)
    user = User(data_dir)
    dsn = user.says()
    os.killpg(user.process.pid, signal.SIGINT)
    assert user.says() == "interrupted"
    assert query(dsn, "select 1") == 1
    user.leave()
    assert log.count("fast shutdown request") == 1


def test_orphan_is_adopted_and_stopped(data_dir: Path) -> None:
    user = User(data_dir)
    query(user.says(), "create table orphan ()")
    pid = postmaster(data_dir)
    user.kill()
    assert alive(pid)
    with EmbeddedPostgres(data_dir) as dsn:
        assert postmaster(data_dir) == pid
        assert query(dsn, "select to_regclass('orphan') is not null")
    assert not alive(pid)


def test_start_waits_for_a_server_that_is_shutting_down(data_dir: Path) -> None:
    """The state after a process was killed while it stopped the server."""
    user = User(data_dir)
    user.says()
    pid = postmaster(data_dir)
    os.kill(pid, signal.SIGSTOP)
    user.kill()
    os.kill(pid, signal.SIGINT)
    next_user = User(data_dir)
    os.kill(pid, signal.SIGCONT)
    query(next_user.says(), "select 1")
    assert postmaster(data_dir) != pid
    next_user.leave()
