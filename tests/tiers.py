"""Tiers of tests: marks decide which command runs a test.

| command | runs | marks |
|---|---|---|
| `make check` | tests without a Postgres, a server process or a package index | neither `postgres` nor `long` |
| `make test` | also everything on a Postgres; faults, crashes and races in a short form | not `long` |
| `make test-all` | also the long forms, and tests that are always slow; then the ledger's on an old Postgres | all |

`postgres` is added to every test that uses the fixture `postgres`, directly or indirectly. A test that starts a
Postgres or a server in another way has the mark in its file, as a long test has.
"""

from typing import Any

import pytest

LONG = pytest.mark.long


def short_and_long(name: str, short: Any, long: Any) -> pytest.MarkDecorator:
    """Run a test in two forms: with `name` set to `short` in `make test`, and also to `long` in `make test-all`."""
    return pytest.mark.parametrize(name, [pytest.param(short, id="short"), pytest.param(long, id="long", marks=LONG)])
