"""docs/operations.md: settings, commands and log events exist, and the unit fits the settings.

tests/backup runs the commands about backups.
"""

import argparse
import configparser
import re
import shlex
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import pos_server
from pos_client.cli.till_commands import add_to
from pos_server.cli import main as cli
from pos_server.core.credentials.payment_code import STEP_S
from pos_server.core.errors import CloseCode
from pos_server.ledger.database import SERVER_VERSION_MIN
from pos_server.ledger.horizon import WRITERS_TIMEOUT_S
from pos_server.postgres.embedded import IMMEDIATE_TIMEOUT_S, EmbeddedPostgres
from pos_server.settings import METRICS_TOKEN_CHARS_MIN, Settings
from tests.backup.documented import names
from tests.docs.documents import read

DOCUMENT = read("operations.md")
SHELL = [line for block in DOCUMENT.fences("sh") for line in block.splitlines()]
UNITS = [unit for unit in DOCUMENT.fences("ini") if "[Service]" in unit]


def inline() -> list[str]:
    """Return the texts in backticks outside of blocks, each as one line."""
    prose = re.sub(r"^```.*?^```$", "", DOCUMENT.text, flags=re.DOTALL | re.MULTILINE)
    return [" ".join(words.split()) for words in re.findall(r"`([^`]+)`", prose)]


def unit(text: str) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser["Service"]


def default(setting: str) -> Any:
    return Settings.model_fields[setting].default


def test_every_setting_exists() -> None:
    named = set(re.findall(r"\bPOS_[A-Z_]+[A-Z]\b", DOCUMENT.text))
    assert len(named) > 5
    assert {name.removeprefix("POS_").lower() for name in named} <= set(Settings.model_fields)


def commands() -> list[str]:
    """Return every `pos-server …` of the blocks, the units and the text. Words in capitals stand for values."""
    lines = [line for line in SHELL if line.startswith("pos-server ")]
    lines += [unit(text)["ExecStart"].partition(".venv/bin/")[2] for text in UNITS]
    lines += [words for words in inline() if words.startswith("pos-server ")]
    return sorted({re.sub(r" <<SQL$| …$", "", command) for command in lines})


@pytest.mark.parametrize("command", commands())
def test_every_command_exists(command: str) -> None:
    program, *words = shlex.split(command)
    assert program == "pos-server"
    values = {"NUMBER": "1", "ID": "1"}
    cli._parser().parse_args([values.get(word, word) for word in words])


def test_every_block_about_backups_is_run_by_a_test() -> None:
    source = (Path(__file__).parents[1] / "backup" / "test_backup.py").read_text()
    sections = [
        part
        for title in ("Backup and restore", "A dump", "Any moment")
        for part in DOCUMENT.section(title).sections
        if part.fences("sh")
    ]
    assert len(sections) >= 8
    assert [part.title for part in sections if f'section("{part.title}")' not in source] == []
    assert names() == DOCUMENT.section("Backup and restore").fences("sh")[0]


def test_the_commands_to_query_a_payment_exist() -> None:
    assert {"pos-terminal query --payment-id ID", "--reference ORDER"} <= set(inline())
    parser = argparse.ArgumentParser()
    add_to(parser.add_subparsers(), argparse.ArgumentParser(add_help=False))
    for options in (["--payment-id", "018f0000-0000-7000-8000-000000000000"], ["--reference", "ORDER"]):
        parser.parse_args(["query", *options])


def test_the_stop_timeout_of_the_unit_covers_drain_and_postgres() -> None:
    (server,) = (unit(text) for text in UNITS if text.rstrip().endswith("multi-user.target"))
    assert server["KillMode"] == "mixed"
    postgres_s = EmbeddedPostgres(Path("unused"))._stop_timeout_s + IMMEDIATE_TIMEOUT_S
    assert f"and {postgres_s:.0f} s for Postgres" in " ".join(DOCUMENT.text.split())
    assert int(server["TimeoutStopSec"]) > 2 * default("drain_timeout_s") + postgres_s


def test_timers_do_not_stop_a_shared_postgres() -> None:
    daily = [unit(text) for text in UNITS if "Type=oneshot" in text]
    assert daily
    assert all(service["KillMode"] == "process" for service in daily)


def test_log_events_exist() -> None:
    (row,) = (
        row for row in DOCUMENT.section("What to watch").table("What", "How", "Why") if row["What"] == "log events"
    )
    sources = "".join(path.read_text() for path in Path(pos_server.__file__).parent.rglob("*.py"))
    events = row["How"].split(", ")
    assert len(events) > 3
    assert [event for event in events if not re.search(rf'log\.\w+\(\s*"{event}"', sources)] == []


def test_figures_match_the_code() -> None:
    prose = " ".join(DOCUMENT.text.split())
    assert f"PostgreSQL {SERVER_VERSION_MIN} or newer" in prose
    assert f"closed with {CloseCode.UNAUTHORIZED}" in prose
    assert f"its step of {STEP_S} s" in prose
    assert WRITERS_TIMEOUT_S == 60, "the document says a minute"
    assert f"`POS_METRICS_TOKEN` ({METRICS_TOKEN_CHARS_MIN} characters or more" in prose


@pytest.mark.asyncio
async def test_the_queries_run_and_have_the_stated_results(admin: asyncpg.Connection, shop: object) -> None:
    left, watch = (DOCUMENT.section(title).fence("sql") for title in ("Master keys", "What to watch"))
    assert [tuple(row) for row in await admin.fetch(left)] == [("terminal", "k1", 2), ("wallet device", "k1", 3)]
    open_for, behind, archive = watch.split(";")[:3]
    assert await admin.fetch(open_for) == []
    assert await admin.fetchval(behind) == 3
    assert (await admin.fetchrow(archive))["archived_count"] == 0
