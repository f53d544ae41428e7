"""Data directories for tests of the embedded Postgres."""

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pos_server.postgres.embedded import EmbeddedPostgres
from tests.support import open_directory


@pytest.fixture
def base() -> Iterator[Path]:
    """A new directory. Servers in it are killed after the test."""
    yield from directory_in_tmp()


@pytest.fixture(scope="session")
def shared() -> Iterator[Path]:
    for path in directory_in_tmp():
        with EmbeddedPostgres(path / "data"):
            pass
        yield path


@pytest.fixture
def data_dir(shared: Path) -> Iterator[Path]:
    """A data directory that these tests share one after another. No server runs at the start of a test."""
    yield shared / "data"
    kill_servers(shared)


def directory_in_tmp() -> Iterator[Path]:
    # Paths in pytest's own directories may be too long for a socket address.
    path = open_directory("pos-test-", parent="/tmp")
    yield path
    kill_servers(path)
    shutil.rmtree(path)


def kill_servers(under: Path) -> None:
    """Kill servers that a failed test left behind."""
    for pid_file in under.rglob("postmaster.pid"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid_file.read_text().split()[0]), signal.SIGKILL)
