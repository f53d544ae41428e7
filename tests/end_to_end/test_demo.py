"""`pos-server demo` as a person runs it, and the ledger after it is killed."""

import asyncio
import json
import os
import re
import signal
from pathlib import Path

import pytest

from tests.end_to_end.server_process import POS_SERVER, data_directory, environment, pos_server

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]


async def test_once_as_json_prints_one_summary() -> None:
    async with data_directory() as data_dir:
        demo = await pos_server("demo", "--once", "--json", "--data-dir", data_dir)
        assert demo.status == 0, demo.err
        (line,) = demo.out.splitlines()
        summary = json.loads(line)
        assert summary.pop("p50_ms") > 0
        assert summary.pop("p99_ms") > 0
        assert summary == {
            "payments": 36,
            "approved": 30,
            "declined": {"code_expired": 1, "code_invalid": 1, "code_used": 2, "insufficient_funds": 2},
            "steps": {"pending": True, "wrong PIN": True, "PIN payment": True, "cancel": True, "refund": True},
            "terminal_notices": 36,
            "wallet_notices": 35,
            "audit": "ok",
        }
        assert not (data_dir / "postgres" / "postmaster.pid").exists()


@pytest.mark.long
async def test_once_prints_a_line_per_side_and_can_run_many_times_a_day() -> None:
    async with data_directory() as data_dir:
        for ledger_payments in (39, 78):
            # The first run exceeds this limit on payments without a PIN.
            demo = await pos_server("demo", "--once", "--data-dir", data_dir, POS_PIN_FREE_DAY_COUNT_MAX="5")
            assert demo.status == 0, demo.err
            assert len(re.findall(r"^ +\d+  till \d{4} .* ms  \S", demo.out, re.MULTILINE)) == 36
            assert len(re.findall(r"^ +wallet of .* ms  \S", demo.out, re.MULTILINE)) == 35
            steps = demo.out.partition("After the rush:")[2]
            assert "Waiting for the customer's PIN." in steps
            assert "Wrong PIN. Tries left: 2." in steps
            assert "Corner Canteen canceled the payment. 8.40 EUR came back." in steps
            assert "Corner Canteen refunded 3.00 EUR." in steps
            assert f"{ledger_payments} payments in the ledger" in demo.out
        # No log lines are printed in between.
        assert '"event"' not in demo.out
        assert demo.err == ""


@pytest.mark.long
async def test_the_error_for_data_of_another_version_says_what_to_delete() -> None:
    async with data_directory() as data_dir:
        newer = "insert into migration (number, name, checksum) values (9999, '9999_newer.sql', 'x')"
        assert (await pos_server("demo", "--once", "--data-dir", data_dir)).status == 0
        assert (await pos_server("postgres", "--data-dir", data_dir, "psql", "-c", newer)).status == 0
        demo = await pos_server("demo", "--once", "--data-dir", data_dir)
        assert demo.status != 0
        assert "the database has migration 9999_newer.sql, which this version does not know" in demo.err
        assert f"or delete {data_dir}, which contains play money only" in demo.err


@pytest.mark.long
async def test_the_server_keeps_running_and_the_printed_commands_work() -> None:
    async with data_directory() as data_dir:
        process = await asyncio.create_subprocess_exec(
            POS_SERVER,
            *("demo", "--port", "0", "--data-dir", data_dir),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env=environment(),
        )
        assert process.stdout is not None
        text = ""
        try:
            async with asyncio.timeout(90):
                while "Stop with Ctrl-C" not in text:
                    text += (await process.stdout.readline()).decode()
            printed = re.findall(r"^  (\S*pos-(?:wallet|terminal)) (activate|show|till)(.*)$", text, re.MULTILINE)
            assert [action for _, action, _ in printed] == ["activate", "show", "activate", "till"]
            (wallet, _, wallet_code), _, (terminal, _, terminal_code), _ = printed
            assert "Next: " in await _pasted(f"{wallet} activate{wallet_code}", data_dir)
            assert "Next: " in await _pasted(f"{terminal} activate{terminal_code}", data_dir)
            await _pasted(f"{wallet} code --png code.png", data_dir)
            result = await _pasted(f"{terminal} scan --amount 3.50 --image code.png --json", data_dir)
            assert json.loads(result)["outcome"] == "approved"
        finally:
            process.send_signal(signal.SIGINT)
            await process.communicate()
        assert process.returncode == 0
        audit = await pos_server("audit", "--data-dir", data_dir)
        assert (audit.status, audit.out) == (0, "audit ok: 40 payments, 46 transfers, 10 wallets\n")


async def _pasted(line: str, home: Path) -> str:
    """Run a line in a shell in another directory, with a PATH that does not lead to the commands."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", line),
        cwd=home,
        env={"PATH": os.defpath, "HOME": str(home), "XDG_DATA_HOME": str(home)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


@pytest.mark.long
async def test_the_ledger_is_correct_after_a_killed_demo() -> None:
    """Kill the demo after different numbers of payments, audit the ledger, and run the next demo on it."""
    async with data_directory() as data_dir:
        for payments_before_kill in (1, 7, 18):
            process = await asyncio.create_subprocess_exec(
                POS_SERVER,
                *("demo", "--once", "--data-dir", data_dir),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                env=environment(),
            )
            assert process.stdout is not None
            seen = 0
            async with asyncio.timeout(90):
                while seen < payments_before_kill:
                    line = await process.stdout.readline()
                    assert line, "the demo ended before it was killed"
                    seen += b"till 1" in line
            process.kill()
            await process.communicate()
            audit = await pos_server("audit", "--json", "--data-dir", data_dir)
            report = json.loads(audit.out)
            assert (audit.status, report["audit"], report["findings"]) == (0, "ok", [])
            assert report["payments"] >= payments_before_kill
        demo = await pos_server("demo", "--once", "--json", "--data-dir", data_dir)
        assert (demo.status, json.loads(demo.out)["audit"]) == (0, "ok")
