"""Errors of the embedded Postgres, each with its advice; and root, which runs it as another user."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pos_server.postgres import binaries, embedded
from pos_server.postgres.embedded import EmbeddedPostgres, EmbeddedPostgresError
from pos_server.postgres.os_user import OsUser
from tests.postgres.processes import (
    WHEEL_BIN,
    User,
    as_root,
    changed,
    fake_binaries,
    postmaster,
    query,
    until,
)

pytestmark = pytest.mark.postgres

# --- Errors with advice ---


def test_other_major_version(data_dir: Path) -> None:
    expected = r"created by PostgreSQL 15, but .* PostgreSQL 18: .*POS_POSTGRES_BIN_DIR .*, or dump"
    with changed(data_dir / "postgres" / "PG_VERSION", "15\n"), pytest.raises(EmbeddedPostgresError, match=expected):
        EmbeddedPostgres(data_dir).start()


def test_directory_that_is_no_database(base: Path) -> None:
    (base / "data" / "postgres").mkdir(parents=True)
    if os.geteuid() == 0:
        shutil.chown(base / "data" / "postgres", "nobody")
    with pytest.raises(EmbeddedPostgresError, match=r"no PG_VERSION.*move it away"):
        EmbeddedPostgres(base / "data").start()


def test_log_of_a_failed_start_is_quoted(data_dir: Path) -> None:
    conf = data_dir / "postgres" / "postgresql.conf"
    expected = rf'(?s)exited with code 1 .*no_such_parameter" in file "{conf}".*Fix the problem in these lines'
    with changed(conf, "no_such_parameter = 1\n"), pytest.raises(EmbeddedPostgresError, match=expected):
        EmbeddedPostgres(data_dir).start()


def test_server_that_rejects_the_login(data_dir: Path) -> None:
    expected = r"rejects the role pos.*pg_hba\.conf.*Undo"
    hba = data_dir / "postgres" / "pg_hba.conf"
    with changed(hba, "local all all reject\n"), pytest.raises(EmbeddedPostgresError, match=expected):
        EmbeddedPostgres(data_dir).start()
    assert not (data_dir / "postgres" / "postmaster.pid").exists()


def test_missing_and_broken_binaries(base: Path, data_dir: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match=r"does not contain initdb: .*POS_POSTGRES_BIN_DIR"):
        EmbeddedPostgres(data_dir, bin_dir=base).start()
    broken = fake_binaries(base, postgres="echo 'GLIBC_2.99 not found' >&2; exit 1")
    with pytest.raises(EmbeddedPostgresError, match=r"does not run \(GLIBC_2\.99 not found\).*POS_DATABASE_URL"):
        EmbeddedPostgres(data_dir, bin_dir=broken).start()


def test_file_system_without_inherited_locks(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_try_lock", lambda fd, kind: True)
    monkeypatch.setattr(embedded, "EXIT_TIMEOUT_S", 0.1)
    with pytest.raises(EmbeddedPostgresError, match=r"inherit file locks .* choose a directory on a local disk"):
        EmbeddedPostgres(data_dir).start()
    until(lambda: not (data_dir / "postgres" / "postmaster.pid").exists())


def test_data_directory_that_cannot_be_created(base: Path) -> None:
    (base / "file").write_text("")
    with pytest.raises(EmbeddedPostgresError, match=r"Not a directory.*choose another one with --data-dir"):
        EmbeddedPostgres(base / "file" / "data").start()


# --- Root and other users ---


@as_root
@pytest.mark.parametrize("closed", ["data", ""], ids=["the data directory", "a directory above"])
def test_blocking_directory_is_named_for_root(base: Path, closed: str) -> None:
    data_dir = base / "data"
    data_dir.mkdir(mode=0o711)
    blocking = base / closed
    blocking.chmod(0o700)
    modes = [path.stat().st_mode for path in (base, data_dir)]
    expected = rf"may not enter {blocking}: .*--data-dir /var/lib/pos-server, .*chmod o\+x {blocking}$"
    with pytest.raises(EmbeddedPostgresError, match=expected):
        EmbeddedPostgres(data_dir).start()
    assert [path.stat().st_mode for path in (base, data_dir)] == modes
    assert not (data_dir / "postgres").exists()


@as_root
def test_root_and_the_owner_of_the_directory_alternate(base: Path) -> None:
    data_dir = base / "home" / "data"
    data_dir.mkdir(parents=True, mode=0o700)
    for path in (data_dir.parent, data_dir):
        shutil.chown(path, "nobody")
    data_dir.parent.chmod(0o700)
    with pytest.raises(EmbeddedPostgresError, match="exit code 3"):
        EmbeddedPostgres(data_dir, bin_dir=fake_binaries(base, initdb="exit 3")).start()
    assert {path.owner() for path in data_dir.iterdir()} == {"nobody"}
    user = User(data_dir, name="nobody")
    assert query(user.says(), "select 1") == 1
    assert Path(f"/proc/{postmaster(data_dir)}").owner() == "nobody"
    user.leave()
    with EmbeddedPostgres(data_dir):
        assert Path(f"/proc/{postmaster(data_dir)}").owner() == "nobody"
        assert (data_dir / "run").owner() == "nobody"
    assert {path.owner() for path in data_dir.iterdir()} == {"nobody"}


@as_root
def test_root_copies_inaccessible_binaries_once(base: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def blocked_at(user: OsUser, path: Path) -> Path | None:
        return path if path == WHEEL_BIN / "postgres" else really_blocked_at(user, path)

    really_blocked_at = OsUser.blocked_at
    monkeypatch.setattr(OsUser, "blocked_at", blocked_at)
    home = base / "home"
    monkeypatch.setattr(binaries, "default_data_dir", lambda: home)
    monkeypatch.setattr(os, "sync", lambda: None)
    messages: list[str] = []
    for _ in range(2):
        with EmbeddedPostgres(data_dir, say=messages.append):
            program = Path(f"/proc/{postmaster(data_dir)}/exe").readlink()
    (copy,) = home.iterdir()
    assert program == copy / binaries.BIN / "postgres"
    copied = [text for text in messages if "Waiting" not in text]  # on a slow machine
    assert copied == [f"Copying the Postgres binaries to {copy}."]
    ldd = subprocess.run(["ldd", program.with_name("initdb")], capture_output=True, text=True, check=True)
    assert str(copy) in ldd.stdout
    assert "not found" not in ldd.stdout
