"""Schemathesis plays the served document against a real server: what it says is true, and nothing breaks the server.

It makes requests that fit the document and requests that do not, follows the links, and looks at every answer: no 5xx,
no status, header or body that the document does not have, nothing wrong accepted, nothing right refused. It runs as a
process of its own, because its plugin and its imports would warn in ours.

POS_TEST_PROFILE=nightly plays for minutes; `make test` for less than one.
"""

import asyncio
import os
import sys
from pathlib import Path

import asyncpg
import pytest

from pos_server.cli import operator_acts
from pos_server.core.credentials.api_keys import Role
from pos_server.core.rest.catalogue import ENDPOINTS
from pos_server.server import serving
from tests.support import KEYRING, Shop, settings

NIGHTLY = os.environ.get("POS_TEST_PROFILE") == "nightly"
# About as many requests, however many operations there are.
EXAMPLES_MAX = 500 if NIGHTLY else max(5, 800 // len(ENDPOINTS))
STORIES_MAX = 500 if NIGHTLY else 60
TIMEOUT_S = 3_600 if NIGHTLY else 240
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
HOOKS = Path(__file__).with_name("schemathesis_hooks.py")
# The play is no attack.
UNHURRIED = {"api_requests_per_s": 1_000_000, "api_requests_burst": 1_000_000, "api_key_failures_max": 1_000_000}


def configuration(keys: dict[Role, str]) -> str:
    """Each role has its key. What fits the document is judged by our own check, which knows the rules in words."""
    lines = [
        "color = false",
        f'hooks = "{HOOKS}"',
        "[checks.positive_data_acceptance]",
        "enabled = false",
        "[checks.missing_required_header]",
        "expected-statuses = [400, 401, 403, 415, 422, 428]",
        # Steps that follow links are what reaches most operations.
        "[phases.stateful]",
        "max-steps = 12",
        f"generation.max-examples = {STORIES_MAX}",
        "[generation]",
        "database = 'none'",
        f"max-examples = {EXAMPLES_MAX}",
        f"deterministic = {'false' if NIGHTLY else 'true'}",
    ]
    for role, key in keys.items():
        lines += [f"[auth.openapi.{role}]", f'bearer = "{key}"']
    return "\n".join(lines) + "\n"


@pytest.mark.asyncio
@pytest.mark.long
async def test_the_document_is_true(dsn: str, shop: Shop, admin: asyncpg.Connection, tmp_path: Path) -> None:
    keys = {
        role: await operator_acts.new_key(admin, role, shop.merchant_id if role is Role.MERCHANT else None, "player")
        for role in Role
    }
    # What is played may revoke any key, but for those of the player.
    await admin.execute(
        "create function stay() returns trigger language plpgsql as "
        "$$ begin new.ends_at := old.ends_at; return new; end $$;"
        "create trigger stay before update on api_key for each row when (old.name = 'player') execute function stay()"
    )
    (tmp_path / "schemathesis.toml").write_text(configuration(keys))
    async with serving(settings(**UNHURRIED), KEYRING, dsn) as server:
        process = await asyncio.create_subprocess_exec(
            SCHEMATHESIS,
            *("--config-file", tmp_path / "schemathesis.toml"),
            *("run", f"{server.url}/openapi.json", "--continue-on-failure"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=tmp_path,
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                out, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    said = out.decode()
    for key in keys.values():
        said = said.replace(key, "KEY")
    assert process.returncode == 0, said
    print(said)  # noqa: T201 - what `pytest -s` is run for
