"""docs/tutorial.md: all commands run unchanged, except for the activation codes, with the stated output."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.docs.documents import DOCS, read
from tests.docs.test_readme import in_shape
from tests.end_to_end.server_process import POS_SERVER, data_directory, environment

DOCUMENT = read("tutorial.md")
ACTIVATE = re.compile(r"(pos-wallet|pos-terminal) (activate --server \S+ \S+)")
TIMEOUT_S = 120


@asynccontextmanager
async def demo(data: Path) -> AsyncIterator[str]:
    """Yield the output of `make demo` while its server runs."""
    process = await asyncio.create_subprocess_exec(
        *(POS_SERVER, "demo", "--port", "0", "--data-dir", data),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env=environment(),
    )
    assert process.stdout is not None
    text = ""
    try:
        while "Stop with Ctrl-C" not in text:
            line = (await process.stdout.readline()).decode()
            assert line, "the demo ended"
            text += line
        yield text
    finally:
        process.terminate()
        await process.communicate()


class Shell:
    """A shell in the root of the clone, with a separate home directory."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._environment = environment(HOME=str(home), XDG_DATA_HOME=str(home))

    @asynccontextmanager
    async def running(self, script: str) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail", "-c", script.replace(".venv", sys.prefix)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=DOCS.parent,
            env={**self._environment, "PATH": f"{POS_SERVER.parent}:{self._environment['PATH']}"},
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
            await process.communicate()

    async def run(self, script: str, typed: str = "") -> str:
        async with self.running(script) as process:
            out, _ = await process.communicate(typed.encode())
        assert process.returncode == 0, out.decode()
        return out.decode().replace(str(self._home), "~/.local/share")


def comparable(text: str) -> str:
    """Replace ids, numbers of payments and orders, times and latencies, which differ from run to run."""
    text = re.sub(r"^ +\d+  till", "till", text, flags=re.MULTILINE)
    text = re.sub(r"\d\d:\d\d:\d\d", "TIME", re.sub(r"Order \S+", "Order", in_shape(text)))
    return re.sub(r" +\d+\.\d+ ms", " ms", text)


def test_make_demo_starts_the_demo() -> None:
    assert DOCUMENT.section("Open the shop").fence("sh") == "make demo\n"
    assert "pos-server demo" in (DOCS.parent / "Makefile").read_text().partition("\ndemo: setup")[2].splitlines()[1]


@pytest.mark.asyncio
@pytest.mark.long
async def test_from_the_demo_to_a_refund(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    async with asyncio.timeout(TIMEOUT_S), data_directory() as data, demo(data) as printed:
        day = DOCUMENT.section("Open the shop").fence("text")
        assert set(comparable(day).splitlines()) <= set(comparable(printed).splitlines())
        codes = dict(ACTIVATE.findall(printed))

        customer, cashier = DOCUMENT.section("Be the customer"), DOCUMENT.section("Be the cashier")
        for section in (customer, cashier):
            block = section.fences("sh")[0]
            ours = ACTIVATE.sub(lambda match: f"{match[1]} {codes[match[1]]}", block)
            assert ours != block
            assert await shell.run(ours) == section.fences("text")[0]

        _, session, received = cashier.fences("text")
        async with shell.running(f"exec {customer.fences('sh')[1]}") as wallet:
            assert wallet.stdout is not None
            code = (await wallet.stdout.readline()).decode()  # without a screen, a line for each new code
            at_the_till = await shell.run(cashier.fences("sh")[1], f"4.50\n{code}")
            assert comparable(re.sub(r": \d\S+\n", ": ", session)) in comparable(at_the_till)
            while comparable((await wallet.stdout.readline()).decode()) != comparable(received):
                assert not wallet.stdout.at_eof(), "the wallet received no notice of the payment"

        refund = DOCUMENT.section("Refund a part")
        assert in_shape(await shell.run(refund.fence("sh"))) == in_shape(refund.fence("text"))
        (audit,) = re.findall(r"pos-server audit.*", printed)
        assert await shell.run(audit) == DOCUMENT.section("Check the books").fence("text")
