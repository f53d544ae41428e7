"""PGDATA: its creation with role and database, and the check of its version against the binaries."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from pos_server.postgres.os_user import EmbeddedPostgresError, OsUser
from pos_server.postgres.postmaster import DATABASE, ROLE
from pos_server.postgres.server_log import ServerLog

ASIDE_PREFIX = "postgres.new-"

INITDB_OPTIONS = (
    f"--username={ROLE}",
    "--encoding=UTF8",
    # Sorts by code point: equal on every machine, and indexes stay valid when the C library changes.
    "--no-locale",
    "--data-checksums",
    # The private directory of the socket is the access control; there is no TCP.
    "--auth-local=trust",
    "--auth-host=reject",
    "--no-instructions",
)


def create_cluster(
    cluster: Path, bin_dir: Path, user: OsUser, log: ServerLog, *, start_lock: int, timeout_s: float
) -> None:
    """Create the directory `cluster` under a temporary name and rename it when it is complete.

    Each of the two steps may take `timeout_s`. Child processes inherit the descriptor `start_lock`. Raises
    `EmbeddedPostgresError`.
    """
    aside = Path(tempfile.mkdtemp(prefix=ASIDE_PREFIX, dir=cluster.parent))
    try:
        user.own(aside)
        with log.open() as output:
            options = ["-c", "exit_on_error=on", "template1"]
            steps: tuple[tuple[list[str | Path], str], ...] = (
                ([bin_dir / "initdb", "-D", aside, *INITDB_OPTIONS], ""),
                ([bin_dir / "postgres", "--single", "-D", aside, *options], f"CREATE DATABASE {DATABASE};\n"),
            )
            for command, script in steps:
                # If this process is killed, the child continues for a moment and holds the lock until it ends.
                child = user.run(command, script=script, output=output, pass_fds=[start_lock], timeout_s=timeout_s)
                if child.returncode != 0:
                    raise log.failure(f"Creating the database failed with exit code {child.returncode}.")
        aside.rename(cluster)
        _sync_directory(cluster.parent)
    except subprocess.TimeoutExpired as error:
        raise EmbeddedPostgresError(
            f"Creating a database in {cluster.parent} took more than {timeout_s:g} s: "
            "choose a faster disk with --data-dir, or a longer start_timeout_s."
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def check_version(cluster: Path, bin_dir: Path, user: OsUser) -> None:
    """Raise `EmbeddedPostgresError` unless the binaries run and have the major version that created `cluster`."""
    try:
        created_by = (cluster / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        raise EmbeddedPostgresError(
            f"{cluster} is not a Postgres database (it has no PG_VERSION): "
            "move it away, or choose another directory with --data-dir."
        ) from None
    child = user.run([bin_dir / "postgres", "--version"])
    match = re.search(r"\(PostgreSQL\) (\d+)", child.stdout)
    if match is None:
        raise EmbeddedPostgresError(
            f"{bin_dir / 'postgres'} does not run ({child.stderr.strip() or child.stdout.strip()}): "
            "set POS_POSTGRES_BIN_DIR to other binaries, or POS_DATABASE_URL to an existing server."
        )
    if created_by != match[1]:
        raise EmbeddedPostgresError(
            f"{cluster} was created by PostgreSQL {created_by}, but {bin_dir} contains PostgreSQL {match[1]}: set "
            f"POS_POSTGRES_BIN_DIR to binaries of PostgreSQL {created_by}, or dump with those and restore into a new "
            "--data-dir."
        )


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
