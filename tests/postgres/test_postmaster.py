"""The pid file, the login and signals, with fake servers. test_embedded.py runs real servers."""

import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pos_server.postgres.os_user import EmbeddedPostgresError, OsUser
from pos_server.postgres.postmaster import SHORT_DIR, Postmaster, discard_socket_dir, make_socket_dir
from tests.postgres.processes import alive, on_linux, until

PID_FILE = """4711
/srv/shop/postgres
1700000000
5432
/srv/shop/run

  2195521   1245247
ready\x20\x20
"""
OURSELVES = OsUser(os.geteuid(), os.getegid())


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pos-test-", dir="/tmp") as path:
        (Path(path) / "postgres").mkdir()
        yield Path(path)


@pytest.fixture
def listener(data_dir: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(5)
        listener.bind(str(data_dir / "socket"))
        listener.listen()
        yield listener


def of(data_dir: Path, pid: int = 4711) -> Postmaster:
    return Postmaster(data_dir, pid, data_dir / "socket", ready=True)


# --- The pid file ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PID_FILE, (4711, "/srv/shop/run/.s.PGSQL.5432", True)),
        (PID_FILE.replace("ready", "starting"), (4711, "/srv/shop/run/.s.PGSQL.5432", False)),
        (PID_FILE.partition("\n  2195521")[0], (4711, "/srv/shop/run/.s.PGSQL.5432", False)),
        (PID_FILE.replace("/srv/shop/run", "/tmp/pos-postgres-x"), (4711, "/tmp/pos-postgres-x/.s.PGSQL.5432", True)),
        ("4711\n/srv/shop/postgres\n", None),
        ("", None),
        (None, None),
    ],
    ids=["ready", "starting", "short", "other socket directory", "half written", "empty", "none"],
)
def test_pid_file(data_dir: Path, text: str | None, expected: tuple[int, str, bool] | None) -> None:
    if text is not None:
        (data_dir / "postgres" / "postmaster.pid").write_text(text)
    postmaster = Postmaster.read(data_dir)
    if expected is None:
        assert postmaster is None
    else:
        pid, path, ready = expected
        assert postmaster == Postmaster(data_dir, pid, Path(path), ready)


# --- Login ---


def error(sqlstate: str, message: str) -> bytes:
    body = f"SFATAL\0C{sqlstate}\0M{message}\0\0".encode()
    return b"E" + struct.pack("!I", 4 + len(body)) + body


READY = b"R" + struct.pack("!II", 8, 0) + b"Z" + struct.pack("!I", 5) + b"I"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (READY, True),
        (error("53300", "sorry, too many clients already"), True),
        (error("57P03", "the database system is starting up"), False),
        (b"", False),
        (READY[:12], False),
    ],
    ids=["ready", "full", "starting", "hangs up", "hangs up half way"],
)
def test_accepts_login(data_dir: Path, listener: socket.socket, answer: bytes, expected: bool) -> None:
    request, result = exchange(data_dir, listener, answer)
    assert request == b"\0\0\0\x1f\0\3\0\0user\0pos\0database\0pos\0\0"
    assert result is expected


def test_rejected_login_is_an_error(data_dir: Path, listener: socket.socket) -> None:
    expected = rf"Postgres in {data_dir} rejects the role pos or the database pos: no such role\. Undo"
    with pytest.raises(EmbeddedPostgresError, match=expected):
        exchange(data_dir, listener, error("28000", "no such role"))


def exchange(data_dir: Path, listener: socket.socket, answer: bytes) -> tuple[bytes, bool]:
    requests: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            requests.append(connection.recv(100))
            connection.sendall(answer)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(100):
                pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        result = of(data_dir).accepts_login()
    finally:
        thread.join()
    return requests[0], result


def test_no_listener(data_dir: Path) -> None:
    postmaster = of(data_dir)
    assert not postmaster.listens()
    assert not postmaster.accepts_login()
    assert not postmaster.send(signal.SIGINT)


# --- Signals ---


def test_signal_goes_to_the_listening_process(data_dir: Path, listener: socket.socket) -> None:
    got: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: got.append(number))
    try:
        assert of(data_dir, pid=os.getpid()).send(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert got == [signal.SIGUSR1]


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel who listens")
def test_no_signal_to_a_process_that_does_not_listen(data_dir: Path, listener: socket.socket) -> None:
    with pytest.raises(EmbeddedPostgresError, match="in another container, or is not the process"):
        of(data_dir, pid=os.getppid()).send(signal.SIGUSR1)


# --- The socket's directory ---


def test_socket_directory_is_recreated_and_removed(data_dir: Path) -> None:
    path = make_socket_dir(data_dir, OURSELVES)
    (path / ".s.PGSQL.5432").touch()
    (path / ".s.PGSQL.5432.lock").touch()
    assert make_socket_dir(data_dir, OURSELVES) == path == data_dir / "run"
    assert list(path.iterdir()) == []
    assert path.stat().st_mode & 0o777 == 0o700
    discard_socket_dir(data_dir, path)
    assert not path.exists()


@pytest.mark.parametrize("name", ["x" * 100, "comma,", "colon:"])
def test_socket_directory_of_a_path_that_is_too_long(data_dir: Path, name: str) -> None:
    path = make_socket_dir(data_dir / name, OURSELVES)
    assert path.parent == SHORT_DIR
    discard_socket_dir(data_dir / name, path)
    assert not path.exists()


def test_other_directories_are_not_removed(data_dir: Path) -> None:
    (data_dir / "sockets").mkdir()
    (data_dir / "sockets" / ".s.PGSQL.5432").touch()
    discard_socket_dir(data_dir, data_dir / "sockets")
    assert (data_dir / "sockets" / ".s.PGSQL.5432").exists()


@on_linux
def test_a_killed_process_that_nobody_has_reaped_does_not_exist(tmp_path: Path) -> None:
    child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
    server = Postmaster(tmp_path, child.pid, tmp_path / "socket", ready=True)
    assert server.exists()
    child.kill()
    until(lambda: not alive(child.pid))
    assert not server.exists()
    child.communicate()
    assert not server.exists()
