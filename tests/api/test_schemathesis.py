"""Schemathesis tests a real server against its OpenAPI document.

It sends valid and invalid requests, follows the links, and checks every response: no 5xx, no status, header or body
that the document does not describe, no invalid request accepted, no valid request rejected. It runs as a separate
process, because its plugin and its imports would cause warnings in this one.
"""

import asyncio
import sys
from pathlib import Path

import asyncpg
import pytest

from pos_server.cli import operator_acts
from pos_server.core.credentials.api_keys import Role
from pos_server.core.rest.catalogue import ENDPOINTS
from pos_server.server import serving
from tests.support import KEYRING, Shop, settings

# The total number of requests is about the same for any number of endpoints.
EXAMPLES_MAX = 6_000 // len(ENDPOINTS)
STORIES_MAX = 300
TIMEOUT_S = 450
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
HOOKS = Path(__file__).with_name("schemathesis_hooks.py")
# The limits must not reject the test's requests.
UNLIMITED = {
    "api_requests_per_s": 1_000_000,
    "api_requests_burst": 1_000_000,
    "api_key_failures_max": 1_000_000,
}


def configuration(keys: dict[Role, str]) -> str:
    """Return the configuration with a key per role. The hooks check whether valid requests are accepted."""
    lines = [
        "color = false",
        f'hooks = "{HOOKS}"',
        "[checks.positive_data_acceptance]",
        "enabled = false",
        "[checks.missing_required_header]",
        "expected-statuses = [400, 401, 403, 415, 422, 428]",
        # Most operations are reached by following links.
        "[phases.stateful]",
        "max-steps = 12",
        f"generation.max-examples = {STORIES_MAX}",
        "[generation]",
        "database = 'none'",
        f"max-examples = {EXAMPLES_MAX}",
        "deterministic = true",
    ]
    for role, key in keys.items():
        lines += [f"[auth.openapi.{role}]", f'bearer = "{key}"']
    return "\n".join(lines) + "\n"


@pytest.mark.asyncio
@pytest.mark.long
async def test_the_server_matches_the_document(dsn: str, shop: Shop, admin: asyncpg.Connection, tmp_path: Path) -> None:
    keys = {
        role: await operator_acts.new_key(admin, role, shop.merchant_id if role is Role.MERCHANT else None, "player")
        for role in Role
    }
    # The requests may revoke any key except those of the test.
    await admin.execute(
        "create function stay() returns trigger language plpgsql as "
        "$$ begin new.ends_at := old.ends_at; return new; end $$;"
        "create trigger stay before update on api_key for each row when (old.name = 'player') execute function stay()"
    )
    (tmp_path / "schemathesis.toml").write_text(configuration(keys))
    async with serving(settings(**UNLIMITED), KEYRING, dsn) as server:
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
    output = out.decode()
    for key in keys.values():
        output = output.replace(key, "KEY")
    assert process.returncode == 0, output
    print(output)  # noqa: T201 - shown by `pytest -s`
