"""Run a command in this process, which takes a tenth of the time of a process of its own."""

from collections.abc import Callable

import pytest

from pos_server.cli import main as cli
from tests.end_to_end.server_process import Finished

RunHere = Callable[..., Finished]


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunHere:
    """Return a function that runs a command without a ledger. Logs and signals of this process stay as they are."""
    monkeypatch.setattr(cli, "configure_logging", lambda level: None)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)

    def run(*arguments: object) -> Finished:
        status = cli.main([str(argument) for argument in arguments])
        return Finished(status, *capsys.readouterr())

    return run
