"""The operating system user that Postgres runs as.

Postgres refuses to run as root. An ordinary user runs it as itself; root runs it as an unprivileged user. Permissions
of existing directories are never changed. If a directory blocks that user, such as root's home or one from `mktemp -d`,
the start is refused.
"""

import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypedDict

import platformdirs

EXISTING_USER = "postgres"
CREATED_USER = "pos-postgres"
USERADD_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
COMMAND_TIMEOUT_S = 30.0

# Child processes do not inherit the environment, which may contain PGDATA, PGOPTIONS or secrets.
ENVIRONMENT = {"LC_ALL": "C", "PATH": os.defpath, "TZ": "UTC"}


class EmbeddedPostgresError(Exception):
    """The embedded Postgres cannot be used. The message says what is wrong and what to do."""


class Identity(TypedDict, total=False):
    """Arguments of `subprocess` that run a child as another user; empty for the current user."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class OsUser:
    """A user of the operating system, by ids, because in a container a user id may have no name."""

    uid: int
    gid: int

    @property
    def name(self) -> str:
        """The login name, or the user id if there is none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    @property
    def identity(self) -> Identity:
        """The arguments of `subprocess` to run a child as this user."""
        if self.uid == os.geteuid():
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Make this user the owner of `path`, which was just created."""
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
        """Run `command` as this user, with `script` on its stdin, and wait until it ends.

        Its output goes to `output`, or is returned. Raises `OSError` if the command cannot be started, and
        `subprocess.TimeoutExpired` after `timeout_s`.
        """
        return subprocess.run(  # noqa: S603 - fixed commands, no shell
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
        """Return the first part of the absolute `path`, from the root, that this user may not enter or execute.

        A child process running as the user asks the kernel, because mode bits do not reflect access control lists.
        Returns None if nothing blocks, and always for the current user. Raises `EmbeddedPostgresError` if root may not
        become the user.
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
                "as root: start it as an ordinary user, or grant it CAP_SETUID and CAP_SETGID."
            ) from error
        return Path(blocked) if blocked else None

    def check_reach(self, path: Path) -> None:
        """Raise `EmbeddedPostgresError` if this user may not enter the directory `path`."""
        if blocked := self.blocked_at(path):
            raise EmbeddedPostgresError(
                f"Root runs Postgres as the user {self.name}, who may not enter {blocked}: choose a directory that "
                f"this user may enter, such as --data-dir {default_data_dir()}, or allow it: chmod o+x {blocked}"
            )


def server_user(data_dir: Path, cluster: Path) -> OsUser:
    """Return the user that runs Postgres in the existing `data_dir`; `cluster` (PGDATA) need not exist yet.

    An ordinary user runs it as itself. Root uses the owner of the existing directory, else the user `postgres`, else
    `pos-postgres`, which is created. Raises `EmbeddedPostgresError` if there is no such user.
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
    return _find_user(EXISTING_USER) or _find_user(CREATED_USER) or _create_user()


def default_data_dir(app: str = "pos-server") -> Path:
    """Return the default data directory of `app`: in /var/lib for root, else in the user's data directory."""
    return Path("/var/lib", app) if os.geteuid() == 0 else platformdirs.user_data_path(app, appauthor=False)


def make_directory(path: Path) -> None:
    """Create `path` and its missing parents as private directories, which root's Postgres user may traverse."""
    for part in reversed([part for part in (path, *path.parents) if not part.exists()]):
        part.mkdir(exist_ok=True)
        part.chmod(0o711 if os.geteuid() == 0 else 0o700)


def open_private(path: Path) -> int:
    """Open a file for reading and appending, created as private if new; return the descriptor."""
    # Root may work in another user's directory and must not follow that user's symbolic links.
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    if os.geteuid() == 0:
        directory = path.parent.stat()
        os.fchown(fd, directory.st_uid, directory.st_gid)
    return fd


def _owner(path: Path) -> OsUser:
    status = path.stat()
    try:
        return OsUser(status.st_uid, pwd.getpwuid(status.st_uid).pw_gid)
    except KeyError:
        return OsUser(status.st_uid, status.st_gid)


def _find_user(name: str) -> OsUser | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return OsUser(entry.pw_uid, entry.pw_gid)


def _create_user() -> OsUser:
    useradd = shutil.which("useradd", path=USERADD_PATH)
    problem = "there is no useradd command"
    if useradd is not None:
        options = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
        root = OsUser(os.geteuid(), os.getegid())
        problem = root.run([useradd, *options, "--shell", "/usr/sbin/nologin", CREATED_USER]).stderr.strip()
    # Even after a failure: another process may have created the user a moment earlier.
    if user := _find_user(CREATED_USER):
        return user
    raise EmbeddedPostgresError(
        f"Postgres refuses to run as root, and the user {CREATED_USER} could not be created ({problem}): "
        "create a system user of that name, or run this as an ordinary user."
    )
