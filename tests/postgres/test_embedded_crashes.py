"""The embedded Postgres after crashes: killed processes, servers that do not stop, an interrupted creation."""

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pos_server.postgres import embedded, os_user
from pos_server.postgres.embedded import EmbeddedPostgres, EmbeddedPostgresError
from tests.postgres.processes import (
    DEADLINE_S,
    WHEEL_BIN,
    Log,
    User,
    fake_binaries,
    gate,
    kill_server,
    on_linux,
    open_gate,
    postmaster,
    query,
    until,
)

pytestmark = pytest.mark.postgres

# --- Crashes ---


def test_killed_server_recovers(data_dir: Path) -> None:
    log = Log(data_dir)
    first = EmbeddedPostgres(data_dir)
    dsn = first.start()
    query(dsn, "create table sale (amount_minor bigint)")
    query(dsn, "insert into sale values (1250)")
    kill_server(data_dir)
    # The first user still uses the server, and its DSN stays valid.
    with EmbeddedPostgres(data_dir) as dsn_again:
        assert dsn_again == dsn
        assert query(dsn, "select amount_minor from sale") == 1250
    assert query(dsn, "select amount_minor from sale") == 1250
    first.stop()
    assert log.count("automatic recovery in progress") == 1


def test_process_id_taken_by_another_process(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    server.start()
    kill_server(data_dir)
    owner = (data_dir / "postgres").owner()
    with subprocess.Popen(["sleep", "60"], user=owner if os.geteuid() == 0 else None) as other:
        for path in (data_dir / "postgres" / "postmaster.pid", data_dir / "run" / ".s.PGSQL.5432.lock"):
            _, _, rest = path.read_text().partition("\n")
            path.write_text(f"{other.pid}\n{rest}")
        server.stop()
        assert query(server.start(), "select 1") == 1
        server.stop()
        assert other.poll() is None
        other.kill()


def test_server_of_another_program_is_not_touched(data_dir: Path) -> None:
    cluster = data_dir / "postgres"
    options = ["-D", str(cluster), "-k", str(cluster), "-c", "listen_addresses="]
    identity = os_user.server_user(data_dir, cluster).identity
    with subprocess.Popen(
        [str(WHEEL_BIN / "postgres"), *options], cwd="/", env={}, stderr=subprocess.DEVNULL, **identity
    ) as by_hand:
        until((cluster / ".s.PGSQL.5432").exists)
        expected = rf"started by another program \(process {by_hand.pid}\).*pg_ctl"
        with pytest.raises(EmbeddedPostgresError, match=expected):
            EmbeddedPostgres(data_dir).start()
        assert postmaster(data_dir) == by_hand.pid
        assert by_hand.poll() is None
        by_hand.send_signal(signal.SIGINT)


@on_linux
def test_server_that_does_not_stop_orderly_is_stopped_immediately(data_dir: Path) -> None:
    log = Log(data_dir)
    server = EmbeddedPostgres(data_dir, stop_timeout_s=0.1)
    query(server.start(), "create table unordered ()")
    pid = postmaster(data_dir)
    os.kill(pid, signal.SIGSTOP)

    def pending() -> set[signal.Signals]:
        lines = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return {number for number in (signal.SIGINT, signal.SIGQUIT) if int(lines["ShdPnd"], 16) >> number - 1 & 1}

    with ThreadPoolExecutor() as pool:
        stopping = pool.submit(server.stop)
        until(lambda: pending() == {signal.SIGINT, signal.SIGQUIT})
        os.kill(pid, signal.SIGCONT)
        stopping.result(DEADLINE_S)
    assert log.count("immediate shutdown request") == 1
    with server as dsn:
        assert query(dsn, "select to_regclass('unordered') is not null")


def test_server_that_does_not_stop_at_all(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "IMMEDIATE_TIMEOUT_S", 0.1)
    server = EmbeddedPostgres(data_dir, stop_timeout_s=0.1)
    server.start()
    pid = postmaster(data_dir)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(EmbeddedPostgresError, match=rf"\(process {pid}\) does not stop: .* kill -9"):
        server.stop()
    os.kill(pid, signal.SIGCONT)
    with server as dsn:
        assert query(dsn, "select 1") == 1


def test_slow_recovery_is_joined_later(base: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "NOTICE_AFTER_S", 0.05)
    log = Log(data_dir)
    waiting = gate(base)
    slow = f'test "$1" = --version || cat {waiting}\nexec "{WHEEL_BIN / "postgres"}" "$@"'
    bin_dir = fake_binaries(base, postgres=slow)
    messages: list[str] = []
    with pytest.raises(EmbeddedPostgresError, match=r"not ready after 0 s.*start again later"):
        EmbeddedPostgres(data_dir, bin_dir=bin_dir, start_timeout_s=0.1, say=messages.append).start()
    assert messages == [f"Waiting for Postgres in {data_dir} to recover from a crash."]
    open_gate(waiting)
    with EmbeddedPostgres(data_dir) as dsn:
        assert query(dsn, "select 1") == 1
    assert log.count("ready to accept connections") == 1


# --- Creation of the database ---


def test_killed_during_creation(base: Path) -> None:
    data_dir, waiting = base / "data", gate(base)
    bin_dir = fake_binaries(base, initdb=f'touch "$2/half"; cat {waiting}')
    user = User(data_dir, bin_dir)
    until(lambda: list(data_dir.glob("postgres.new-*/half")))
    user.kill()
    assert not (data_dir / "postgres").exists()
    # The orphaned child is still running, so no other process may start.
    with pytest.raises(EmbeddedPostgresError, match=rf"Process {user.process.pid} or one of its children.* 0\.2 s"):
        EmbeddedPostgres(data_dir, start_timeout_s=0.1, stop_timeout_s=0.1).start()
    (bin_dir / "initdb").write_text("#!/bin/sh\necho next\nexit 3\n")
    open_gate(waiting)
    with pytest.raises(EmbeddedPostgresError, match=r"exit code 3.*\n  next\n"):
        EmbeddedPostgres(data_dir, bin_dir=bin_dir).start()
    assert not list(data_dir.glob("postgres*/half"))


def test_failed_creation_leaves_nothing(base: Path) -> None:
    bin_dir = fake_binaries(base, initdb='touch "$2/half"; echo "initdb: No space left on device"; exit 3')
    with pytest.raises(EmbeddedPostgresError) as caught:
        EmbeddedPostgres(base / "data", bin_dir=bin_dir).start()
    assert str(caught.value) == (
        f"Creating the database failed with exit code 3. The end of {base / 'data' / 'postgres.log'}:\n"
        "  initdb: No space left on device\n"
        f"Free some space on the disk of {base / 'data'}."
    )
    assert sorted(path.name for path in (base / "data").iterdir()) == [
        "postgres.log",
        "server.lock",
        "start.lock",
        "users.lock",
    ]


def test_creation_timeout(base: Path) -> None:
    bin_dir = fake_binaries(base, initdb="exec sleep 60")
    with pytest.raises(EmbeddedPostgresError, match=r"more than 0\.1 s: choose a faster disk"):
        EmbeddedPostgres(base / "data", bin_dir=bin_dir, start_timeout_s=0.1).start()
    assert not (base / "data" / "postgres").exists()
