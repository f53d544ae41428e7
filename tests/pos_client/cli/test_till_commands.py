import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pos_client.cli.main import terminal_main
from pos_client.images import qr_png
from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.programs import program
from tests.pos_client.fake_cli import PROGRAM, approving, declining, revoking, save_credentials, unknown_outcome
from tests.pos_client.fake_server import DECLINED, Peer, fake_server_in_thread

CODE = "771000000001301234567890"


def type_in(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_an_approved_scan_exits_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with fake_server_in_thread(approving) as server:
        device = save_credentials(DeviceKind.TERMINAL, tmp_path, server.url)
        exit_code = terminal_main(["scan", "--device", device, "--amount", "12.50", "--code", CODE])
    assert exit_code == 0
    assert capsys.readouterr().out == "APPROVED 12.50 EUR, order order-1\n"


def test_a_declined_scan_exits_1_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    type_in(monkeypatch, "7710 0000 0001 3012 3456 7890")
    with fake_server_in_thread(declining) as server:
        device = save_credentials(DeviceKind.TERMINAL, tmp_path, server.url)
        exit_code = terminal_main(["scan", "--device", device, "--amount", "12.50"])
    assert exit_code == 1
    assert capsys.readouterr().out == "DECLINED 12.50 EUR, order order-1\nNot enough balance. (insufficient_funds)\n"


def test_an_image_is_scanned_and_the_outcome_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scans = []

    async def script(peer: Peer) -> None:
        await peer.welcome()
        scans.append(await peer.receive())
        await peer.answer(scans[0])

    image = tmp_path / "photo.png"
    image.write_bytes(qr_png(CODE))
    with fake_server_in_thread(script) as server:
        device = save_credentials(DeviceKind.TERMINAL, tmp_path, server.url)
        exit_code = terminal_main(["scan", "--device", device, "--amount", "12.50", "--image", str(image), "--json"])
    assert exit_code == 0
    assert (scans[0]["code"], scans[0]["amount_minor"]) == (CODE, 1250)
    assert re.fullmatch(r"7-\d{6}-\d{9}", scans[0]["reference"])
    outcome = json.loads(capsys.readouterr().out)
    assert (outcome["outcome"], outcome["payment_id"]) == ("approved", scans[0]["payment_id"])


def test_an_unanswered_scan_exits_3_with_advice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--amount", "1", "--reference", "order-17", "--code", CODE, "--json"]
    with fake_server_in_thread(unknown_outcome) as server:
        device = save_credentials(DeviceKind.TERMINAL, tmp_path, server.url)
        exit_code = terminal_main(["scan", "--device", device, *arguments])
    assert exit_code == 3
    output = capsys.readouterr()
    assert json.loads(output.out)["outcome"] == "unknown"
    payment_id = json.loads(output.out)["payment_id"]
    till = f"{program('pos-terminal')} {{}} --payment-id {payment_id} --device {device}".format
    assert f"To find out: `{till('query')}`. To cancel it: `{till('cancel')}`." in output.err
    assert CODE not in output.err + output.out


def test_a_revoked_till_exits_4_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with fake_server_in_thread(revoking) as server:
        device = save_credentials(DeviceKind.TERMINAL, tmp_path, server.url)
        exit_code = terminal_main(["scan", "--device", device, "--amount", "1", "--code", CODE, "--json"])
    assert exit_code == 4
    output = capsys.readouterr()
    assert json.loads(output.out)["outcome"] == "not_done"
    assert output.err == (
        "pos-terminal: the server rejected this device: it was revoked or replaced, activate it again"
        " (close code 4100)\n"
    )


def test_an_unreachable_server_exits_4_and_nothing_was_charged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = save_credentials(DeviceKind.TERMINAL, tmp_path)
    exit_code = terminal_main(["scan", "--device", device, "--amount", "1", "--code", CODE, "--timeout", "0.4"])
    assert exit_code == 4
    error = "pos-terminal: nothing was charged: cannot reach the server: Connection refused\n"
    assert capsys.readouterr().err == error


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--amount", "12.345", "--code", CODE], "EUR has 2 decimals"),
        (["--amount", CODE, "--code", CODE], "this is not an amount"),
        (["--amount", "1", "--code", "  "], "no code was scanned"),
        (["--amount", "1", "--code", "7" * 65], "not a payment code"),
        (["--amount", "1"], "no code was scanned"),
    ],
)
def test_invalid_input_exits_2_without_repeating_the_code(
    arguments: list[str],
    error: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    type_in(monkeypatch)
    device = save_credentials(DeviceKind.TERMINAL, tmp_path)
    assert terminal_main(["scan", "--device", device, *arguments]) == 2
    output = capsys.readouterr()
    assert error in output.err
    assert output.err.count("\n") == 1
    assert CODE not in output.err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["scan"],
        ["scan", "--amount", "1", "--reference", "ä"],
        ["scan", "--amount", "1", "--code", CODE, "--image", "x.png"],
    ],
)
def test_invalid_arguments_exit_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        terminal_main(arguments)
    assert stopped.value.code == 2
    assert CODE not in capsys.readouterr().err


def test_a_till_takes_one_sale_after_the_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = []

    async def script(peer: Peer) -> None:
        await peer.welcome()
        for result in ({**DECLINED, "retryable": True}, None):
            scans.append(await peer.receive())
            await peer.answer(scans[-1], **({"result": result} if result else {}))

    type_in(monkeypatch, CODE, "twelve", "12.50", CODE, "", CODE[:-1] + "1", "3", "")
    with fake_server_in_thread(script) as server:
        assert terminal_main(["till", "--device", save_credentials(DeviceKind.TERMINAL, tmp_path, server.url)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Canteen, North: terminal 7.\nCtrl-C ends.\n")
    assert "A code was scanned. Enter the amount first, then scan." in text
    assert text.index("DECLINED\n12.50 EUR\nNot enough balance.") < text.index("Press Enter")
    assert text.index("Press Enter") < text.index("APPROVED\n12.50 EUR\nOrder 7-")
    assert CODE not in text
    assert [scan["amount_minor"] for scan in scans] == [1250, 1250]
    assert scans[0]["reference"] == scans[1]["reference"]
    assert scans[0]["payment_id"] != scans[1]["payment_id"]


def test_a_till_retries_the_same_payment_until_its_outcome_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = []

    async def script(peer: Peer) -> None:
        await peer.welcome()
        scans.append(await peer.receive())
        await peer.refuse(scans[0], "unknown_outcome", retryable=True, retry_after_s=60)
        scans.append(await peer.receive())
        await peer.answer(scans[1])

    type_in(monkeypatch, "1", CODE, "")
    with fake_server_in_thread(script) as server:
        assert terminal_main(["till", "--device", save_credentials(DeviceKind.TERMINAL, tmp_path, server.url)]) == 0
    text = capsys.readouterr().out
    assert text.index("UNKNOWN\n1.00 EUR\nDo not hand out the goods") < text.index("APPROVED\n1.00 EUR")
    assert scans[0]["payment_id"] == scans[1]["payment_id"]


def test_a_refused_scan_stays_in_view_and_a_stopped_till_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.refuse(await peer.receive(), "wrong_currency", retryable=False)
        await peer.receive()
        await peer.socket.close(4101, "superseded")

    type_in(monkeypatch, "1", CODE, "", "1", CODE, "x", "1")
    with fake_server_in_thread(script) as server:
        assert terminal_main(["till", "--device", save_credentials(DeviceKind.TERMINAL, tmp_path, server.url)]) == 4
    output = capsys.readouterr()
    assert "NOT CHARGED\n1.00 EUR\nbecause of wrong_currency (wrong_currency)" in output.out
    assert "UNKNOWN\n1.00 EUR" in output.out
    assert "another program connected with the same credentials" in output.err


def test_a_till_without_a_server_charges_nothing_and_shows_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pos_client.cli.till_screen.SCAN_TIMEOUT_S", 0.3)
    monkeypatch.setattr("pos_client.cli.till_screen.GREETING_TIMEOUT_S", 0.3)
    type_in(monkeypatch, "1", CODE, "", "")
    assert terminal_main(["till", "--device", save_credentials(DeviceKind.TERMINAL, tmp_path)]) == 0
    output = capsys.readouterr()
    assert "NOT CHARGED\n1.00 EUR\ncannot reach the server: Connection refused" in output.out
    assert output.err == "not connected yet: you can enter sales, which wait for the server.\n"


def test_invalid_bytes_from_a_scanner_are_not_a_code(tmp_path: Path) -> None:
    device = save_credentials(DeviceKind.TERMINAL, tmp_path)
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM.format("terminal"), "scan", "--device", device, "--amount", "1"],
        input=b"\xff\xfe\n",
        capture_output=True,
    )
    assert process.returncode == 2
    assert process.stderr == b"pos-terminal: this is not a payment code: scan the code again\n"


def test_ctrl_c_at_a_prompt_exits_130_quietly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupted)
    with fake_server_in_thread(approving) as server:
        assert terminal_main(["till", "--device", save_credentials(DeviceKind.TERMINAL, tmp_path, server.url)]) == 130
    assert capsys.readouterr().err == ""


def test_foreign_escape_sequences_do_not_reach_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.answer(await peer.receive(), {**DECLINED, "text": "\x1b[2JNo."})

    with fake_server_in_thread(script) as server:
        device = save_credentials(DeviceKind.TERMINAL, tmp_path, server.url)
        assert terminal_main(["scan", "--device", device, "--amount", "1", "--code", CODE]) == 1
    assert "?[2JNo. (insufficient_funds)" in capsys.readouterr().out
