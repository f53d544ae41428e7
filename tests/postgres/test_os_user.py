"""The operating system user that runs Postgres, and its access to directories."""

import os
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pos_server.postgres import os_user
from pos_server.postgres.os_user import (
    EmbeddedPostgresError,
    OsUser,
    default_data_dir,
    make_directory,
    open_private,
    server_user,
)
from tests.support import open_directory

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="about what root does")


@pytest.fixture
def base() -> Iterator[Path]:
    """A new directory that every user can traverse."""
    path = open_directory("pos-test-", parent="/tmp")
    yield path
    shutil.rmtree(path)


def user_named(name: str) -> OsUser:
    entry = pwd.getpwnam(name)
    return OsUser(entry.pw_uid, entry.pw_gid)


# --- The server's user ---


def test_ordinary_user_is_itself(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setattr(os, "getegid", lambda: 567)
    assert server_user(base, base / "postgres") == OsUser(1234, 567)
    assert server_user(base, base / "postgres").identity == {}


def test_ordinary_user_does_not_use_another_users_database(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = base.owner()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(EmbeddedPostgresError, match=rf"{base} belongs to the user {owner}: run this as {owner}, or"):
        server_user(base, base)


@as_root
def test_root_uses_the_owner_of_the_database_or_directory(base: Path) -> None:
    (base / "postgres").mkdir()
    shutil.chown(base / "postgres", "nobody")
    shutil.chown(base, "daemon")
    assert server_user(base, base / "postgres") == user_named("nobody")
    assert server_user(base, base / "none") == user_named("daemon")
    assert user_named("nobody").identity == {
        "user": user_named("nobody").uid,
        "group": user_named("nobody").gid,
        "extra_groups": [],
    }


@as_root
def test_owner_without_a_name(base: Path) -> None:
    os.chown(base, 54321, 54322)
    assert server_user(base, base / "none") == OsUser(54321, 54322)
    assert server_user(base, base / "none").name == "54321"


@as_root
def test_database_owned_by_root_is_rejected(base: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match=rf"belongs to root, .*chown -R postgres {base}"):
        server_user(base, base)


@as_root
def test_root_uses_an_existing_user(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os_user, "EXISTING_USER", "daemon")
    assert server_user(base, base / "none") == user_named("daemon")
    monkeypatch.setattr(os_user, "EXISTING_USER", "pos-no-such-user")
    monkeypatch.setattr(os_user, "CREATED_USER", "nobody")
    assert server_user(base, base / "none") == user_named("nobody")


@as_root
@pytest.mark.parametrize(
    ("useradd", "problem"),
    [(None, "there is no useradd command"), ("echo 'useradd: cannot lock /etc/passwd' >&2; exit 1", "cannot lock")],
    ids=["no command", "failing command"],
)
def test_user_that_cannot_be_created(
    base: Path, monkeypatch: pytest.MonkeyPatch, useradd: str | None, problem: str
) -> None:
    if useradd:
        (base / "useradd").write_text(f"#!/bin/sh\n{useradd}\n")
        (base / "useradd").chmod(0o755)
    monkeypatch.setattr(os_user, "USERADD_PATH", str(base))
    monkeypatch.setattr(os_user, "EXISTING_USER", "pos-no-such-user")
    monkeypatch.setattr(os_user, "CREATED_USER", "pos-nor-this-one")
    expected = rf"pos-nor-this-one could not be created \(.*{problem}.*\): create a system user of that name"
    with pytest.raises(EmbeddedPostgresError, match=expected):
        server_user(base, base / "none")


# --- Access ---


@as_root
def test_first_blocking_directory(base: Path) -> None:
    deep = base / "open" / "it's $closed\n" / "deep"
    deep.mkdir(parents=True)
    nobody = user_named("nobody")
    for path in (base / "open", deep.parent, deep):
        path.chmod(0o711)
    assert nobody.blocked_at(deep) is None
    deep.chmod(0o700)
    assert nobody.blocked_at(deep) == deep
    deep.parent.chmod(0o766)
    assert nobody.blocked_at(deep) == deep.parent
    shutil.chown(deep.parent, "nobody")
    shutil.chown(deep, "nobody")
    assert nobody.blocked_at(deep) is None
    assert nobody.blocked_at(base / "missing" / "program") == base / "missing"


def test_current_user_is_never_blocked() -> None:
    assert OsUser(os.geteuid(), os.getegid()).blocked_at(Path("/nonexistent")) is None


def test_root_that_may_not_become_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(OsUser, "run", refuse)
    with pytest.raises(EmbeddedPostgresError, match=r"may not become the user 54321 .*CAP_SETUID and CAP_SETGID"):
        OsUser(54321, 54321).blocked_at(Path("/"))


@as_root
def test_child_has_the_users_identity_and_a_clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POS_MASTER_KEYS", "do-not-tell")
    nobody = user_named("nobody")
    child = nobody.run(["/bin/sh"], script="id -u; id -G; env")
    uid, groups, *environment = child.stdout.splitlines()
    assert (int(uid), [int(group) for group in groups.split()]) == (nobody.uid, [nobody.gid])
    assert {line.partition("=")[0] for line in environment} == {"LC_ALL", "PATH", "PWD", "TZ"}


# --- Directories ---


@pytest.mark.parametrize(("uid", "mode"), [(0, 0o711), (1000, 0o700)], ids=["root", "ordinary user"])
def test_directories_are_private(base: Path, monkeypatch: pytest.MonkeyPatch, uid: int, mode: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    before = base.stat().st_mode
    make_directory(base / "new" / "data")
    make_directory(base / "new" / "data")
    assert [path.stat().st_mode & 0o777 for path in (base / "new", base / "new" / "data")] == [mode, mode]
    assert base.stat().st_mode == before


def test_file_is_private_and_links_are_not_followed(base: Path) -> None:
    os.close(open_private(base / "file"))
    assert (base / "file").stat().st_mode & 0o777 == 0o600
    (base / "link").symlink_to(base / "file")
    with pytest.raises(OSError, match="symbolic links"):
        open_private(base / "link")


def test_default_data_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_data_dir() == Path("/var/lib/pos-server")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/home/cashier/data")
    assert default_data_dir("shop") == Path("/home/cashier/data/shop")
