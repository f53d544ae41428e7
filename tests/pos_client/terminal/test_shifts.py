"""Shifts at a till: TerminalClient and `pos-terminal shift`."""

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from pos_client.cli.main import terminal_main
from pos_client.errors import RequestRefused, RequestUnanswered
from pos_client.terminal.client import TerminalClient
from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.protocol.server_messages import ShiftReport
from tests.pos_client.fake_cli import save_credentials, silent
from tests.pos_client.fake_server import Peer, Script, fake_server, fake_server_in_thread
from tests.pos_client.fake_time import no_wait

SHIFT_ID = "01890000-0000-7000-8000-0000000000bb"
REPORT = {
    "type": "shift.report",
    "reply_to": None,
    "report": "X",
    "shift_id": SHIFT_ID,
    "shift_number": 17,
    "terminal_number": 7,
    "merchant_name": "Canteen",
    "store_name": "North",
    "operator": "Alice",
    "currency": "EUR",
    "opened_at_ms": 1_700_000_000_000,
    "closed_at_ms": None,
    "made_at_ms": 1_700_000_000_000,
    "totals": [{"kind": "sale", "count": 2, "amount_minor": 1250}],
    "net_sales_minor": 1250,
    "opening_cash_minor": 10_000,
    "expected_cash_minor": 10_000,
    "counted_cash_minor": None,
    "cash_difference_minor": None,
    "text": "X-REPORT 17\n    2 Sales  12.50\x1b",
}
CLOSED = {**REPORT, "report": "Z", "closed_at_ms": 1_700_000_009_000, "text": "Z-REPORT 17"}


def reporting(*answers: dict[str, Any], requests: list[dict[str, Any]] | None = None) -> Script:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        for answer in answers:
            message = await peer.receive()
            if requests is not None:
                requests.append(message)
            await peer.send(**{**answer, "reply_to": message["message_id"]})

    return script


@pytest.mark.asyncio
async def test_a_shift_is_opened_reported_and_closed() -> None:
    requests: list[dict[str, Any]] = []
    async with (
        fake_server(reporting(REPORT, REPORT, CLOSED, requests=requests)) as server,
        TerminalClient(server.terminal(), backoff=no_wait()) as till,
    ):
        opened = await till.open_shift("Alice", 10_000, shift_id=UUID(SHIFT_ID))
        await till.shift_report()
        closed = await till.close_shift(opened.shift_id, 9_950)
        assert till.unread == 0
    assert isinstance(opened, ShiftReport)
    assert (opened.shift_id, opened.totals[0].count, closed.report) == (UUID(SHIFT_ID), 2, "Z")
    assert [{k: v for k, v in message.items() if k != "message_id"} for message in requests] == [
        {"type": "shift.open", "shift_id": SHIFT_ID, "operator": "Alice", "opening_cash_minor": 10_000},
        {"type": "shift.query", "shift_id": None},
        {"type": "shift.close", "shift_id": SHIFT_ID, "counted_cash_minor": 9_950},
    ]


@pytest.mark.asyncio
async def test_a_lost_open_is_resent_with_its_id() -> None:
    requests: list[dict[str, Any]] = []

    async def losing(peer: Peer) -> None:
        await peer.welcome()
        requests.append(await peer.receive())
        peer.drop()

    async with (
        fake_server(losing, reporting(REPORT, requests=requests)) as server,
        TerminalClient(server.terminal(), backoff=no_wait()) as till,
    ):
        await till.open_shift("Alice")
    assert requests[0]["shift_id"] == requests[1]["shift_id"]


@pytest.mark.asyncio
async def test_a_close_waits_for_a_pending_payment_until_its_timeout() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.refuse(await peer.receive(), "payment_pending", retryable=True)
        message = await peer.receive()
        await peer.send(**{**CLOSED, "reply_to": message["message_id"]})
        await peer.refuse(await peer.receive(), "payment_pending", retryable=True, retry_after_s=60)

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        assert (await till.close_shift(UUID(SHIFT_ID))).report == "Z"
        with pytest.raises(RequestUnanswered, match="because of payment_pending"):
            await till.close_shift(UUID(SHIFT_ID), timeout_s=5)


@pytest.mark.asyncio
async def test_an_invalid_shift_is_a_value_error() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.refuse(await peer.receive(), "shift_already_open", retryable=False)

    async with fake_server(script) as server, TerminalClient(server.terminal(), backoff=no_wait()) as till:
        for operator, cash in (("", 0), ("x" * 41, 0), ("Alice", -1)):
            with pytest.raises(ValueError, match=r"operator|opening_cash_minor"):
                await till.open_shift(operator, cash)
        with pytest.raises(RequestRefused) as refused:
            await till.open_shift("Alice")
    assert refused.value.code == "shift_already_open"


def run(script: Script, folder: Path, *arguments: str) -> int:
    with fake_server_in_thread(script) as server:
        action, *rest = arguments
        return terminal_main(
            ["shift", action, "--device", save_credentials(DeviceKind.TERMINAL, folder, server.url), *rest]
        )


def test_the_command_opens_a_shift_with_the_cash_in_the_drawer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    requests: list[dict[str, Any]] = []
    assert run(reporting(REPORT, requests=requests), tmp_path, "open", "--operator", "Alice", "--cash", "100") == 0
    output = capsys.readouterr()
    assert output.out == "X-REPORT 17\n    2 Sales  12.50?\n"
    assert output.err == f"shift {SHIFT_ID}\n"
    assert (requests[0]["operator"], requests[0]["opening_cash_minor"]) == ("Alice", 10_000)


def test_the_command_closes_the_open_shift(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    requests: list[dict[str, Any]] = []
    assert run(reporting(REPORT, CLOSED, requests=requests), tmp_path, "close", "--cash", "0.00") == 0
    assert capsys.readouterr().out == "Z-REPORT 17\n"
    assert [message["type"] for message in requests] == ["shift.query", "shift.close"]
    assert (requests[1]["shift_id"], requests[1]["counted_cash_minor"]) == (SHIFT_ID, 0)


def test_the_report_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    requests: list[dict[str, Any]] = []
    assert run(reporting(CLOSED, requests=requests), tmp_path, "report", "--shift-id", SHIFT_ID, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["outcome"], printed["report"], printed["totals"]) == ("done", "Z", REPORT["totals"])
    assert requests[0]["shift_id"] == SHIFT_ID


@pytest.mark.parametrize("as_json", [False, True])
def test_no_answer_exits_3_with_advice(as_json: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--json"] if as_json else []
    assert run(silent, tmp_path, "open", "--operator", "Alice", "--timeout", "0.3", *options) == 3
    output = capsys.readouterr()
    assert "pos-terminal shift report" in output.err
    assert run(silent, tmp_path, "close", "--shift-id", SHIFT_ID, "--timeout", "0.3", *options) == 3
    close_output = capsys.readouterr()
    assert f"pos-terminal shift close --shift-id {SHIFT_ID}" in close_output.err
    assert run(silent, tmp_path, "report", "--timeout", "0.3", *options) == 3
    assert (json.loads(output.out)["outcome"] == "unknown") if as_json else output.out == ""


def test_a_refusal_exits_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.refuse(await peer.receive(), "shift_unknown", retryable=False)

    for action in ("close", "report"):
        assert run(script, tmp_path, action, "--json") == 4
        assert json.loads(capsys.readouterr().out)["code"] == "shift_unknown"


@pytest.mark.parametrize("cash", ["-1", "ten", "1.005", "", "0..0", "0.000", "0 0"])
def test_cash_that_is_not_an_amount_exits_2(cash: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(silent, tmp_path, "open", "--operator", "Alice", f"--cash={cash}") == 2
    assert "pos-terminal: " in capsys.readouterr().err
