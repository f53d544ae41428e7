"""A server under measurement: a process of its own, with a Postgres of its own, observed from outside."""

import asyncio
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from loadtest.shared.machine import cpu_s, resident_kib
from loadtest.shared.seed import MASTER_KEYS, Shop, seed_shop
from pos_server.ledger.database import connect
from pos_server.ledger.migrate import load_migrations, migrate
from pos_server.postgres.embedded import EmbeddedPostgres

# The same few wallets pay thousands of times, more than the default limits for people allow.
_WIDE_LIMITS = {
    "POS_DAY_MINOR_MAX": str(2**53 - 1),
    "POS_PIN_FREE_DAY_COUNT_MAX": str(2**53 - 1),
    "POS_PIN_FREE_DAY_MINOR_MAX": str(2**53 - 1),
    "POS_TOP_UP_MINOR_MAX": str(2**53 - 1),
    "POS_BALANCE_MINOR_MAX": str(2**53 - 1),
    # One API key opens a whole shop in half a minute.
    "POS_API_REQUESTS_PER_S": "10000",
    "POS_API_REQUESTS_BURST": "10000",
}
METRICS_TOKEN_VARIABLE = "POS_METRICS_TOKEN"  # noqa: S105 - a name
METRICS_TOKEN = secrets.token_hex(16)
POS_SERVER = Path(sys.executable).with_name("pos-server")


def print_progress(text: str) -> None:
    """Print progress for people, to the standard error."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


@dataclass(frozen=True, slots=True)
class Server:
    """A server that accepts connections at `url`."""

    url: str
    pid: int

    def resident_kib(self) -> int:
        """Return the physical memory of the process."""
        return resident_kib(self.pid)

    def cpu_s(self) -> float:
        """Return the CPU seconds used by the process so far, user and system."""
        return cpu_s(self.pid)


@asynccontextmanager
async def serving(command: Sequence[str | Path], **variables: str) -> AsyncIterator[Server]:
    """Run a server that prints `serves http://…` on stderr, for the duration of the block."""
    keys = {"POS_MASTER_KEYS": MASTER_KEYS, METRICS_TOKEN_VARIABLE: METRICS_TOKEN}
    environment = os.environ | keys | _WIDE_LIMITS | variables
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE, env=environment)
    if process.stderr is None:
        raise AssertionError("stderr is a pipe")
    drain = None
    try:
        url = ""
        while not url:
            line = (await process.stderr.readline()).decode()
            if not line:
                raise SystemExit(f"{command[0]} ended before it accepted connections")
            if match := re.search(r"serves (http://[^ \n]+)", line):
                url = match[1].rstrip(".")
        drain = asyncio.create_task(_drain(process.stderr))
        yield Server(url, process.pid)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        if drain is not None:
            await drain


def open_directory(prefix: str) -> Path:
    """Create a temporary directory that every user may enter, including root's Postgres user."""
    path = Path(tempfile.mkdtemp(prefix=prefix))
    path.chmod(0o711)
    return path


@asynccontextmanager
async def new_ledger() -> AsyncIterator[tuple[str, Path]]:
    """Yield the DSN and data directory of a new, migrated database in a Postgres of its own, deleted at the end."""
    data_dir = open_directory("pos-load-")
    postgres = EmbeddedPostgres(data_dir)
    try:
        dsn = await asyncio.to_thread(postgres.start)
        async with owner_connection(dsn) as connection:
            await migrate(connection, load_migrations())
        yield dsn, data_dir
    finally:
        await asyncio.to_thread(postgres.stop)
        shutil.rmtree(data_dir, ignore_errors=True)


@asynccontextmanager
async def owner_connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection with all privileges."""
    connection = await connect(dsn, timeout_s=30, role=None)
    try:
        yield connection
    finally:
        await connection.close()


async def run_pos_server(data_dir: Path, *arguments: str | Path) -> str:
    """Run an operator's command on this ledger and return its output. Raises SystemExit if it fails."""
    process = await asyncio.create_subprocess_exec(
        POS_SERVER,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"POS_DATA_DIR": str(data_dir)},
    )
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    if process.returncode:
        raise SystemExit(f"pos-server {arguments[0]} failed:\n{out.decode()}{err.decode()}")
    return out.decode().rstrip()


@asynccontextmanager
async def seeded_pos_server(
    *, terminals: int, wallets: int, balance_minor: int, **variables: str
) -> AsyncIterator[tuple[Server, Shop]]:
    """Run `pos-server run` with a new ledger that contains a shop, and audit it at the end; deleted after the block."""
    async with new_ledger() as (dsn, data_dir):
        async with owner_connection(dsn) as connection:
            shop = await seed_shop(connection, terminals=terminals, wallets=wallets, balance_minor=balance_minor)
        async with serving([POS_SERVER, "run", "--port", "0"], POS_DATABASE_URL=dsn, **variables) as server:
            yield server, shop
        print_progress(await run_pos_server(data_dir, "audit"))


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(65536):
        pass
