import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pos_client.cli.main import terminal_main, wallet_main
from pos_client.device.credentials import Credentials
from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.programs import program
from tests.pos_client.device.test_activation import ACTIVATION
from tests.pos_client.fake_server import credentials

ACTIVATION_CODE = "4F7K-20QX-M8ZD-9T3C"


def test_a_device_without_credentials_must_be_activated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = str(tmp_path / "none.json")
    assert terminal_main(["till", "--device", device]) == 4
    assert "pos-terminal activate --server URL CODE` first" in capsys.readouterr().err
    assert wallet_main(["code", "--device", device]) == 4
    assert "pos-wallet activate --server URL CODE` first" in capsys.readouterr().err


@pytest.mark.parametrize("main", [terminal_main, wallet_main])
def test_help_shows_examples_and_exit_codes(main: object, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])  # type: ignore[operator]
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text
    assert "130  interrupted" in text


@contextmanager
def activation_server(answer: dict[str, object], status: int = 200) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Run an HTTP server with this answer to each POST; yields its URL and the request bodies."""
    bodies: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", bodies
        server.shutdown()
        thread.join()


def test_activate_saves_credentials_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "till.json"
    with activation_server(ACTIVATION) as (url, bodies):
        arguments = ["activate", "--server", url, "--device", str(path), ACTIVATION_CODE]
        assert terminal_main(arguments) == 0
        assert Credentials.load(path, DeviceKind.TERMINAL) == credentials(DeviceKind.TERMINAL, url)
        activated, _, next_line = capsys.readouterr().out.splitlines()
        assert activated == "Activated terminal 7, A device (EUR)."
        assert next_line == f"Next: {program('pos-terminal')} till --device {path}"
        assert [file.name for file in tmp_path.iterdir()] == ["till.json"]
        assert terminal_main(arguments) == 4
        assert "choose another --device, or overwrite it with --replace" in capsys.readouterr().err
        assert len(bodies) == 1
        assert terminal_main([*arguments, "--replace"]) == 0


def test_a_code_for_the_wrong_kind_of_device_stays_usable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with activation_server(ACTIVATION) as (url, bodies):
        options = ["--server", url, ACTIVATION_CODE]
        assert wallet_main(["activate", "--device", str(tmp_path / "wallet.json"), *options]) == 4
        assert "pos-terminal activate` with the same code" in capsys.readouterr().err
        assert terminal_main(["activate", "--device", str(tmp_path / "till.json"), *options]) == 0
    assert bodies[0] == bodies[1]


def test_a_refused_activation_is_one_line_without_the_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with activation_server({"title": "Not found", "code": "activation_unknown"}, 404) as (url, _):
        arguments = ["activate", "--server", url, "--device", str(tmp_path / "till.json"), ACTIVATION_CODE]
        assert terminal_main(arguments) == 4
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "unknown, expired or already used" in error
    assert ACTIVATION_CODE not in error


def test_an_invalid_server_url_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["activate", "--server", "pos.test", "--device", str(tmp_path / "till.json"), ACTIVATION_CODE]
    assert terminal_main(arguments) == 2
    assert "http or https URL" in capsys.readouterr().err
