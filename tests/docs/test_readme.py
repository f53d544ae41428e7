"""README.md: the first steps and the way from nothing to a refund, run unchanged on a new data directory."""

import asyncio
import os
import re
from pathlib import Path

import pytest

from pos_server.settings import Settings
from tests.docs.documents import DOCS, Section
from tests.docs.shell import put_tiny_curl
from tests.end_to_end.server_process import data_directory, environment, running_server
from tests.support import WIDE_LIMITS

README = Section("README", 0, tuple((DOCS.parent / "README.md").read_text("utf-8").split("\n")))
STEPS = README.section("First steps").fence("sh").splitlines()
FIRST = README.section("From nothing to a refund, in ten commands")
THEIR_URL = "http://127.0.0.1:8080"
TIMEOUT_S = 120
# The default limits, instead of the wide ones of other tests.
DEFAULTS = {f"POS_{name.upper()}": str(Settings.model_fields[name].default) for name in WIDE_LIMITS}


def commands() -> list[str]:
    """Return the commands below the helper function."""
    return FIRST.fence("sh").replace("\\\n", "").split("\n\n")[1].splitlines()


def test_ten_commands_are_ten() -> None:
    assert len(commands()) == 10


def test_first_steps_set_up_activate_and_serve() -> None:
    assert [step.partition("#")[0].rstrip() for step in STEPS] == [
        "make setup",
        ". .venv/bin/activate",
        "pos-server run",
    ]


@pytest.mark.asyncio
@pytest.mark.postgres
async def test_from_nothing_to_a_refund(tmp_path: Path) -> None:
    put_tiny_curl(tmp_path)
    async with data_directory() as data, running_server("--data-dir", data, **DEFAULTS) as server:
        block = FIRST.fence("sh")
        assert block.count(THEIR_URL) == 1
        process = await asyncio.create_subprocess_exec(
            # Only the step in README leads to the commands, not the PATH of this process.
            *("bash", "-euo", "pipefail", "-c", f"{STEPS[1]}\n{block.replace(THEIR_URL, server.url)}"),
            cwd=DOCS.parent,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(
                POS_DATA_DIR=str(data),
                # The directories of the devices' keys.
                HOME=str(tmp_path),
                XDG_DATA_HOME=str(tmp_path),
                PATH=f"{tmp_path}:{os.defpath}",
            ),
        )
        async with asyncio.timeout(TIMEOUT_S):
            out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert in_shape(out.decode().replace(str(tmp_path), "~/.local/share")) == in_shape(FIRST.fence("text"))


def in_shape(text: str) -> str:
    """Replace ids, which differ from server to server."""
    return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", text)
