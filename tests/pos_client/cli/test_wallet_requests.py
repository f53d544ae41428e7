"""`pos-wallet pin`, `confirm`, `reject`, `history`, and the PIN prompts of `show`."""

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pos_client.cli.main import wallet_main
from pos_server.core.credentials.device_keys import DeviceKind
from tests.pos_client.cli.test_till_commands import type_in
from tests.pos_client.cli.test_wallet_commands import SHOWN_CODE, read_until
from tests.pos_client.fake_cli import PROGRAM, save_credentials, silent
from tests.pos_client.fake_server import BOUGHT, CONFIRM, Peer, Script, fake_server_in_thread
from tests.pos_client.wallet.test_requests import NEW_PIN, PIN, PIN_CHANGED

REJECTED = {
    **BOUGHT,
    "version": 2,
    "status": "declined",
    "decline_code": "customer_rejected",
    "text": "You rejected the payment.",
}


def run(script: Script, folder: Path, *arguments: str) -> int:
    with fake_server_in_thread(script) as server:
        command, *rest = arguments
        return wallet_main([command, "--device", save_credentials(DeviceKind.WALLET, folder, server.url), *rest])


def test_a_pin_change_requires_the_old_pin_and_prints_neither(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: list[dict[str, Any]] = []

    async def script(peer: Peer) -> None:
        await peer.welcome()
        changes.append(await peer.receive())
        await peer.send(**{**PIN_CHANGED, "reply_to": changes[0]["message_id"]})

    type_in(monkeypatch, PIN, NEW_PIN)
    assert run(script, tmp_path, "pin") == 0
    assert (changes[0]["type"], changes[0]["old_pin"], changes[0]["new_pin"]) == ("pin.set", PIN, NEW_PIN)
    output = capsys.readouterr()
    assert (output.out, output.err) == ("The PIN is set.\n", "")


@pytest.mark.parametrize(
    ("lines", "exit_code", "error"),
    [
        (["1234", "12x4"], 2, "new_pin: "),
        (["1234"], 2, "the input ended before a PIN"),
        (["1234", "1111"], 4, "because of pin_too_weak (pin_too_weak, field new_pin)"),
    ],
)
def test_an_invalid_or_weak_pin_is_an_error(
    lines: list[str],
    exit_code: int,
    error: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.refuse(await peer.receive(), "pin_too_weak", retryable=False, field="new_pin")

    type_in(monkeypatch, *lines)
    assert run(script, tmp_path, "pin") == exit_code
    text = capsys.readouterr().err
    assert error in text
    assert not any(line in text for line in lines)


def asking(answer: dict[str, Any], requests: list[dict[str, Any]]) -> Script:
    """Return a script that requests a confirmation, then sends this answer."""

    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(**CONFIRM)
        requests.append(await peer.receive())
        await peer.answer(requests[0], answer)

    return script


@pytest.mark.parametrize(
    ("answer", "exit_code", "printed"),
    [
        ({**BOUGHT, "version": 2}, 0, "You paid 3.20 EUR to Canteen."),
        ({**REJECTED, "decline_code": "pin_wrong", "text": "Too many wrong PINs."}, 1, "Too many wrong PINs."),
    ],
)
def test_confirm_pays_with_the_pin(
    answer: dict[str, Any],
    exit_code: int,
    printed: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    requests: list[dict[str, Any]] = []
    type_in(monkeypatch, PIN)
    assert run(asking(answer, requests), tmp_path, "confirm", "--payment-id", CONFIRM["payment_id"]) == exit_code
    assert (requests[0]["type"], requests[0]["pin"], requests[0]["version"]) == ("payment.confirm", PIN, 1)
    output = capsys.readouterr()
    assert output.out == f"Pay 80.00 EUR to Canteen? Enter your PIN.\n{printed}\n"
    assert PIN not in output.err


def test_a_wrong_pin_from_a_script_exits_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    type_in(monkeypatch, PIN)
    second_try = {**CONFIRM, "version": 2, "text": "Wrong PIN. Tries left: 2."}
    assert run(asking(second_try, []), tmp_path, "confirm") == 1
    assert capsys.readouterr().err == "Wrong PIN. Tries left: 2.\n"


def test_reject_rejects_the_payment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    requests: list[dict[str, Any]] = []
    assert run(asking(REJECTED, requests), tmp_path, "reject") == 0
    assert requests[0]["type"] == "payment.reject"
    assert capsys.readouterr().out == "You rejected the payment.\n"


@pytest.mark.parametrize("command", ["confirm", "reject"])
def test_without_a_pending_payment_confirm_and_reject_exit_4(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(silent, tmp_path, command, "--timeout", "0.3") == 4
    assert capsys.readouterr().err == "pos-wallet: no payment waits for the PIN\n"


@pytest.mark.parametrize("as_json", [False, True])
def test_history_prints_one_payment_per_line(as_json: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        request = await peer.receive()
        await peer.send(
            type="history.page", reply_to=request["message_id"], payments=[CONFIRM, BOUGHT], next_cursor="17.ab"
        )

    assert run(script, tmp_path, "history", *["--json"] * as_json) == 0
    output = capsys.readouterr()
    lines = output.out.splitlines()
    if as_json:
        assert [json.loads(line)["amount_minor"] for line in lines] == [8000, 320]
    else:
        assert [line[17:] for line in lines] == [
            "pending      80.00 EUR  Canteen, North",
            "approved      3.20 EUR  Canteen, North",
        ]
    assert output.err == "next page: --cursor 17.ab\n"


def test_show_prompts_for_the_pin_hides_it_and_keeps_showing_codes(tmp_path: Path) -> None:
    confirms: list[dict[str, Any]] = []
    now_ms = time.time_ns() // 1_000_000

    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(**{**CONFIRM, "expires_at_ms": now_ms + 60_000})
        confirms.append(await peer.receive())
        await peer.answer(confirms[0], {**CONFIRM, "version": 2, "text": "Wrong PIN. Tries left: 2."})
        confirms.append(await peer.receive())
        await peer.answer(confirms[1], {**BOUGHT, "version": 3})
        await peer.send(**{**CONFIRM, "payment_id": "01890000-0000-7000-8000-000000000002"})
        confirms.append(await peer.receive())
        await peer.answer(confirms[2], REJECTED)

    master, slave = pty.openpty()
    with fake_server_in_thread(script, server_time_ms=now_ms) as server:
        device = save_credentials(DeviceKind.WALLET, tmp_path, server.url)
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format("wallet"), "show", "--device", device],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "COLUMNS": "80", "LINES": "40"},
        )
        text = read_until(master, rf"(?s)Pay 80.00 EUR to Canteen\? Enter your PIN\..*Type the PIN.*{SHOWN_CODE}")
        os.write(master, b"918273\n")
        text += read_until(master, r"(?s)Wrong PIN\. Tries left: 2\..*Type the PIN")
        os.write(master, f"{PIN}\n".encode())
        text += read_until(master, r"(?s)\+ You paid 3\.20 EUR.*Type the PIN|Type the PIN.*\+ You paid 3\.20 EUR")
        os.write(master, b"n\n")
        text += read_until(master, "! You rejected the payment")
        process.terminate()
        assert process.wait(10) == 143
        text += read_until(master, r"\x1b\[\?1049l")
    os.close(slave)
    os.close(master)
    assert [(each["type"], each.get("pin"), each.get("version")) for each in confirms] == [
        ("payment.confirm", "918273", 1),
        ("payment.confirm", PIN, 2),
        ("payment.reject", None, None),
    ]
    assert PIN not in text
    assert "918273" not in text
    assert "Traceback" not in text
