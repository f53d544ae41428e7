"""docs/api.md: its tables match the code, and its recipes run in order with the stated output.

The recipes are run with the curl of this machine, if there is one, and with tests/docs/tiny_curl.py.
"""

import asyncio
import json
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pos_server.core.credentials.api_keys import Role
from pos_server.core.errors import ErrorCode
from pos_server.core.rest.endpoints import IDEMPOTENCY_KEY_CHARS_MAX
from pos_server.core.rest.fields import PAGE_DEFAULT, PAGE_MAX
from pos_server.core.rest.problems import ProblemCode
from pos_server.server import serving
from pos_server.settings import Settings
from tests.docs.documents import DOCS, anchor, read
from tests.docs.shell import put_tiny_curl
from tests.end_to_end.server_process import POS_SERVER, environment
from tests.support import KEYRING, settings

DOCUMENT = read("api.md")
PROSE = " ".join(DOCUMENT.text.split())
THEIR_URL = "http://127.0.0.1:8080"
TIMEOUT_S = 120


def test_roles_limits_and_figures_are_those_of_the_code() -> None:
    roles = DOCUMENT.section("Keys and roles").table("Role", "Holder", "Permissions")
    assert [row["Role"] for row in roles] == [role.value for role in Role]
    limits = DOCUMENT.section("Limits").table("Limit", "Setting", "Default", "Problem")
    for row in limits:
        field = Settings.model_fields[row["Setting"].removeprefix("POS_").lower()]
        assert f"{field.default:g}" == row["Default"], row
    codes = {*map(str, ProblemCode), *map(str, ErrorCode)}
    assert {word for row in limits for word in re.findall(r"\w+_\w+|busy", row["Problem"])} <= codes
    assert f"is {PAGE_DEFAULT} by default and {PAGE_MAX} at most" in PROSE
    assert f"of 1 to {IDEMPOTENCY_KEY_CHARS_MAX} printable ASCII characters" in PROSE


def test_links_lead_somewhere() -> None:
    anchors = {anchor(section.title) for section in DOCUMENT.sections}
    for link in re.findall(r"\]\(([^)]+)\)", DOCUMENT.text):
        path, _, fragment = link.partition("#")
        assert not fragment or fragment in anchors, link
        assert not path or (DOCS / path).exists(), link


@dataclass(frozen=True, slots=True)
class Recipe:
    """A shell block and its JSON output, or None if the document shows none."""

    block: str
    answer: Any


def recipes() -> list[Recipe]:
    fences = re.findall(r"^```(sh|json)\n(.*?)^```$", DOCUMENT.section("Recipes").text, re.DOTALL | re.MULTILINE)
    listed = []
    for (language, block), following in zip(fences, [*fences[1:], ("", "")], strict=True):
        if language == "sh":
            listed.append(Recipe(block, json.loads(following[1]) if following[0] == "json" else None))
    return listed


def in_shape(value: Any, name: str = "") -> Any:
    """Replace ids, times and keys by their types, because they differ from server to server."""
    if isinstance(value, dict):
        return {key: in_shape(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [in_shape(inner, name) for inner in value]
    if name in ("key", "next_cursor") or name.endswith(("_id", "_at", "_number", "_code")):
        return type(value).__name__
    return value


async def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Run a command and return its output. Fails on an error or a message other than that about a new key."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
        env=environment(**variables),
    )
    async with asyncio.timeout(TIMEOUT_S):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert err.decode() in ("", "This key is shown only once. Keep it safe:\n")
    return out.decode()


@pytest.mark.asyncio
@pytest.mark.parametrize("curl", [pytest.param("curl", marks=pytest.mark.long), "tiny_curl"])
async def test_the_recipes_have_the_stated_output(curl: str, dsn: str, tmp_path: Path) -> None:
    if curl == "curl" and shutil.which("curl") is None:
        pytest.skip("no curl on this machine; the other run uses tiny_curl")
    if curl == "tiny_curl":
        put_tiny_curl(tmp_path)
    all_recipes = recipes()
    assert len(all_recipes) >= 8
    variables = {"POS_DATABASE_URL": dsn, "PATH": f"{tmp_path}:{POS_SERVER.parent}:{os.environ['PATH']}"}
    async with serving(settings(), KEYRING, dsn) as server:
        # One shell for all blocks, because they share variables. A separator follows the output of each block.
        script = "\n".join(f"{recipe.block}\nprintf '\\036'" for recipe in all_recipes) + '\nprintf "%s" "$ADMIN_KEY"'
        assert script.count(THEIR_URL) == 1
        *printed, key = (
            await run(
                "bash", "-euo", "pipefail", "-c", script.replace(THEIR_URL, server.url), cwd=tmp_path, **variables
            )
        ).split("\036")
        for recipe, text in zip(all_recipes, printed, strict=True):
            if recipe.answer is None:
                assert text == "", recipe.block
            else:
                assert in_shape(json.loads(text)) == in_shape(recipe.answer), recipe.block
        section = DOCUMENT.section("From Python")
        program = await run(sys.executable, "-c", section.fence("python"), cwd=tmp_path, URL=server.url, ADMIN_KEY=key)
        assert program == section.fence("text")


def test_the_comparison_of_outputs_notices_differences() -> None:
    shown = {"merchant_id": 1, "name": "Kiosk", "items": [{"created_at": "2026-03-02T12:15:12.763Z"}]}
    other = {"merchant_id": 7, "name": "Kiosk", "items": [{"created_at": "2027-01-01T00:00:00.000Z"}]}
    assert in_shape(shown) == in_shape(other)
    assert in_shape(shown) != in_shape(other | {"name": "Cafe"})
    assert in_shape(shown) != in_shape(other | {"merchant_id": None})
