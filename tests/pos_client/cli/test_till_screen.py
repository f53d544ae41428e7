"""`pos-terminal till` with pending payments, unknown outcomes and cancels."""

import asyncio
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pos_client.cli.main import terminal_main
from pos_server.core.credentials.device_keys import DeviceKind
from tests.pos_client.cli.test_till_commands import CODE, type_in
from tests.pos_client.cli.test_wallet_commands import read_until
from tests.pos_client.fake_cli import PROGRAM, save_credentials
from tests.pos_client.fake_server import CANCELED, DECLINED, PAID, PENDING, Peer, Script, fake_server_in_thread


def run_till(script: Script, folder: Path) -> int:
    with fake_server_in_thread(script) as server:
        return terminal_main(["till", "--device", save_credentials(DeviceKind.TERMINAL, folder, server.url)])


@pytest.mark.parametrize(
    ("wallet_online", "title"), [(True, "WAITING FOR PIN"), (False, "ASK THE CUSTOMER TO OPEN THE WALLET")]
)
def test_a_pending_payment_is_shown(
    wallet_online: bool,
    title: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scans: list[dict[str, Any]] = []

    async def script(peer: Peer) -> None:
        await peer.welcome()
        scans.append(await peer.receive())
        await peer.answer(scans[0], {**PENDING, "wallet_online": wallet_online, "text": "Advice."})
        await peer.answer(scans[0], {**PAID, "version": 2})

    type_in(monkeypatch, "80", f"t{CODE}")
    assert run_till(script, tmp_path) == 0
    text = capsys.readouterr().out
    assert text.index(f"{title}\n80.00 EUR\nAdvice.\nOrder 7-") < text.index("APPROVED\n80.00 EUR")
    assert (scans[0]["entry"], scans[0]["code"]) == ("typed", CODE)
    assert CODE not in text


def unanswered(*answers: dict[str, Any]) -> Script:
    """Return a script that leaves the outcome of a scan unknown, then sends these answers."""

    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.refuse(await peer.receive(), "unknown_outcome", retryable=True, retry_after_s=60)
        for answer in answers:
            await peer.answer(await peer.receive(), answer)

    return script


def test_an_unknown_payment_can_be_canceled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    type_in(monkeypatch, "1", CODE, "c", "")
    assert run_till(unanswered(CANCELED), tmp_path) == 0
    output = capsys.readouterr()
    assert output.out.index("UNKNOWN\n1.00 EUR\nDo not hand out") < output.out.index("CANCELED\n1.00 EUR\nCanceled.\n")
    assert output.out.endswith("Press Enter to continue. \nAmount in EUR: \n")
    assert output.err == ""
    assert CODE not in (tmp_path / "terminal.journal").read_text()


def test_an_unanswered_cancel_continues_in_the_background_and_is_printed_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.refuse(await peer.receive(), "unknown_outcome", retryable=True, retry_after_s=60)
        await peer.receive()
        cancel, scan = await peer.receive(), await peer.receive()
        assert (cancel["type"], scan["type"]) == ("payment.cancel", "payment.scan")
        await peer.answer(cancel, {**CANCELED, "reference": "order-17"})
        for _ in range(20):  # long enough for the first answer to reach its caller
            await (await peer.socket.ping())
        await peer.answer(scan)

    monkeypatch.setattr("pos_client.cli.till_screen.SCAN_TIMEOUT_S", 0.3)
    type_in(monkeypatch, "1", CODE, "c", "x", "2", CODE[:-1] + "1", "", "")
    assert run_till(script, tmp_path) == 0
    output = capsys.readouterr()
    assert "NOT CANCELED YET\n1.00 EUR\nDo not hand out the goods." in output.out
    assert output.err == "earlier order order-17 of 12.50 EUR: canceled, Canceled.\n"
    next_sale = output.out[output.out.index("APPROVED\n2.00 EUR") :]
    assert next_sale.index("Press Enter to continue.") < next_sale.index("Amount in EUR:")


def test_a_refused_cancel_stays_in_view(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.refuse(await peer.receive(), "unknown_outcome", retryable=True, retry_after_s=60)
        await peer.refuse(await peer.receive(), "cancel_too_late", retryable=False)

    type_in(monkeypatch, "1", CODE, "c", "")
    assert run_till(script, tmp_path) == 0
    text = capsys.readouterr().out
    assert "NOT CANCELED\n1.00 EUR\nbecause of cancel_too_late (cancel_too_late)" in text


def test_a_cancel_of_a_declined_payment_allows_another_scan_of_the_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    type_in(monkeypatch, "1", CODE, "c", "", CODE[:-1] + "1", "")
    assert run_till(unanswered({**DECLINED, "retryable": True}, PAID), tmp_path) == 0
    text = capsys.readouterr().out
    assert text.index("DECLINED\n1.00 EUR") < text.index("APPROVED\n1.00 EUR")


@contextmanager
def till_at_a_terminal(script: Script, folder: Path) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """Run the till in a pseudo-terminal, at its first prompt; yields the terminal's other end and the process."""
    master, slave = pty.openpty()
    with fake_server_in_thread(script) as server:
        device = save_credentials(DeviceKind.TERMINAL, folder, server.url)
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format("terminal"), "till", "--device", device],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "COLUMNS": "80", "LINES": "24", "NO_COLOR": "1"},
        )
        try:
            read_until(master, "Amount in EUR: ")
            yield master, process
            process.wait(20)
        finally:
            process.kill()
            process.wait()
    os.close(slave)
    os.close(master)


def test_c_cancels_a_pending_payment(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.answer(await peer.receive(), PENDING)
        cancel = await peer.receive()
        assert cancel["type"] == "payment.cancel"
        await peer.answer(cancel, CANCELED)

    with till_at_a_terminal(script, tmp_path) as (master, process):
        os.write(master, b"80\n")
        read_until(master, "Enter alone cancels")
        os.write(master, f"{CODE}\n".encode())
        read_until(master, "c and Enter cancels the payment")
        os.write(master, b"is typed by accident\nc\n")
        text = read_until(master, "Press Enter to continue")
        os.write(master, b"\n")
        read_until(master, "Amount in EUR: ")
        os.write(master, b"\x04")
    assert process.returncode == 0
    assert "That is no answer. Nothing was done with it." in text
    assert "CANCELED" in text
    assert "UNKNOWN" not in text


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_a_code_that_was_scanned_twice_dismisses_nothing(ending: str, tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.answer(await peer.receive(), {**DECLINED, "retryable": False})

    scanned = f"{CODE}{ending}".encode()
    with till_at_a_terminal(script, tmp_path) as (master, process):
        os.write(master, b"7\n")
        read_until(master, "Enter alone cancels")
        os.write(master, scanned * 2)
        read_until(master, "Press Enter to continue. ")
        os.write(master, scanned)
        text = read_until(master, "Press Enter to continue. ")
        assert "A code was scanned. Nothing was done with it." in text
        os.write(master, b"\n")
        read_until(master, "Amount in EUR: ")
        os.write(master, scanned)
        assert "Enter the amount first" in read_until(master, "Amount in EUR: ")
        os.write(master, b"\x04")
    assert process.returncode == 0


def test_a_scanned_code_is_no_answer_to_an_unknown_outcome(tmp_path: Path) -> None:
    """Regression: the second read of a code counted as "leave it", and the wallet was charged unseen."""
    asked: list[dict[str, Any]] = []
    next_sale, canceled = threading.Event(), threading.Event()

    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.refuse(await peer.receive(), "unknown_outcome", retryable=True, retry_after_s=60)
        asked.append(await peer.receive())
        await asyncio.to_thread(next_sale.wait)
        await peer.answer(asked[-1], CANCELED)
        for _ in range(20):  # long enough for the answer to reach its caller
            await (await peer.socket.ping())
        canceled.set()

    with till_at_a_terminal(script, tmp_path) as (master, process):
        os.write(master, b"7\n")
        read_until(master, "Enter alone cancels")
        os.write(master, f"{CODE}\n".encode())
        read_until(master, "in the background: ")
        os.write(master, f"{CODE}\n".encode())
        assert "Nothing was done with it." in read_until(master, "in the background: ")
        os.write(master, b"x\n")
        read_until(master, "Amount in EUR: ")
        next_sale.set()
        assert canceled.wait(20)
        os.write(master, b"1\n")
        text = read_until(master, "Press Enter to continue. ")
        assert "order-1 of 12.50 EUR: canceled" in text
        os.write(master, b"\n")
        read_until(master, "Enter alone cancels")
        os.write(master, b"\n\x04")
    assert process.returncode == 0
    assert [message["type"] for message in asked] == ["payment.cancel"]


@pytest.mark.parametrize(("end", "exit_code"), [("Ctrl-C", 130), ("Ctrl-D", 3)])
def test_a_sale_in_progress_is_canceled_when_the_till_ends(
    end: str,
    exit_code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server does not answer, so the next start goes on with the cancel."""
    scanned, canceled = threading.Event(), threading.Event()

    async def silent_but_listening(peer: Peer) -> None:
        await peer.welcome()
        scan = await peer.receive()
        scanned.set()
        if end == "Ctrl-D":
            await peer.refuse(scan, "unknown_outcome", retryable=True, retry_after_s=60)
        assert (await peer.receive())["type"] == "payment.cancel"
        canceled.set()

    with till_at_a_terminal(silent_but_listening, tmp_path) as (master, process):
        os.write(master, b"7\n")
        read_until(master, "Enter alone cancels")
        os.write(master, f"{CODE}\n".encode())
        if end == "Ctrl-D":
            read_until(master, "in the background: ")
            os.write(master, b"\x04")
        else:
            assert scanned.wait(20)
            process.send_signal(signal.SIGINT)
        text = read_until(master, "resumes the cancel")
    assert canceled.is_set()
    assert process.returncode == exit_code
    assert "is not canceled yet" in text

    async def answering(peer: Peer) -> None:
        await peer.welcome()
        cancel = await peer.receive()
        assert (cancel["type"], cancel["payment_id"]) == ("payment.cancel", None)
        await peer.answer(cancel, {**CANCELED, "payment_id": "01890000-0000-7000-8000-000000000001"})

    type_in(monkeypatch, "")
    assert run_till(answering, tmp_path) == 0
    assert re.search(r"earlier cancel of order 7-[\d-]+: canceled", capsys.readouterr().err)


def test_a_status_change_of_the_till_is_shown_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(type="status.changed", status="disabled", text="This till is disabled. Call your manager.")
        await peer.answer(await peer.receive(), {**DECLINED, "retryable": False})

    type_in(monkeypatch, "1", CODE, "")
    assert run_till(script, tmp_path) == 0
    assert capsys.readouterr().err == "This till is disabled. Call your manager.\n"
