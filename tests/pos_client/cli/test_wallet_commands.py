import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pos_client.cli.main import wallet_main
from pos_client.cli.wallet_screen import WalletScreen
from pos_client.images import read_code
from pos_client.wallet import codes
from pos_client.wallet.client import WalletClient
from pos_server.core.credentials import payment_code
from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.protocol.server_messages import StatusChanged
from tests.pos_client.fake_cli import PROGRAM, approving, save_credentials, silent
from tests.pos_client.fake_server import BOUGHT, DEVICE_KEY, Peer, credentials, fake_server_in_thread

SHOWN_CODE = r"7710 0000 0001 3\d{3} \d{4} \d{4}"


def test_each_code_command_prints_and_draws_a_new_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_010_000_000_000)
    device = save_credentials(DeviceKind.WALLET, tmp_path)
    image = tmp_path / "code.png"
    assert wallet_main(["code", "--device", device]) == 0
    assert wallet_main(["code", "--device", device, "--png", str(image), "--symbology", "code128"]) == 0
    step = payment_code.step_at(1_700_000_010)
    printed = capsys.readouterr().out.split()
    assert printed == [payment_code.make(DEVICE_KEY, 1_000_000_001, 3, step, seq) for seq in (0, 1)]
    assert read_code(image) == printed[1]


def test_a_wrong_image_suffix_is_an_invalid_argument(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        wallet_main(["code", "--png", str(tmp_path / "code.svg")])
    assert "the file name must end in .png" in capsys.readouterr().err


def test_the_balance_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with fake_server_in_thread(silent) as server:
        assert wallet_main(["balance", "--device", save_credentials(DeviceKind.WALLET, tmp_path, server.url)]) == 0
    assert capsys.readouterr().out == "20.00 EUR\n"


def test_show_prints_lines_without_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(**{**BOUGHT, "decided_at_ms": 1_700_000_010_000})
        await peer.socket.close(4101)

    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_010_000_000_000)
    with fake_server_in_thread(script, server_time_ms=1_700_000_010_000) as server:
        assert wallet_main(["show", "--device", save_credentials(DeviceKind.WALLET, tmp_path, server.url)]) == 4
    output = capsys.readouterr()
    step = payment_code.step_at(1_700_000_010)
    expected = [payment_code.make(DEVICE_KEY, 1_000_000_001, 3, step, seq) for seq in (0, 1)]
    assert output.out.split() == expected
    assert "+ You paid 3.20 EUR to Canteen.\n" in output.err


@pytest.mark.parametrize(("end", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_show_draws_on_a_terminal_and_restores_it(end: signal.Signals, exit_code: int, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    with fake_server_in_thread(silent, server_time_ms=time.time_ns() // 1_000_000) as server:
        device = save_credentials(DeviceKind.WALLET, tmp_path, server.url)
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format("wallet"), "show", "--device", device],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "COLUMNS": "80", "LINES": "24"},
        )
        text = read_until(master, rf"(?s)Online\..*{SHOWN_CODE}.*Enter")
        os.write(master, b"\n")
        text += read_until(master, rf"(?!{re.findall(SHOWN_CODE, text)[-1]}){SHOWN_CODE}")
        process.send_signal(end)
        assert process.wait(10) == exit_code
        text += read_until(master, re.escape("\x1b[?1049l"))
    os.close(slave)
    os.close(master)
    assert text.startswith("\x1b[?1049h\x1b[?25l")
    assert "Wallet 1000000001, A device. Balance 20.00 EUR" in text
    assert "Online." in text
    assert text.endswith("\x1b[?25h\x1b[?1049l")
    assert "Traceback" not in text


def test_a_closed_output_pipe_ends_show_quietly(tmp_path: Path) -> None:
    with fake_server_in_thread(approving) as server:
        device = save_credentials(DeviceKind.WALLET, tmp_path, server.url)
        reader, writer = os.pipe()
        os.close(reader)
        process = subprocess.run(
            [sys.executable, "-c", PROGRAM.format("wallet"), "show", "--device", device],
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=20,
        )
        os.close(writer)
    assert (process.returncode, process.stderr) == (0, b"")


def read_until(descriptor: int, pattern: str) -> str:
    text = ""
    while not re.search(pattern, text):
        text += os.read(descriptor, 65_536).decode(errors="replace")
    return text


def test_the_state_is_next_to_the_credentials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert wallet_main(["code", "--device", save_credentials(DeviceKind.WALLET, tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wallet.json", "wallet.state.json"]
    assert codes.CodeSource(credentials(DeviceKind.WALLET), state_file=tmp_path / "wallet.state.json")
    assert len(capsys.readouterr().out) == payment_code.CODE_DIGITS + 1


def test_the_screen_reports_possibly_missing_notices(capsys: pytest.CaptureFixture[str]) -> None:
    wallet = WalletClient(credentials(DeviceKind.WALLET))
    screen = WalletScreen(wallet, str)
    screen.draw()
    assert "may be missing" not in capsys.readouterr().out
    wallet._resume.on_ready(1, resumed=False)
    wallet._resume.give_up()
    screen.draw()
    assert "Some earlier payments may be missing here." in capsys.readouterr().out


def test_the_screen_shows_a_status_change(capsys: pytest.CaptureFixture[str]) -> None:
    wallet = WalletClient(credentials(DeviceKind.WALLET))
    screen = WalletScreen(wallet, str)
    screen.draw()
    assert "Balance not known yet\x1b" in capsys.readouterr().out
    wallet.status = "frozen"
    screen.add(StatusChanged(status="frozen", text="Your wallet is frozen. Call support."))
    screen.draw()
    text = capsys.readouterr().out
    assert "Balance not known yet, frozen\x1b" in text
    assert re.search(r"\d\d:\d\d:\d\d \* Your wallet is frozen\. Call support\.", text)
