"""PGDATA: made with the role and the database in it, and fit for the binaries at hand."""

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
    # Sorts by code point: the same on every machine, and indexes outlive a change of the C library.
    "--no-locale",
    "--data-checksums",
    # Whoever gets into the private directory of the socket is trusted, and there is no other way in.
    "--auth-local=trust",
    "--auth-host=reject",
    "--no-instructions",
)


def create_cluster(
    cluster: Path, bin_dir: Path, user: OsUser, log: ServerLog, *, start_lock: int, timeout_s: float
) -> None:
    """Make the directory `cluster`: aside, and renamed when it is complete. Each of the two steps has `timeout_s`.

    The children inherit the descriptor `start_lock`. Raises `EmbeddedPostgresError`.
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
                # If we are killed, the child goes on for a moment: with the lock it keeps the next start waiting.
                child = user.run(command, script=script, output=output, pass_fds=[start_lock], timeout_s=timeout_s)
                if child.returncode != 0:
                    raise log.failure(f"The database could not be created: exit code {child.returncode}.")
        aside.rename(cluster)
        _sync_directory(cluster.parent)
    except subprocess.TimeoutExpired as error:
        raise EmbeddedPostgresError(
            f"Creating a database in {cluster.parent} took more than {timeout_s:g} s: "
            "allow a longer start_timeout_s, or choose a faster disk with --data-dir."
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def check_version(cluster: Path, bin_dir: Path, user: OsUser) -> None:
    """Raise `EmbeddedPostgresError` unless the binaries run and are of the major version that made `cluster`."""
    try:
        made_by = (cluster / "PG_VERSION").read_text().strip()
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
            "choose other binaries with bin_dir, or an existing server with POS_DATABASE_URL."
        )
    if made_by != match[1]:
        raise EmbeddedPostgresError(
            f"{cluster} was made by PostgreSQL {made_by}, but {bin_dir} holds PostgreSQL {match[1]}: choose "
            f"binaries of PostgreSQL {made_by} with bin_dir, or dump with those and restore into a new --data-dir."
        )


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
