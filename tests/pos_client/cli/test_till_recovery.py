"""`pos-terminal` and payments that an earlier process left without an outcome."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from pos_client.cli.console import print_line
from pos_client.cli.main import terminal_main
from pos_server.core.credentials.device_keys import DeviceKind
from tests.pos_client.cli.test_till_commands import CODE, type_in
from tests.pos_client.fake_cli import PROGRAM, save_credentials, silent, unknown_outcome
from tests.pos_client.fake_server import PAID, Peer, fake_server_in_thread


@pytest.mark.parametrize("next_command", ["scan", "till"])
def test_a_till_killed_during_a_payment_prints_its_outcome_at_the_next_start(
    next_command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scans: list[dict[str, Any]] = []
    sent = threading.Event()

    async def losing(peer: Peer) -> None:
        await peer.welcome()
        scans.append(await peer.receive())
        sent.set()

    async def answering(peer: Peer) -> None:
        await peer.welcome()
        scans.append(await peer.receive())
        await peer.answer(scans[-1], {**PAID, "reference": "order-17"})
        while True:
            scans.append(await peer.receive())
            scan = {name: scans[-1][name] for name in ("reference", "amount_minor")}
            await peer.answer(scans[-1], {**PAID, **scan})

    with fake_server_in_thread(losing, answering) as server:
        device = save_credentials(DeviceKind.TERMINAL, tmp_path, server.url)
        arguments = ["--device", device, "--amount", "12.50", "--reference", "order-17", "--code", CODE]
        process = subprocess.Popen([sys.executable, "-c", PROGRAM.format("terminal"), "scan", *arguments])
        assert sent.wait(20)
        process.send_signal(signal.SIGKILL)
        assert process.wait(20) == -signal.SIGKILL

        journal = tmp_path / "terminal.journal"
        assert journal.stat().st_mode & 0o777 == 0o600
        assert CODE in journal.read_text()

        if next_command == "till":
            type_in(monkeypatch, "")
            assert terminal_main(["till", "--device", device]) == 0
        else:
            other = ["--device", device, "--amount", "3", "--reference", "order-18", "--code", CODE[:-1] + "1"]
            assert terminal_main(["scan", *other]) == 0
    output = capsys.readouterr()
    if next_command == "till":
        assert (
            "CHARGED\n12.50 EUR\nAn earlier sale was charged, and its result was not shown.\nOrder order-17"
            in output.out
        )
        assert (
            output.out.index("CHARGED") < output.out.index("Press Enter to continue.") < output.out.index("Amount in")
        )
    else:
        assert output.err == "earlier order order-17 of 12.50 EUR: approved\n"
    assert (scans[1]["type"], scans[1]["payment_id"]) == ("payment.query", scans[0]["payment_id"])
    assert [scan["reference"] for scan in scans[2:]] == ["order-18"] * (next_command == "scan")
    assert CODE not in journal.read_text() + output.out + output.err


def test_an_outcome_unknown_at_the_start_is_reported_and_stays_journaled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pos_client.cli.till_session.RECOVERY_WAIT_S", 0.2)
    arguments = ["--amount", "12.50", "--reference", "order-17", "--code", CODE, "--json"]
    with fake_server_in_thread(unknown_outcome, silent) as server:
        device = save_credentials(DeviceKind.TERMINAL, tmp_path, server.url)
        assert terminal_main(["scan", "--device", device, *arguments]) == 3
        assert json.loads(capsys.readouterr().out)["outcome"] == "unknown"
        type_in(monkeypatch)
        assert terminal_main(["till", "--device", device]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "earlier payments without a known outcome yet: 1",
        "earlier order order-17 of 12.50 EUR: still unknown, this client was closed",
    ]
    assert CODE in (tmp_path / "terminal.journal").read_text()


def test_a_sale_that_was_left_and_charged_after_all_stays_in_view_before_the_next_sale(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late(peer: Peer) -> None:
        await peer.welcome()
        first = await peer.receive()
        await peer.refuse(first, "unknown_outcome", retryable=True, retry_after_s=60)
        # The cancel runs in the background of the next sale.
        cancel, second = sorted([await peer.receive(), await peer.receive()], key=lambda message: str(message["type"]))
        assert (cancel["type"], cancel["payment_id"]) == ("payment.cancel", first["payment_id"])
        await peer.refuse(cancel, "cancel_too_late", retryable=False)
        query = await peer.receive()
        assert (query["type"], query["payment_id"]) == ("payment.query", first["payment_id"])
        await peer.answer(query, {**PAID, "reference": "order-a"})
        for _ in range(20):  # long enough for the first answer to reach its caller
            await (await peer.socket.ping())
        await peer.answer(second, {**PAID, "reference": "order-b"})

    type_in(monkeypatch, "1", CODE, "x", "2", CODE[:-1] + "1", "")
    with fake_server_in_thread(late) as server:
        assert terminal_main(["till", "--device", save_credentials(DeviceKind.TERMINAL, tmp_path, server.url)]) == 0
    output = capsys.readouterr()
    assert output.out.index("UNKNOWN") < output.out.index("APPROVED\n2.00 EUR") < output.out.index("CHARGED\n12.50 EUR")
    assert output.err == ""
    assert CODE not in (tmp_path / "terminal.journal").read_text()


def test_an_earlier_outcome_that_arrives_during_a_sale_is_printed_after_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pos_client.cli.till_session.RECOVERY_WAIT_S", 0.05)
    monkeypatch.setattr("pos_client.cli.till_session.print_error", print_line)

    async def late(peer: Peer) -> None:
        await peer.welcome()
        # Both are sent at once: a query and a scan.
        earlier, sale = sorted([await peer.receive(), await peer.receive()], key=lambda message: str(message["type"]))
        await peer.answer(earlier, {**PAID, "reference": "order-17"})
        for _ in range(20):  # long enough for the first answer to reach its caller
            await (await peer.socket.ping())
        await peer.answer(sale)

    with fake_server_in_thread(unknown_outcome, late) as server:
        device = save_credentials(DeviceKind.TERMINAL, tmp_path, server.url)
        assert terminal_main(["scan", "--device", device, "--amount", "1", "--code", CODE]) == 3
        capsys.readouterr()
        type_in(monkeypatch, "2", CODE[:-1] + "1", "")
        assert terminal_main(["till", "--device", device]) == 0
    text = capsys.readouterr().out
    i = text.index("CHARGED")
    assert text.index("without a known outcome") < text.index("APPROVED") < i < text.index("Press Enter", i)
