"""An operator who has docs/operations.md and a shell: runs its blocks as they stand."""

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

DOCUMENT = read("operations.md")
BLOCK_TIMEOUT_S = 120


def section(title: str) -> Section:
    return DOCUMENT.section(title)


def names() -> str:
    """The block that gives the names which the others use."""
    return section("Backup and restore").fences("sh")[0]


# Its last line counts for all blocks of a shell, and each of ours is run by a new one.
*_, _UMASK = names().splitlines()


@dataclass(slots=True)
class Operator:
    """`variables` are what the blocks use. The documents' own places are replaced by ones below `home`."""

    home: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def new(self) -> Path:
        """The data directory that is restored into."""
        return self.home / "new"

    @property
    def backup(self) -> Path:
        return self.home / "backup"

    async def take_names(self) -> None:
        """Run the block of names and keep what it sets. The data directory must be there, for its owner."""
        block = names().replace("/var/lib/pos-server", str(self.data)).replace("/srv/pos-backup", str(self.backup))
        shown = await self.run(block + 'printf "%s\\n" "$POS_DATA_DIR" "$BACKUP" "$OWNER"')
        self.variables |= dict(zip(("POS_DATA_DIR", "BACKUP", "OWNER"), shown.out.splitlines(), strict=True))
        self.variables |= {"NEW": str(self.new), "KEYS": str(self.home / "keys")}
        for directory in (self.backup, self.home / "keys"):
            directory.mkdir(exist_ok=True)
            directory.chmod(0o711)

    async def run(self, block: str) -> Finished:
        """Run a block in a shell that ends at the first failure; it must have none."""
        # Ours, and the programs that fit its Postgres: those of the system may be older.
        path = f"{POS_SERVER.parent}:{find_program('psql', None).parent}:{os.environ['PATH']}"
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
        """Seal as every day, and keep the hash."""
        command = section("Every day").fence("sh").splitlines()[-1]
        assert command == "pos-server seal"
        self.variables["HASH"] = (await self.run(command)).out.strip()


@asynccontextmanager
async def operator() -> AsyncIterator[Operator]:
    """An operator with a new home directory."""
    home = open_directory("pos-operator-")
    try:
        yield Operator(home)
    finally:
        shutil.rmtree(home, ignore_errors=True)
