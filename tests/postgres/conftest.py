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
    """A new directory; no server outlives it."""
    yield from directory_in_tmp()


@pytest.fixture(scope="session")
def shared() -> Iterator[Path]:
    for path in directory_in_tmp():
        with EmbeddedPostgres(path / "data"):
            pass
        yield path


@pytest.fixture
def data_dir(shared: Path) -> Iterator[Path]:
    """A data directory that lives through most of these tests, one after the other, with no server at first."""
    yield shared / "data"
    kill_servers(shared)


def directory_in_tmp() -> Iterator[Path]:
    # Not pytest's directories, whose long names may not fit into a socket address.
    path = open_directory("pos-test-", parent="/tmp")
    yield path
    kill_servers(path)
    shutil.rmtree(path)


def kill_servers(under: Path) -> None:
    """After a failed test: a passed one leaves none."""
    for pid_file in under.rglob("postmaster.pid"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid_file.read_text().split()[0]), signal.SIGKILL)
