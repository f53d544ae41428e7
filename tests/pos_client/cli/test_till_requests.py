"""`pos-terminal query`, `cancel`, `refund` and `recent`, and scans that wait for the PIN."""

import json
from pathlib import Path
from typing import Any

import pytest

from pos_client.cli.main import terminal_main
from pos_server.core.credentials.device_keys import DeviceKind
from tests.pos_client.cli.test_till_commands import CODE
from tests.pos_client.fake_cli import save_credentials, silent
from tests.pos_client.fake_server import (
    CANCELED,
    DECLINED,
    PAID,
    PENDING,
    REFUNDED,
    Peer,
    Script,
    fake_server_in_thread,
)

PAYMENT_ID = "01890000-0000-7000-8000-000000000001"


def answering(*answers: dict[str, Any], requests: list[dict[str, Any]] | None = None) -> Script:
    """Return a script that sends these answers, one to each request."""

    async def script(peer: Peer) -> None:
        await peer.welcome()
        for answer in answers:
            message = await peer.receive()
            if requests is not None:
                requests.append(message)
            await peer.answer(message, {"payment_id": PAYMENT_ID, **answer})

    return script


def refusing(code: str) -> Script:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.refuse(await peer.receive(), code, retryable=False)

    return script


def run(script: Script, folder: Path, *arguments: str) -> int:
    with fake_server_in_thread(script) as server:
        command, *rest = arguments
        return terminal_main([command, "--device", save_credentials(DeviceKind.TERMINAL, folder, server.url), *rest])


@pytest.mark.parametrize(
    ("answer", "exit_code", "printed"),
    [
        (PAID, 0, "APPROVED 12.50 EUR, order order-1\n"),
        (
            {**PAID, "refunded_minor": 300, "text": "Paid, of which 3.00 EUR was refunded."},
            0,
            "APPROVED 12.50 EUR, order order-1\nPaid, of which 3.00 EUR was refunded. (approved)\n",
        ),
        (DECLINED, 1, "DECLINED 12.50 EUR, order order-1\nNot enough balance. (insufficient_funds)\n"),
        (
            {**CANCELED, "reference": None, "amount_minor": None},
            1,
            "CANCELED, never scanned\nCanceled. (canceled)\n",
        ),
        (PENDING, 3, "PENDING 12.50 EUR, order order-1\nWaiting for the customer's PIN. (pending)\n"),
    ],
)
def test_a_query_prints_the_state_of_a_payment(
    answer: dict[str, Any], exit_code: int, printed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(answering(answer), tmp_path, "query", "--payment-id", PAYMENT_ID) == exit_code
    assert capsys.readouterr().out == printed


def test_a_query_as_json_in_another_language(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    languages = []

    async def script(peer: Peer) -> None:
        languages.append((await peer.welcome())["language"])
        await peer.answer(await peer.receive(), {**PAID, "payment_id": PAYMENT_ID})

    assert run(script, tmp_path, "query", "--reference", "order-1", "--language", "zh-CN", "--json") == 0
    outcome = json.loads(capsys.readouterr().out)
    assert (outcome["outcome"], outcome["payment_id"], outcome["refunded_minor"]) == ("approved", PAYMENT_ID, 0)
    assert languages == ["zh-CN"]


def test_an_unknown_payment_exits_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(refusing("payment_unknown"), tmp_path, "query", "--reference", "order-1", "--json") == 4
    output = capsys.readouterr()
    assert json.loads(output.out) == {
        "outcome": "not_done",
        "reason": "because of payment_unknown (payment_unknown)",
        "code": "payment_unknown",
    }
    assert output.err == "pos-terminal: because of payment_unknown (payment_unknown)\n"


def test_a_cancel_names_the_order_and_exits_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    requests: list[dict[str, Any]] = []
    assert run(answering(CANCELED, requests=requests), tmp_path, "cancel", "--reference", "order-1") == 0
    assert capsys.readouterr().out == "CANCELED 12.50 EUR, order order-1\nCanceled. (canceled)\n"
    assert (requests[0]["type"], requests[0]["reference"], requests[0]["payment_id"]) == (
        "payment.cancel",
        "order-1",
        None,
    )


def test_an_unanswered_cancel_exits_3_and_the_next_start_resumes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    requests: list[dict[str, Any]] = []
    with fake_server_in_thread(silent, answering(CANCELED, PAID, requests=requests)) as server:
        device = save_credentials(DeviceKind.TERMINAL, tmp_path, server.url)
        assert terminal_main(["cancel", "--device", device, "--payment-id", PAYMENT_ID, "--timeout", "0.3"]) == 3
        error = capsys.readouterr().err
        assert error == "no answer: no answer within 0.3 s. The next start resumes the cancel.\n"
        assert terminal_main(["scan", "--device", device, "--amount", "1", "--code", CODE]) == 0
    assert [message["type"] for message in requests] == ["payment.cancel", "payment.scan"]
    assert capsys.readouterr().err == f"earlier cancel of payment {PAYMENT_ID}: canceled, Canceled.\n"


def test_a_refund_of_an_order_finds_its_payment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    requests: list[dict[str, Any]] = []
    script = answering(PAID, REFUNDED, requests=requests)
    assert run(script, tmp_path, "refund", "--reference", "order-1", "--amount", "3") == 0
    refund_id = requests[1]["refund_id"]
    assert capsys.readouterr().out == (
        f"REFUNDED 3.00 EUR, order order-1\n9.50 EUR may still be refunded. Refund {refund_id}\n"
    )
    assert [message["type"] for message in requests] == ["payment.query", "refund.create"]
    assert (requests[1]["payment_id"], requests[1]["amount_minor"]) == (PAYMENT_ID, 300)


def test_an_unknown_refund_exits_3_with_advice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--payment-id", PAYMENT_ID, "--amount", "3", "--timeout", "0.3", "--json"]
    assert run(silent, tmp_path, "refund", *arguments) == 3
    output = capsys.readouterr()
    refund_id = json.loads(output.out)["refund_id"]
    assert f"--refund-id {refund_id}" in output.err


def test_a_refused_refund_exits_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = refusing("refund_exceeds_remaining")
    assert run(script, tmp_path, "refund", "--payment-id", PAYMENT_ID, "--amount", "3") == 4
    assert capsys.readouterr().err == "pos-terminal: because of refund_exceeds_remaining (refund_exceeds_remaining)\n"


@pytest.mark.parametrize("as_json", [False, True])
def test_recent_prints_one_payment_per_line(as_json: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        recent = await peer.receive()
        payments = [{**PAID, "payment_id": PAYMENT_ID}, {**PENDING, "payment_id": PAYMENT_ID}]
        await peer.send(type="payments.list", reply_to=recent["message_id"], payments=payments)

    assert run(script, tmp_path, "recent", *["--json"] * as_json) == 0
    lines = capsys.readouterr().out.splitlines()
    if as_json:
        assert [json.loads(line)["outcome"] for line in lines] == ["approved", "pending"]
    else:
        assert [line.split(" ", 1)[1] for line in lines] == [
            f"APPROVED 12.50 EUR, order order-1, {PAYMENT_ID}",
            f"PENDING 12.50 EUR, order order-1, {PAYMENT_ID}",
        ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["query"],
        ["query", "--payment-id", "17"],
        ["cancel", "--payment-id", PAYMENT_ID, "--reference", "order-1"],
        ["refund", "--payment-id", PAYMENT_ID],
        ["recent", "--limit", "0"],
        ["recent", "--language", "en US"],
    ],
)
def test_invalid_arguments_exit_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        terminal_main(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err


def test_a_top_up_is_a_scan_with_a_purpose_and_prints_the_servers_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    requests: list[dict[str, Any]] = []
    topped_up = {**PAID, "purpose": "top_up", "text": "Topped up by 12.50 EUR. Take the cash."}
    script = answering(topped_up, requests=requests)
    assert run(script, tmp_path, "scan", "--amount", "12.50", "--code", CODE, "--purpose", "top_up") == 0
    assert capsys.readouterr().out == (
        "APPROVED 12.50 EUR, order order-1\nTopped up by 12.50 EUR. Take the cash. (approved)\n"
    )
    assert requests[0]["purpose"] == "top_up"


def test_a_typed_code_waits_for_the_pin_with_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    requests: list[dict[str, Any]] = []

    async def script(peer: Peer) -> None:
        await peer.welcome()
        requests.append(await peer.receive())
        await peer.answer(requests[0], PENDING)
        await peer.answer(requests[0], {**PAID, "version": 2})

    assert run(script, tmp_path, "scan", "--amount", "12.50", "--code", CODE, "--reference", "r1", "--typed") == 0
    output = capsys.readouterr()
    assert output.out == "APPROVED 12.50 EUR, order order-1\n"
    assert output.err == "order r1: Waiting for the customer's PIN.\n"
    assert requests[0]["entry"] == "typed"
