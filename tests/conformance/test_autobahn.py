"""The Autobahn WebSocket cases (RFC 6455) that do not pass, with reasons. docs/conformance.md has the same tables.

The cases expect a server that echoes every message and sends nothing first. Ours sends `hello` first and accepts only
`pos.v1`. The cases therefore run three times: against its stack below the application with an echo on top, once with
the default frame limit and once with a higher one, and against the real server as a process, where each case starts
after `ready`.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from pos_server.core.errors import CloseCode
from pos_server.settings import Settings
from tests.conformance.autobahn import CONCURRENCY, Result, echo_server, logging_in, run_cases
from tests.docs.documents import read
from tests.end_to_end.server_process import pos_server, running_server
from tests.support import MASTER_KEYS, build_shop, settings

CASES = 517
RAISED_FRAME_BYTES_MAX = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class NotPassed:
    """Cases that the server closes with one of `close_codes` (None: no code arrived), unlike the case expects.

    In `cases`, `9.1.1-6` means 9.1.1 to 9.1.6, and `12.*` means all of section 12.
    """

    cases: str
    close_codes: Collection[int | None]
    why: str

    def among(self, all_cases: Collection[str]) -> set[str]:
        """Return the single cases."""
        selected = set[str]()
        for part in self.cases.split(", "):
            if match := re.fullmatch(r"((?:\d+\.)+)(\d+)-(\d+)", part):
                selected |= {f"{match[1]}{number}" for number in range(int(match[2]), int(match[3]) + 1)}
            elif part.endswith(".*"):
                selected |= {case for case in all_cases if case.startswith(part[:-1])}
            else:
                selected.add(part)
        return selected


COMPRESSION = NotPassed(
    "12.*, 13.*", {1000}, "permessage-deflate is off: messages are short, and compression costs memory per connection"
)
CLOSE_IN_FRAGMENTS = NotPassed(
    "7.1.5",
    {1002},
    "close between two fragments of a message: the websockets library sends 1002 where the case expects 1000; "
    "the connection closes either way",
)
OVER_THE_LIMIT = (
    "1.1.6-8, 1.2.6-8, 9.1.1-6, 9.2.1-6, 9.3.1-9, 9.4.1-9, 9.5.1-6, 9.6.1-6, 10.1.1",
    "message of more than 4096 bytes (POS_FRAME_BYTES_MAX), longer than any pos.v1 message",
)

ECHO_RAISED = [CLOSE_IN_FRAGMENTS, COMPRESSION]
ECHO_SHIPPED = [NotPassed(OVER_THE_LIMIT[0], {1009}, OVER_THE_LIMIT[1]), CLOSE_IN_FRAGMENTS, COMPRESSION]
REAL = [
    # A peer that is still sending can lose the close frame, because TCP resets a connection with unread data.
    NotPassed(OVER_THE_LIMIT[0], {1009, None}, OVER_THE_LIMIT[1]),
    NotPassed(
        "1.1.1-5, 5.3-8, 5.19-20, 6.1.1-3, 6.2.1-4, 6.5.1-5, 6.6.2, 6.6.5, 6.6.7, 6.6.9, 6.6.11, 6.7.1-4, 6.9.1-4, "
        "6.11.1-4, 6.22.1-34, 6.23.1-7, 7.1.1, 9.7.1-6",
        {CloseCode.NOT_JSON},
        "expects the echo of a text message; the server closes with 4103 because the text is not JSON",
    ),
    NotPassed(
        "1.2.1-5, 9.8.1-6",
        {CloseCode.NOT_TEXT},
        "expects the echo of a binary message; the server closes with 4102",
    ),
    CLOSE_IN_FRAGMENTS,
    COMPRESSION,
]
# Section of the document, its table, and the number of passed cases.
RUNS = [
    ("The stack with an echo, frames up to 16 MiB", ECHO_RAISED, 300),
    ("The stack with an echo, frames up to 4096 bytes", ECHO_SHIPPED, 251),
    ("The real server", REAL, 150),
]


def check(results: Mapping[str, Result], run: tuple[str, list[NotPassed], int]) -> None:
    """Check that exactly the expected cases fail, each with a close code of its reason."""
    _, expected, passed = run
    assert (len(results), sum(result.passed for result in results.values())) == (CASES, passed)
    reasons = {case: row for row in expected for case in row.among(results)}
    assert {case for case, result in results.items() if not result.passed} == reasons.keys()
    unexpected = [results[case] for case, row in reasons.items() if results[case].close_code not in row.close_codes]
    assert not unexpected


@pytest.mark.asyncio
@pytest.mark.long
@pytest.mark.parametrize(
    ("frame_bytes_max", "run"),
    [(RAISED_FRAME_BYTES_MAX, RUNS[0]), (Settings.model_fields["frame_bytes_max"].default, RUNS[1])],
    ids=["frames up to 16 MiB", "frames up to 4096 bytes"],
)
async def test_the_stack_below_the_application(
    frame_bytes_max: int, run: tuple[str, list[NotPassed], int], tmp_path: Path
) -> None:
    async with echo_server(settings(frame_bytes_max=frame_bytes_max)) as url:
        check(await run_cases(url, tmp_path), run)


@pytest.mark.asyncio
@pytest.mark.long
async def test_the_real_server_after_ready(dsn: str, connection: asyncpg.Connection, tmp_path: Path) -> None:
    shop = await build_shop(connection, terminals=2 * CONCURRENCY)
    variables = {"POS_DATABASE_URL": dsn, "POS_MASTER_KEYS": MASTER_KEYS}
    async with running_server(**variables) as server, logging_in(server.url, shop.terminals) as url:
        check(await run_cases(url, tmp_path), RUNS[2])
        assert await server.stop() == 0
    assert "Traceback" not in server.log
    assert (await pos_server("audit", POS_DATABASE_URL=dsn)).status == 0


@pytest.mark.parametrize(("title", "table", "passed"), RUNS)
def test_the_document_lists_the_same_cases(title: str, table: list[NotPassed], passed: int) -> None:
    document = read("conformance.md")
    rows = document.section(title).table("Cases", "Why")
    assert [(row["Cases"], row["Why"]) for row in rows] == [(row.cases, row.why) for row in table]
    summary = {row["Run"]: row["Passed"] for row in document.table("Run", "Server", "Passed")}
    assert summary[title] == f"{passed} of {CASES}"
