"""A short store day from start to end, with a real server and locust in a process of its own."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtest.lunch.plan import MIX
from tests.docs.test_loadtest_doc import documented_steps

REPOSITORY = Path(__file__).parents[3]
TIMEOUT_S = 200


async def lunch(folder: Path, *options: str) -> tuple[int, str, dict[str, Any]]:
    """Run the test; returns the exit status, the output and the figures."""
    figures = folder / "figures.json"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "loadtest.lunch", "--html", str(folder / "report.html"), "--json", str(figures)),
        *options,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=REPOSITORY,
        env={name: value for name, value in os.environ.items() if not name.startswith("POS_")},
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    assert figures.exists(), out.decode()
    return process.returncode, out.decode(), json.loads(figures.read_text())


@pytest.mark.asyncio
@pytest.mark.long
async def test_a_day_with_every_flow_a_restart_and_a_report(tmp_path: Path) -> None:
    """The latency objective is generous, because the machine may be slow."""
    status, output, figures = await lunch(
        tmp_path,
        *("--stores", "2", "--tills", "5", "--wallets", "4", "--minutes", "0.35", "--speed", "20"),
        *("--restart", "kill", "--p99-ms-max", "5000"),
    )
    assert status == 0, output
    assert set(figures["flows"]) == set(MIX)
    assert {"approved", "canceled", "declined insufficient_funds", "declined already_paid"} <= set(figures["outcomes"])
    assert figures["books"]["problems"] == figures["failed_steps"] == 0
    assert figures["books"]["payments"] == figures["payments"] > 0
    assert figures["audit"].startswith("audit ok")
    wallets = figures["wallets"]
    assert figures["by_step"]["connection lost"]["count"] >= wallets, "every wallet lost its connection"
    for step in ("scan", "pin", "cancel", "refund", "rescan"):
        assert {f"{step} → terminal", f"{step} → wallet"} <= set(figures["by_step"])
    assert {"repeat → terminal", "wi-fi drop", "resume → terminal"} <= set(figures["by_step"])
    assert set(figures["by_step"]) <= documented_steps()
    report = (tmp_path / "report.html").read_text("utf-8")
    assert "<svg" in report
    assert "scan → terminal" in report
    assert (tmp_path / "report.locust.html").exists()


@pytest.mark.asyncio
@pytest.mark.long
async def test_objectives_that_cannot_be_met_end_it_with_1(tmp_path: Path) -> None:
    status, output, figures = await lunch(
        tmp_path,
        *("--stores", "1", "--tills", "2", "--wallets", "3", "--minutes", "0.1", "--speed", "20"),
        *("--p99-ms-max", "0.001"),
    )
    assert status == 1, output
    assert "MISSED  scan → terminal: p99 at most 0.001 ms" in output
    assert list(figures["objectives"].values()) == [True, False, True, True]
