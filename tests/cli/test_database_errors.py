"""A database error ends a command in one line, which says whether a change may have been saved."""

import argparse
from typing import Any

import asyncpg
import pytest

from pos_server.cli import main as cli
from pos_server.ledger.failures import NotConnected

ROLLED_BACK = "No partial change was saved."
NOT_KNOWN = "The last change was saved completely or not at all: look before you repeat the command."


@pytest.mark.parametrize(
    ("error", "saved"),
    [
        (NotConnected("no route to host"), ROLLED_BACK),
        (asyncpg.TargetServerAttributeNotMatched("no host accepts writes"), ROLLED_BACK),
        (asyncpg.DiskFullError("no space left"), ROLLED_BACK),
        (asyncpg.ReadOnlySQLTransactionError("read-only"), ROLLED_BACK),
        (asyncpg.AdminShutdownError("terminating"), NOT_KNOWN),
        (asyncpg.InternalClientError("cannot switch to state 11"), NOT_KNOWN),
        (asyncpg.ConnectionDoesNotExistError("connection was closed"), NOT_KNOWN),
        (TimeoutError("no answer"), NOT_KNOWN),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_the_line(
    error: Exception, saved: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: object) -> int:
        raise error

    class Parser:
        def parse_args(self, argv: object) -> argparse.Namespace:
            return argparse.Namespace(run=run, data_dir=None)

    parser: Any = Parser()
    monkeypatch.setattr(cli, "_parser", lambda: parser)
    monkeypatch.setattr(cli, "configure_logging", lambda level: None)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    assert cli.main([]) == 3
    expected = f"pos-server: database error: {error}. {saved} Retry when the database is available.\n"
    assert capsys.readouterr().err == expected
