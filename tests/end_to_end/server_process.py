"""The real `pos-server` in a separate process."""

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support import WIDE_LIMITS, open_directory
from tests.tested_postgres import BIN_DIR_NAME

POS_SERVER = Path(sys.executable).with_name("pos-server")
START_TIMEOUT_S = 60


@dataclass(slots=True)
class Finished:
    status: int
    out: str
    err: str


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of this process with wide limits and `variables` as its only POS_ variables.

    The tested Postgres stays that of the test run.
    """
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("POS_") or name == BIN_DIR_NAME
    }
    wide = {f"POS_{name.upper()}": str(value) for name, value in WIDE_LIMITS.items()}
    return inherited | wide | variables


async def pos_server(*arguments: str | Path, timeout_s: float = 120, **variables: str) -> Finished:
    """Run a command and wait for its end."""
    process = await asyncio.create_subprocess_exec(
        POS_SERVER,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(**variables),
    )
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        out, err = await process.communicate()
        raise AssertionError(f"{arguments} did not end within {timeout_s} s: {err.decode()}") from None
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())


class ServerProcess:
    """A running `pos-server run`."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, log: list[str]) -> None:
        self.process = process
        self.url = url
        self._log = log

    @property
    def log(self) -> str:
        """Its output on stderr so far."""
        return "".join(self._log)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end and return the exit status."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(START_TIMEOUT_S):
            return await self.process.wait()


@asynccontextmanager
async def running_server(
    *arguments: str | Path, port: int = 0, program: Sequence[str | Path] = (POS_SERVER,), **variables: str
) -> AsyncIterator[ServerProcess]:
    """Run `pos-server run` and yield it when it serves. It is killed at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *program,
        *("run", "--port", str(port), *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=environment(**variables),
    )
    log: list[str] = []
    reader = asyncio.create_task(_read(process, log, serving := asyncio.get_running_loop().create_future()))
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            url = await serving
        yield ServerProcess(process, url, log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reader
        process._transport.close()  # so that no pipe is left for the garbage collector


async def _read(process: asyncio.subprocess.Process, log: list[str], serving: asyncio.Future[str]) -> None:
    assert process.stderr is not None
    async for line in process.stderr:
        log.append(line.decode())
        if not serving.done() and (match := re.search(r"serves (http://\S+)", log[-1])):
            serving.set_result(match[1])
    if not serving.done():
        serving.set_exception(AssertionError(f"pos-server stopped during its start: {''.join(log)}"))


@asynccontextmanager
async def data_directory() -> AsyncIterator[Path]:
    """Yield a new data directory. A Postgres that still runs in it at the end is stopped."""
    directory = open_directory("pos-e2e-")
    try:
        yield directory / "data"
    finally:
        # Any command stops a Postgres that a killed server has left running.
        if (directory / "data" / "postgres").exists():
            await pos_server("audit", "--data-dir", directory / "data")
        shutil.rmtree(directory, ignore_errors=True)
