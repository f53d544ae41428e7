"""Loads named SQL statements from `queries.sql`: a line `-- name: x` starts the statement `x`.

What several statements have in common stands once, after `-- part: y`, and is put in where they say `{y}`.
"""

import re
from importlib.resources import files

_HEAD = re.compile(r"^-- (name|part): (\w+)$", re.MULTILINE)
_USE = re.compile(r"\{(\w+)\}")
_COMMENT = re.compile(r"^--.*\n", re.MULTILINE)


def load_queries(text: str) -> dict[str, str]:
    """Statements by name. Raises ValueError when a name comes twice, KeyError for a part that is not there."""
    pieces = _HEAD.split(text)
    queries: dict[str, str] = {}
    parts: dict[str, str] = {}
    for kind, name, body in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        if name in queries or name in parts:
            raise ValueError(f"two queries are named {name}")
        if kind == "part":
            parts[name] = _COMMENT.sub("", body.lstrip()).strip()
        else:
            queries[name] = body.strip().rstrip(";")
    return {name: _USE.sub(lambda use: parts[use[1]], statement) for name, statement in queries.items()}


QUERIES = load_queries((files(__package__) / "queries.sql").read_text("utf-8"))
