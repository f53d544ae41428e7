"""A Postgres that a test runs, kills and starts again, as an operator would; and the processes of any Postgres."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from pos_server.postgres.binaries import find_binaries
from pos_server.postgres.os_user import ENVIRONMENT, server_user
from tests.end_to_end.test_crash import free_port
from tests.support import open_directory
from tests.tested_postgres import BIN_DIR

START_TIMEOUT_S = 60.0
POLL_S = 0.02
ROLE = "pos_owner"
PREPARE = f"""
create role {ROLE} login createrole;
create database ledger owner {ROLE};
"""


class OwnPostgres:
    """`with OwnPostgres() as postgres:` creates a cluster, with the role and the database of docs/operations.md."""

    def __init__(self) -> None:
        self.port = free_port()
        self.dsn = f"postgresql://{ROLE}@127.0.0.1:{self.port}/ledger"
        self._directory = open_directory("pos-own-")
        self.cluster = self._directory / "data"
        self._user = server_user(self._directory, self.cluster)
        self._bin = find_binaries(self._user, BIN_DIR, lambda text: None)
        self._log = self._directory / "postgres.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "OwnPostgres":
        self._user.own(self._directory)
        command = [self._bin / "initdb", "-D", self.cluster, "--auth=trust", "--username=postgres", "--no-instructions"]
        assert self._user.run(command).returncode == 0
        self.start()
        psql = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-v", "ON_ERROR_STOP=1"]
        prepared = self._user.run([self._bin / "psql", *psql], script=PREPARE)
        assert prepared.returncode == 0, prepared.stderr
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            try:
                self._process.wait(START_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def start(self) -> None:
        """Start it and wait until it accepts connections, as a service manager does after a crash."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            assert time.monotonic() < deadline, f"Postgres did not start: {self.log[-2000:]}"
            if self._process is None or self._process.poll() is not None:
                self._launch()
            is_ready = [self._bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
            if self._user.run(is_ready).returncode == 0:
                return
            time.sleep(POLL_S)

    def _launch(self) -> None:
        options = ["-D", self.cluster, "-p", str(self.port), "-k", self.cluster, "-c", "listen_addresses=127.0.0.1"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", *options],
                cwd="/",
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self._user.identity,
            )

    def kill(self) -> None:
        """Kill its first process, as the out-of-memory killer would. Its children end by themselves a moment later."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()


def postmaster_of(cluster: Path) -> int:
    return int((cluster / "postmaster.pid").read_text().split()[0])


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Stop processes and their children for the duration of the block."""
    everybody = [each for pid in pids for each in (pid, *_children(pid))]
    for pid in everybody:
        _signal(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in everybody:
            _signal(pid, signal.SIGCONT)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
