"""A test's tier: how its mark decides which command runs it. Nothing here is a test.

| command | runs | marks |
|---|---|---|
| `make check` | tests without a Postgres, a server process or a package index | neither `postgres` nor `long` |
| `make test` | also everything on a Postgres; faults, crashes and races in a short form | not `long` |
| `make test-all` | also the long forms, and what takes long by nature | all |

`postgres` is added to every test whose fixtures use the fixture `postgres`. A test that starts a Postgres or a server
by other means carries the mark in its file, and so does a long one.
"""

from typing import Any

import pytest

LONG = pytest.mark.long


def short_and_long(name: str, short: Any, long: Any) -> pytest.MarkDecorator:
    """Run a test twice: with `name` as `short` in `make test`, and as `long` in `make test-all` only."""
    return pytest.mark.parametrize(name, [pytest.param(short, id="short"), pytest.param(long, id="long", marks=LONG)])
