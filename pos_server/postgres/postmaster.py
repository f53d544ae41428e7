"""The server as seen from outside: what its pid file says, whether it answers at its socket, and a signal to it."""

import contextlib
import os
import re
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pos_server.postgres.os_user import EmbeddedPostgresError, OsUser

ROLE = "pos"
DATABASE = "pos"

# The port is only a part of the socket's file name: nothing listens on TCP.
PORT = 5432
SOCKET_NAME = f".s.PGSQL.{PORT}"
# sun_path of `struct sockaddr_un` has 108 bytes on Linux and 104 on macOS and the BSDs, the final NUL included.
SOCKET_PATH_BYTES_MAX = 107 if sys.platform == "linux" else 103
# Not $TMPDIR, which may be long, or closed to the server's user.
SHORT_DIR = Path("/tmp")  # noqa: S108 - `mkdtemp` makes a private directory in it
SHORT_DIR_PREFIX = "pos-postgres-"

ANSWER_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Postmaster:
    """The server in `data_dir` according to its pid file. `ready` is its own word for it."""

    data_dir: Path
    pid: int
    socket_path: Path
    ready: bool

    @classmethod
    def read(cls, data_dir: Path) -> "Postmaster | None":
        """Read PGDATA/postmaster.pid; None if there is none, or it is not complete yet.

        Its lines: process id, data directory, start time, port, socket directory, listen address, shared memory, and
        status (PostgreSQL source, `src/include/utils/pidfile.h`).
        """
        try:
            lines = (data_dir / "postgres" / "postmaster.pid").read_text().splitlines()
            ready = len(lines) > 7 and lines[7].strip() == "ready"
            return cls(data_dir, int(lines[0]), Path(lines[4]) / f".s.PGSQL.{lines[3]}", ready)
        except (FileNotFoundError, IndexError, ValueError):
            return None

    def listens(self) -> bool:
        """Whether anything accepts connections at the socket."""
        with self._connected() as connection:
            return connection is not None

    def answers(self) -> bool:
        """Whether the server lets us in now; raises `EmbeddedPostgresError` if it never will."""
        with self._connected() as connection:
            if connection is None:
                return False
            try:
                sqlstate, message = _log_in(connection)
            except OSError:
                return False
        # Class 57 is "operator intervention", such as a shutdown under way; 53300, "too many connections", is life too.
        if sqlstate and sqlstate != "53300" and not sqlstate.startswith("57"):
            raise EmbeddedPostgresError(
                f"Postgres in {self.data_dir} refuses the role {ROLE} or the database {DATABASE}: {message}. Take back "
                f"what was changed by hand in {self.data_dir / 'postgres'}, or in the server's roles and databases."
            )
        return sqlstate in ("", "53300")

    def send(self, stop_signal: signal.Signals) -> bool:
        """Send a signal to the server that listens; returns False if none does."""
        with self._connected() as connection:
            if connection is None:
                return False
            pid = _peer(connection, otherwise=self.pid)
        if pid != self.pid:
            raise EmbeddedPostgresError(
                f"Postgres in {self.data_dir} runs in another container, or is not the one that postmaster.pid names: "
                "stop it there. A data directory is for the processes of one container."
            )
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, stop_signal)
        return True

    @contextlib.contextmanager
    def _connected(self) -> Iterator[socket.socket | None]:
        """A connection to the server's socket; None if nothing listens."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_TIMEOUT_S)
            try:
                connection.connect(str(self.socket_path))
            except OSError:
                yield None
            else:
                yield connection


def make_socket_dir(data_dir: Path, user: OsUser) -> Path:
    """A new directory for the socket, private to `user`, whose path fits into a socket address."""
    path = data_dir / "run"
    # A comma or a colon would mean something else in a setting or in a DSN.
    if len(os.fsencode(path / SOCKET_NAME)) <= SOCKET_PATH_BYTES_MAX and re.fullmatch(r"[\w./ -]+", str(path)):
        discard_socket_dir(data_dir, path)
        path.mkdir(exist_ok=True)
        path.chmod(0o700)
    else:
        path = Path(tempfile.mkdtemp(prefix=SHORT_DIR_PREFIX, dir=SHORT_DIR))
    user.own(path)
    return path


def discard_socket_dir(data_dir: Path, path: Path) -> None:
    """Remove the directory that `make_socket_dir` made for a server that is gone; leave any other alone."""
    is_short = path.parent == SHORT_DIR and path.name.startswith(SHORT_DIR_PREFIX)
    if is_short or path == data_dir / "run":
        for name in (SOCKET_NAME, f"{SOCKET_NAME}.lock"):
            (path / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.rmdir()


def _peer(connection: socket.socket, *, otherwise: int) -> int:
    """The process that listens, by the kernel's word: 0 if it is in a container that we do not see into."""
    if not hasattr(socket, "SO_PEERCRED"):
        return otherwise
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    return pid


def _log_in(connection: socket.socket) -> tuple[str | None, str]:
    """Speak the start-up exchange (PostgreSQL documentation, "Message Flow", "Start-up").

    Returns ("", "") if the server is ready for queries, the SQLSTATE and the text of its error, or (None, "") if it
    hung up. Raises `OSError`, also for a timeout.
    """
    parameters = f"user\0{ROLE}\0database\0{DATABASE}\0\0".encode()
    connection.sendall(struct.pack("!II", 8 + len(parameters), 3 << 16) + parameters)
    with connection.makefile("rb") as answers:
        while len(header := answers.read(5)) == 5:
            kind, length = struct.unpack("!cI", header)
            body = answers.read(length - 4)
            if kind == b"Z":
                connection.sendall(struct.pack("!cI", b"X", 4))
                return "", ""
            if kind == b"E":
                fields = {field[:1]: field[1:].decode("utf-8", "replace") for field in body.split(b"\0")}
                return fields.get(b"C"), fields.get(b"M", "")
    return None, ""
