"""Processes that use an embedded Postgres, stand-ins for its binaries, and other helpers of these tests."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from pos_server.postgres import binaries

ROOT = Path(__file__).parents[2]
WHEEL_BIN = binaries._wheel() / binaries.BIN
DEADLINE_S = 20.0

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="applies to root only")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

# Uses the server until it reads a line. Switches the user only after the imports, which may be in a private home.
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
    """Kill the server's first process, as the out-of-memory killer would; its children then end by themselves."""
    pid = postmaster(data_dir)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid))


def fake_binaries(base: Path, **scripts: str) -> Path:
    """Make a `bin_dir` of shell scripts; programs without a script are the real ones."""
    directory = base / "fake-bin"
    directory.mkdir()
    directory.chmod(0o755)
    for name in ("initdb", "postgres"):
        path = directory / name
        path.write_text("#!/bin/sh\n" + scripts.get(name, f'exec "{WHEEL_BIN / name}" "$@"') + "\n")
        path.chmod(0o755)
    return directory


def gate(base: Path) -> Path:
    """Make a named pipe. A script that reads it waits until `open_gate`."""
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
    """The lines that the server's log gets from now on."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / "postgres.log"
        self.start = self.path.stat().st_size if self.path.exists() else 0

    def count(self, text: str) -> int:
        return self.path.read_bytes()[self.start :].count(text.encode())
