"""The real `pos-server` as a process of its own."""

import asyncio
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

POS_SERVER = Path(sys.executable).with_name("pos-server")
START_TIMEOUT_S = 60


@dataclass(slots=True)
class Finished:
    status: int
    out: str
    err: str


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without POS_ variables, but for those given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POS_")}
    return kept | variables


async def pos_server(*arguments: str | Path, timeout_s: float = 120, **variables: str) -> Finished:
    """Run a command to its end."""
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

    def __init__(self, process: asyncio.subprocess.Process, url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(START_TIMEOUT_S):
            return await self.process.wait()


@asynccontextmanager
async def running_server(*arguments: str | Path, port: int = 0, **variables: str) -> AsyncIterator[ServerProcess]:
    """`pos-server run`, once it serves. Killed at the end of the block if it still runs."""
    with tempfile.NamedTemporaryFile(prefix="pos-server-log-") as file:
        process = await asyncio.create_subprocess_exec(
            POS_SERVER,
            "run",
            "--port",
            str(port),
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=environment(**variables),
        )
        log = Path(file.name)
        reader = None
        try:
            url, reader = await _wait_until_serving(process, log)
            yield ServerProcess(process, url, log)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            if reader is not None:
                await reader


async def _wait_until_serving(process: asyncio.subprocess.Process, log: Path) -> tuple[str, asyncio.Task[None]]:
    stream = process.stderr
    assert stream is not None
    async with asyncio.timeout(START_TIMEOUT_S):
        with log.open("ab") as file:
            while line := await stream.readline():
                file.write(line)
                if match := re.search(r"serves (http://\S+)", line.decode()):
                    return match[1], asyncio.create_task(_copy(stream, log))
    text = await asyncio.to_thread(log.read_text)
    raise AssertionError(f"pos-server ended before it served: {text}")


async def _copy(stream: asyncio.StreamReader, log: Path) -> None:
    with log.open("ab", buffering=0) as file:
        while chunk := await stream.read(65536):
            file.write(chunk)


@asynccontextmanager
async def data_directory() -> AsyncIterator[Path]:
    """A new data directory; whatever Postgres is left in it is stopped with it."""
    directory = Path(tempfile.mkdtemp(prefix="pos-e2e-"))
    try:
        yield directory / "data"
    finally:
        # Joining and leaving stops a Postgres that a killed server left behind.
        if (directory / "data" / "postgres").exists():
            await pos_server("audit", "--data-dir", directory / "data")
        shutil.rmtree(directory, ignore_errors=True)
