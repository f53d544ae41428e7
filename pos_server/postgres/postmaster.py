"""The running server as seen from outside: its pid file, its socket, and signals to it."""

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

# The port is only part of the socket's file name: nothing listens on TCP.
PORT = 5432
SOCKET_NAME = f".s.PGSQL.{PORT}"
# sun_path of `struct sockaddr_un` has 108 bytes on Linux and 104 on macOS and the BSDs, including the final NUL.
SOCKET_PATH_BYTES_MAX = 107 if sys.platform == "linux" else 103
# Not $TMPDIR, which may be long, or not accessible to the server's user.
SHORT_DIR = Path("/tmp")  # noqa: S108 - `mkdtemp` makes a private directory in it
SHORT_DIR_PREFIX = "pos-postgres-"

ANSWER_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Postmaster:
    """The server in `data_dir` according to its pid file. `ready` is the status that the server wrote there."""

    data_dir: Path
    pid: int
    socket_path: Path
    ready: bool

    @classmethod
    def read(cls, data_dir: Path) -> "Postmaster | None":
        """Read PGDATA/postmaster.pid; return None if it does not exist or is incomplete.

        Its lines are process id, data directory, start time, port, socket directory, listen address, shared memory and
        status (PostgreSQL source, `src/include/utils/pidfile.h`).
        """
        try:
            lines = (data_dir / "postgres" / "postmaster.pid").read_text().splitlines()
            ready = len(lines) > 7 and lines[7].strip() == "ready"
            return cls(data_dir, int(lines[0]), Path(lines[4]) / f".s.PGSQL.{lines[3]}", ready)
        except (FileNotFoundError, IndexError, ValueError):
            return None

    def exists(self) -> bool:
        """Return whether there is a process with its id that runs: a killed one keeps its id until its parent waits."""
        try:
            if Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        except (OSError, IndexError):
            pass  # it has ended, or this is not Linux
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # it belongs to another user
        return True

    def listens(self) -> bool:
        """Return whether any process accepts connections at the socket."""
        with self._connection() as connection:
            return connection is not None

    def accepts_login(self) -> bool:
        """Return whether the server accepts a login now. Raises `EmbeddedPostgresError` if it never will."""
        with self._connection() as connection:
            if connection is None:
                return False
            try:
                sqlstate, message = _log_in(connection)
            except OSError:
                return False
        # Class 57 is "operator intervention", such as a shutdown; 53300, "too many connections", is a running server.
        if sqlstate and sqlstate != "53300" and not sqlstate.startswith("57"):
            raise EmbeddedPostgresError(
                f"Postgres in {self.data_dir} rejects the role {ROLE} or the database {DATABASE}: {message}. Undo "
                f"manual changes in {self.data_dir / 'postgres'}, or to the server's roles and databases."
            )
        return sqlstate in ("", "53300")

    def send(self, stop_signal: signal.Signals) -> bool:
        """Send a signal to the listening server; return False if none listens."""
        with self._connection() as connection:
            if connection is None:
                return False
            pid = _peer_pid(connection, default=self.pid)
        if pid != self.pid:
            raise EmbeddedPostgresError(
                f"Postgres in {self.data_dir} runs in another container, or is not the process in postmaster.pid: "
                "stop it there. Only the processes of one container may share a data directory."
            )
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, stop_signal)
        return True

    @contextlib.contextmanager
    def _connection(self) -> Iterator[socket.socket | None]:
        """Open a connection to the server's socket; yield None if nothing listens."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_TIMEOUT_S)
            try:
                connection.connect(str(self.socket_path))
            except OSError:
                yield None
            else:
                yield connection


def make_socket_dir(data_dir: Path, user: OsUser, previous: Path | None = None) -> Path:
    """Create a directory for the socket, private to `user`, whose path fits into a socket address.

    A server that is started again gets its `previous` directory, because clients know its path.
    """
    path = data_dir / "run"
    # A comma or a colon would have a special meaning in a setting or a DSN.
    if len(os.fsencode(path / SOCKET_NAME)) <= SOCKET_PATH_BYTES_MAX and re.fullmatch(r"[\w./ -]+", str(path)):
        discard_socket_dir(data_dir, path)
        path.mkdir(exist_ok=True)
        path.chmod(0o700)
    elif previous is not None:
        path = previous
        path.mkdir(mode=0o700)
    else:
        path = Path(tempfile.mkdtemp(prefix=SHORT_DIR_PREFIX, dir=SHORT_DIR))
    user.own(path)
    return path


def discard_socket_dir(data_dir: Path, path: Path) -> None:
    """Remove the directory that `make_socket_dir` created for a server that has ended; ignore any other directory."""
    is_short = path.parent == SHORT_DIR and path.name.startswith(SHORT_DIR_PREFIX)
    if is_short or path == data_dir / "run":
        for name in (SOCKET_NAME, f"{SOCKET_NAME}.lock"):
            (path / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.rmdir()


def _peer_pid(connection: socket.socket, *, default: int) -> int:
    """Return the id of the listening process from the kernel: 0 in another container, `default` where unsupported."""
    if not hasattr(socket, "SO_PEERCRED"):
        return default
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    return pid


def _log_in(connection: socket.socket) -> tuple[str | None, str]:
    """Run the start-up exchange (PostgreSQL documentation, "Message Flow", "Start-up").

    Returns ("", "") if the server is ready for queries, the SQLSTATE and text of its error, or (None, "") if it closed
    the connection. Raises `OSError`, also for a timeout.
    """
    parameters = f"user\0{ROLE}\0database\0{DATABASE}\0\0".encode()
    connection.sendall(struct.pack("!II", 8 + len(parameters), 3 << 16) + parameters)
    with connection.makefile("rb") as messages:
        while len(header := messages.read(5)) == 5:
            kind, length = struct.unpack("!cI", header)
            body = messages.read(length - 4)
            if kind == b"Z":
                connection.sendall(struct.pack("!cI", b"X", 4))
                return "", ""
            if kind == b"E":
                fields = {field[:1]: field[1:].decode("utf-8", "replace") for field in body.split(b"\0")}
                return fields.get(b"C"), fields.get(b"M", "")
    return None, ""
