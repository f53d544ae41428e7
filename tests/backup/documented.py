"""An operator with docs/operations.md and a shell, who runs the document's blocks unchanged."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pos_server.postgres.binaries import find_program
from tests.docs.documents import Section, read
from tests.end_to_end.server_process import POS_SERVER, Finished, environment
from tests.support import open_directory
from tests.tested_postgres import BIN_DIR

DOCUMENT = read("operations.md")
BLOCK_TIMEOUT_S = 120


def section(title: str) -> Section:
    return DOCUMENT.section(title)


def names() -> str:
    """Return the block that sets the variables of the other blocks."""
    return section("Backup and restore").fences("sh")[0]


# The last line of that block sets the umask of a shell; here each block runs in a new one.
*_, _UMASK = names().splitlines()


@dataclass(slots=True)
class Operator:
    """`variables` are those of the blocks. Paths of the document are replaced by paths below `home`."""

    home: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def new(self) -> Path:
        """The data directory of the restore."""
        return self.home / "new"

    @property
    def backup(self) -> Path:
        return self.home / "backup"

    async def take_names(self) -> None:
        """Run the block of names and keep its variables. It reads the owner of the data directory, which must exist."""
        block = names().replace("/var/lib/pos-server", str(self.data)).replace("/srv/pos-backup", str(self.backup))
        printed = await self.run(block + 'printf "%s\\n" "$POS_DATA_DIR" "$BACKUP" "$OWNER"')
        self.variables |= dict(zip(("POS_DATA_DIR", "BACKUP", "OWNER"), printed.out.splitlines(), strict=True))
        self.variables |= {"NEW": str(self.new), "KEYS": str(self.home / "keys")}
        for directory in (self.backup, self.home / "keys"):
            directory.mkdir(exist_ok=True)
            directory.chmod(0o711)

    async def run(self, block: str) -> Finished:
        """Run a block in a shell that stops at the first failure. Fails if there is one."""
        # Our programs, then those of the embedded Postgres, because those of the system may be older.
        path = f"{POS_SERVER.parent}:{find_program('psql', BIN_DIR).parent}:{os.environ['PATH']}"
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail", "-c", f"{_UMASK}\n{block}"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=self.home,
            env=environment(**self.variables) | {"PATH": path},
        )
        async with asyncio.timeout(BLOCK_TIMEOUT_S):
            out, err = await process.communicate()
        assert process.returncode == 0, f"{block}\n{out.decode()}{err.decode()}"
        return Finished(0, out.decode(), err.decode())

    async def seal(self) -> None:
        """Run the daily seal, and keep the hash."""
        command = section("Every day").fence("sh").splitlines()[-1]
        assert command == "pos-server seal"
        self.variables["HASH"] = (await self.run(command)).out.strip()


@asynccontextmanager
async def operator() -> AsyncIterator[Operator]:
    """Yield an operator with a new home directory."""
    home = open_directory("pos-operator-")
    try:
        yield Operator(home)
    finally:
        shutil.rmtree(home, ignore_errors=True)
