"""Our own Postgres: real binaries, real processes, killed in every way that a machine or a user can think of."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from pos_server.postgres import binaries, embedded, os_user, server_log
from pos_server.postgres.embedded import EmbeddedPostgres, EmbeddedPostgresError
from pos_server.postgres.os_user import OsUser
from tests.support import open_directory

pytestmark = pytest.mark.postgres

ROOT = Path(__file__).parents[2]
WHEEL_BIN = binaries._wheel() / binaries.BIN
DEADLINE_S = 20.0

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="about what root does")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

# Uses the server until a line comes in. Becomes another user only after the imports, which may be in a private home.
USER = """
import os, pwd, signal, sys
from pathlib import Path
from pos_server.postgres.embedded import EmbeddedPostgres
if os.environ["NAME"]:
    user = pwd.getpwnam(os.environ["NAME"])
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
signal.signal(signal.SIGINT, lambda *_: os.write(1, b"interrupted\\n"))
with EmbeddedPostgres(Path(sys.argv[1]), bin_dir=Path(sys.argv[2]) if len(sys.argv) > 2 else None) as dsn:
    print(dsn, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def base() -> Iterator[Path]:
    """A new directory; no server outlives it."""
    yield from directory_in_tmp()


@pytest.fixture(scope="module")
def shared() -> Iterator[Path]:
    for path in directory_in_tmp():
        with EmbeddedPostgres(path / "data"):
            pass
        yield path


@pytest.fixture
def data_dir(shared: Path) -> Iterator[Path]:
    """A data directory that lives through most of these tests, one after the other, with no server at first."""
    yield shared / "data"
    kill_servers(shared)


def directory_in_tmp() -> Iterator[Path]:
    # Not pytest's directories, whose long names may not fit into a socket address.
    path = open_directory("pos-test-", parent="/tmp")
    yield path
    kill_servers(path)
    shutil.rmtree(path)


def kill_servers(under: Path) -> None:
    """After a failed test: a passed one leaves none."""
    for pid_file in under.rglob("postmaster.pid"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid_file.read_text().split()[0]), signal.SIGKILL)


class User:
    """Another process that uses the server in `data_dir`."""

    def __init__(self, data_dir: Path, *arguments: Path, name: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, data_dir, *arguments],
            env={"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "PYTHONDONTWRITEBYTECODE": "1", "NAME": name},
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )

    def says(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, "it ended, see its stderr"
        return line

    def leave(self) -> None:
        self.process.communicate("\n", timeout=DEADLINE_S)
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=DEADLINE_S)


def query(dsn: str, statement: str, *arguments: object) -> Any:
    async def run() -> Any:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetchval(statement, *arguments)
        finally:
            await connection.close()

    return asyncio.run(run())


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "this took too long"
        time.sleep(0.005)


def postmaster(data_dir: Path) -> int:
    return int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1]
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc/self").exists()


def kill_server(data_dir: Path) -> None:
    """As the out-of-memory killer would: the first process at once; its children notice and follow."""
    pid = postmaster(data_dir)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid))


def fake_binaries(base: Path, **scripts: str) -> Path:
    """A `bin_dir` of shell scripts; what is not given is the real program."""
    directory = base / "fake-bin"
    directory.mkdir()
    directory.chmod(0o755)
    for name in ("initdb", "postgres"):
        path = directory / name
        path.write_text("#!/bin/sh\n" + scripts.get(name, f'exec "{WHEEL_BIN / name}" "$@"') + "\n")
        path.chmod(0o755)
    return directory


def gate(base: Path) -> Path:
    """A named pipe: a script that reads it waits until `open_gate`."""
    path = base / "gate"
    os.mkfifo(path)
    path.chmod(0o644)
    return path


def open_gate(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY))


@contextlib.contextmanager
def changed(path: Path, text: str) -> Iterator[None]:
    before = path.read_text()
    path.write_text(text)
    yield
    path.write_text(before)


class Log:
    """What the server's log gets from now on."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / "postgres.log"
        self.start = self.path.stat().st_size if self.path.exists() else 0

    def count(self, text: str) -> int:
        return self.path.read_bytes()[self.start :].count(text.encode())


# --- The life of one server ---


def test_data_survive_stop_and_start(base: Path) -> None:
    data_dir = base / "new" / "data"
    said: list[str] = []
    parents = {path: (path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in base.parents}
    server = EmbeddedPostgres(data_dir, say=said.append)
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
    assert said == [f"Creating a database in {data_dir}."]
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


def test_settings_outrank_alter_system(data_dir: Path) -> None:
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
def test_path_that_is_no_socket_address(shared: Path, data_dir: Path, name: str) -> None:
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


def test_many_start_at_once_on_nothing(base: Path) -> None:
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


def test_server_on_its_way_out_is_waited_for(data_dir: Path) -> None:
    """As left by a process that was killed while it stopped the server."""
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


# --- Crashes ---


def test_killed_server_recovers(data_dir: Path) -> None:
    log = Log(data_dir)
    first = EmbeddedPostgres(data_dir)
    dsn = first.start()
    query(dsn, "create table sale (amount_minor bigint)")
    query(dsn, "insert into sale values (1250)")
    kill_server(data_dir)
    # The first user still is one, and its DSN stays good.
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


def test_server_started_by_hand_is_left_alone(data_dir: Path) -> None:
    cluster = data_dir / "postgres"
    options = ["-D", str(cluster), "-k", str(cluster), "-c", "listen_addresses="]
    identity = os_user.server_user(data_dir, cluster).identity
    with subprocess.Popen(
        [str(WHEEL_BIN / "postgres"), *options], cwd="/", env={}, stderr=subprocess.DEVNULL, **identity
    ) as by_hand:
        until((cluster / ".s.PGSQL.5432").exists)
        with pytest.raises(EmbeddedPostgresError, match=rf"started by another program \(process {by_hand.pid}\).*pg_ctl"):
            EmbeddedPostgres(data_dir).start()
        assert postmaster(data_dir) == by_hand.pid
        assert by_hand.poll() is None
        by_hand.send_signal(signal.SIGINT)


@on_linux
def test_server_that_does_not_stop_in_order_is_stopped_at_once(data_dir: Path) -> None:
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


def test_slow_recovery_goes_on_and_is_joined_later(base: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "NOTICE_AFTER_S", 0.05)
    log = Log(data_dir)
    waiting = gate(base)
    slow = f'test "$1" = --version || cat {waiting}\nexec "{WHEEL_BIN / "postgres"}" "$@"'
    bin_dir = fake_binaries(base, postgres=slow)
    said: list[str] = []
    with pytest.raises(EmbeddedPostgresError, match=r"not ready after 0 s.*start again later"):
        EmbeddedPostgres(data_dir, bin_dir=bin_dir, start_timeout_s=0.1, say=said.append).start()
    assert said == [f"Waiting for Postgres in {data_dir} to recover from a crash."]
    open_gate(waiting)
    with EmbeddedPostgres(data_dir) as dsn:
        assert query(dsn, "select 1") == 1
    assert log.count("ready to accept connections") == 1


# --- Making the database ---


def test_killed_while_making_the_database(base: Path) -> None:
    data_dir, waiting = base / "data", gate(base)
    bin_dir = fake_binaries(base, initdb=f'touch "$2/half"; cat {waiting}')
    user = User(data_dir, bin_dir)
    until(lambda: list(data_dir.glob("postgres.new-*/half")))
    user.kill()
    assert not (data_dir / "postgres").exists()
    # The orphaned child is still at it, so nobody else may begin.
    with pytest.raises(EmbeddedPostgresError, match=rf"Process {user.process.pid} or one of its children.* 0\.2 s"):
        EmbeddedPostgres(data_dir, start_timeout_s=0.1, stop_timeout_s=0.1).start()
    (bin_dir / "initdb").write_text("#!/bin/sh\necho next\nexit 3\n")
    open_gate(waiting)
    with pytest.raises(EmbeddedPostgresError, match=r"exit code 3.*\n  next\n"):
        EmbeddedPostgres(data_dir, bin_dir=bin_dir).start()
    assert not list(data_dir.glob("postgres*/half"))


def test_failure_to_make_the_database_leaves_nothing(base: Path) -> None:
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


def test_database_that_takes_too_long_to_make(base: Path) -> None:
    bin_dir = fake_binaries(base, initdb="exec sleep 60")
    with pytest.raises(EmbeddedPostgresError, match=r"more than 0\.1 s: choose a faster disk"):
        EmbeddedPostgres(base / "data", bin_dir=bin_dir, start_timeout_s=0.1).start()
    assert not (base / "data" / "postgres").exists()


# --- Errors that say what to do ---


def test_other_major_version(data_dir: Path) -> None:
    expected = r"created by PostgreSQL 15, but .* PostgreSQL 18: .*POS_POSTGRES_BIN_DIR .*, or dump"
    with changed(data_dir / "postgres" / "PG_VERSION", "15\n"), pytest.raises(EmbeddedPostgresError, match=expected):
        EmbeddedPostgres(data_dir).start()


def test_directory_that_is_no_database(base: Path) -> None:
    (base / "data" / "postgres").mkdir(parents=True)
    if os.geteuid() == 0:
        shutil.chown(base / "data" / "postgres", "nobody")
    with pytest.raises(EmbeddedPostgresError, match=r"no PG_VERSION.*move it away"):
        EmbeddedPostgres(base / "data").start()


def test_server_that_ends_at_once_is_quoted(data_dir: Path) -> None:
    conf = data_dir / "postgres" / "postgresql.conf"
    expected = rf'(?s)exited with code 1 .*no_such_parameter" in file "{conf}".*Fix the problem in these lines'
    with changed(conf, "no_such_parameter = 1\n"), pytest.raises(EmbeddedPostgresError, match=expected):
        EmbeddedPostgres(data_dir).start()


def test_server_that_refuses_us(data_dir: Path) -> None:
    expected = r"rejects the role pos.*pg_hba\.conf.*Undo"
    hba = data_dir / "postgres" / "pg_hba.conf"
    with changed(hba, "local all all reject\n"), pytest.raises(EmbeddedPostgresError, match=expected):
        EmbeddedPostgres(data_dir).start()
    assert not (data_dir / "postgres" / "postmaster.pid").exists()


def test_missing_and_broken_binaries(base: Path, data_dir: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match=r"does not contain initdb: .*POS_POSTGRES_BIN_DIR"):
        EmbeddedPostgres(data_dir, bin_dir=base).start()
    broken = fake_binaries(base, postgres="echo 'GLIBC_2.99 not found' >&2; exit 1")
    with pytest.raises(EmbeddedPostgresError, match=r"does not run \(GLIBC_2\.99 not found\).*POS_DATABASE_URL"):
        EmbeddedPostgres(data_dir, bin_dir=broken).start()


def test_file_system_that_does_not_keep_locks(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_try_lock", lambda fd, kind: True)
    monkeypatch.setattr(embedded, "EXIT_TIMEOUT_S", 0.1)
    with pytest.raises(EmbeddedPostgresError, match=r"inherit file locks .* choose a directory on a local disk"):
        EmbeddedPostgres(data_dir).start()
    until(lambda: not (data_dir / "postgres" / "postmaster.pid").exists())


def test_data_directory_that_cannot_be_made(base: Path) -> None:
    (base / "file").write_text("")
    with pytest.raises(EmbeddedPostgresError, match=r"Not a directory.*choose another one with --data-dir"):
        EmbeddedPostgres(base / "file" / "data").start()


# --- Root, and everybody else ---


@as_root
@pytest.mark.parametrize("closed", ["data", ""], ids=["the data directory", "a directory above"])
def test_root_is_told_which_directory_blocks(base: Path, closed: str) -> None:
    data_dir = base / "data"
    data_dir.mkdir(mode=0o711)
    blocking = base / closed
    blocking.chmod(0o700)
    modes = [path.stat().st_mode for path in (base, data_dir)]
    expected = rf"may not enter {blocking}: .*--data-dir /var/lib/pos-server, .*chmod o\+x {blocking}$"
    with pytest.raises(EmbeddedPostgresError, match=expected):
        EmbeddedPostgres(data_dir).start()
    assert [path.stat().st_mode for path in (base, data_dir)] == modes
    assert not (data_dir / "postgres").exists()


@as_root
def test_root_and_the_owner_of_the_directory_take_turns(base: Path) -> None:
    data_dir = base / "home" / "data"
    data_dir.mkdir(parents=True, mode=0o700)
    for path in (data_dir.parent, data_dir):
        shutil.chown(path, "nobody")
    data_dir.parent.chmod(0o700)
    with pytest.raises(EmbeddedPostgresError, match="exit code 3"):
        EmbeddedPostgres(data_dir, bin_dir=fake_binaries(base, initdb="exit 3")).start()
    assert {path.owner() for path in data_dir.iterdir()} == {"nobody"}
    user = User(data_dir, name="nobody")
    assert query(user.says(), "select 1") == 1
    assert Path(f"/proc/{postmaster(data_dir)}").owner() == "nobody"
    user.leave()
    with EmbeddedPostgres(data_dir):
        assert Path(f"/proc/{postmaster(data_dir)}").owner() == "nobody"
        assert (data_dir / "run").owner() == "nobody"
    assert {path.owner() for path in data_dir.iterdir()} == {"nobody"}


@as_root
def test_root_copies_binaries_out_of_reach_once(base: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def blocked_at(user: OsUser, path: Path) -> Path | None:
        return path if path == WHEEL_BIN / "postgres" else really_blocked_at(user, path)

    really_blocked_at = OsUser.blocked_at
    monkeypatch.setattr(OsUser, "blocked_at", blocked_at)
    home = base / "home"
    monkeypatch.setattr(binaries, "default_data_dir", lambda: home)
    monkeypatch.setattr(os, "sync", lambda: None)
    said: list[str] = []
    for _ in range(2):
        with EmbeddedPostgres(data_dir, say=said.append):
            program = Path(f"/proc/{postmaster(data_dir)}/exe").readlink()
    (copy,) = home.iterdir()
    assert program == copy / binaries.BIN / "postgres"
    copied = [text for text in said if "Waiting" not in text]  # a slow machine may have to wait for Postgres
    assert copied == [f"Copying the Postgres binaries to {copy}."]
    ldd = subprocess.run(["ldd", program.with_name("initdb")], capture_output=True, text=True, check=True)
    assert str(copy) in ldd.stdout
    assert "not found" not in ldd.stdout
