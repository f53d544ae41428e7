"""Loads named SQL statements from `queries.sql`, where a line `-- name: x` starts the statement `x`."""

import re
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load_queries(text: str) -> dict[str, str]:
    """Statements by name. Raises ValueError when a name comes twice."""
    parts = _NAME.split(text)
    queries: dict[str, str] = {}
    for name, statement in zip(parts[1::2], parts[2::2], strict=True):
        if name in queries:
            raise ValueError(f"two queries are named {name}")
        queries[name] = statement.strip().rstrip(";")
    return queries


QUERIES = load_queries((files(__package__) / "queries.sql").read_text("utf-8"))
