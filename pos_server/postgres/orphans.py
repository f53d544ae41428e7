"""Processes that a dead server has left behind.

They end by themselves when they wait for a client or a lock. One that computes notices the death only at its end, such
as a statement of the audit after minutes. While one exists, no server may start on the same data.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from pos_server.postgres.postmaster import Postmaster

WAIT_S = 1.0
KILL_TIMEOUT_S = 5.0
POLL_S = 0.005
PROC = Path("/proc")
PROGRAM = "postgres"


def end_orphans(data_dir: Path, is_running: Callable[[], bool]) -> None:
    """Wait until the processes of a dead server have ended; kill them after a while. Needs `start.lock`.

    `is_running` tells whether any process of a server exists. Does nothing while its first process exists.
    """
    kill_after = time.monotonic() + WAIT_S
    # The pid file is read again each time: a server that starts writes its own.
    while (postmaster := Postmaster.read(data_dir)) and not postmaster.exists() and is_running():
        now = time.monotonic()
        if now > kill_after and (now > kill_after + KILL_TIMEOUT_S or not _kill_orphans(data_dir / "server.lock")):
            return
        time.sleep(POLL_S)


def _kill_orphans(lock: Path) -> list[int]:
    """Kill all processes of Postgres that have inherited the open file `lock`; return their ids.

    Committed data is safe. Finds none in another container, or where /proc does not exist.
    """
    killed = []
    for process in PROC.glob("[0-9]*"):
        # A process may end, and those of other users cannot be read.
        with contextlib.suppress(OSError):
            # Another program may read the lock, such as a backup.
            if (process / "exe").readlink().name == PROGRAM and _holds(process, lock):
                os.kill(int(process.name), signal.SIGKILL)
                killed.append(int(process.name))
    return killed


def _holds(process: Path, lock: Path) -> bool:
    for descriptor in (process / "fd").iterdir():
        with contextlib.suppress(OSError):
            if descriptor.samefile(lock):
                return True
    return False
