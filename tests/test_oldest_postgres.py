"""Which installed Postgres `make test-all` runs the ledger's tests on."""

from pathlib import Path

import pytest

from scripts import oldest_postgres
from scripts.oldest_postgres import installed, main


def fake_programs(directory: Path, *names: str, version: str) -> Path:
    """Make programs that print this version."""
    directory.mkdir()
    for name in names:
        (directory / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        (directory / name).chmod(0o755)
    return directory


def test_a_directory_counts_if_it_has_all_programs(tmp_path: Path) -> None:
    names = ("initdb", "postgres", "psql")
    client = fake_programs(tmp_path / "client", "psql", version="14.1")
    old = fake_programs(tmp_path / "old", *names, version="15.18 (Debian 15.18-0+deb12u1)")
    new = fake_programs(tmp_path / "new", *names, version="17beta1")
    assert installed([client, old, new, tmp_path / "missing"]) == {15: old, 17: new}


def test_an_unsupported_version_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = fake_programs(tmp_path / "bin", "initdb", "postgres", "psql", version="14.23")
    monkeypatch.setattr(oldest_postgres, "_PLACES", ())
    monkeypatch.setenv("PATH", f"{directory}:{tmp_path}")
    assert main() == 0
    assert capsys.readouterr().out == "skipped: no PostgreSQL from version 15 on in the usual directories or on PATH\n"
