"""Run the tests of the ledger on the oldest supported Postgres that is installed: the last step of `make test-all`.

The other tests run on the newest one, from the wheel. Prints one line if no other version is installed.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from pos_server.ledger.database import SERVER_VERSION_MIN
from tests.tested_postgres import BIN_DIR_NAME

# Debian and Ubuntu; Fedora, RHEL and SUSE; Homebrew on both kinds of Mac. Others have the programs on the PATH.
_PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/lib/postgresql*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)
_PROGRAMS = ("initdb", "postgres", "psql")
# What only the database decides: statements, constraints, plans, every operation against the model, the order of locks,
# and commits that wait for a standby.
TESTS = ("tests/ledger", "tests/model", "tests/faults/test_lock_order.py", "tests/faults/test_standby_gone.py")


def main() -> int:
    """Return the exit status of pytest, or 0 without another version."""
    on_path = map(Path, os.environ.get("PATH", "").split(os.pathsep))
    found = installed([*(path for place in _PLACES for path in Path("/").glob(place.removeprefix("/"))), *on_path])
    old = {version: path for version, path in found.items() if version >= SERVER_VERSION_MIN}
    if not old:
        print(f"skipped: no PostgreSQL from version {SERVER_VERSION_MIN} on in the usual directories or on PATH")  # noqa: T201
        return 0
    version = min(old)
    print(f"The tests of the ledger on PostgreSQL {version}, in {old[version]}:", flush=True)  # noqa: T201
    command = [sys.executable, "-m", "pytest", "--dist", "loadfile", "-n", "3", "-m", "not long", *TESTS]
    return subprocess.run(command, env=os.environ | {BIN_DIR_NAME: str(old[version])}, check=False).returncode  # noqa: S603


def installed(directories: Iterable[Path]) -> dict[int, Path]:
    """Return the directories that contain all programs, by major version."""
    found: dict[int, Path] = {}
    for directory in directories:
        if all((directory / program).is_file() for program in _PROGRAMS):
            command = [directory / "postgres", "--version"]
            answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603
            if match := re.match(r"postgres \(PostgreSQL\) (\d+)", answer):
                found.setdefault(int(match[1]), directory)
    return found


if __name__ == "__main__":
    sys.exit(main())
