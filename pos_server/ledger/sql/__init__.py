"""All SQL statements of the server, by name: one file per subject, loaded into QUERIES.

A line `-- name: x` starts the statement `x`. A line `-- part: y` starts a fragment that several statements include as
`{y}`. Fragments that several files include are in shared.sql.
"""

import re
from importlib.resources import files

_HEAD = re.compile(r"^-- (name|part): (\w+)$", re.MULTILINE)
_USE = re.compile(r"\{(\w+)\}")
_COMMENT = re.compile(r"^--.*\n", re.MULTILINE)


def load_queries(text: str) -> dict[str, str]:
    """Return the statements by name. Raises ValueError for a duplicate name, KeyError for an unknown fragment."""
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


def _read_files() -> str:
    folder = files(__package__)
    return "\n".join(file.read_text("utf-8") for file in folder.iterdir() if file.name.endswith(".sql"))


QUERIES = load_queries(_read_files())
