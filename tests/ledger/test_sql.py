"""Named queries."""

import re
from pathlib import Path

import pytest

import pos_server
from pos_server.ledger.sql import QUERIES, load_queries


def test_names_split_statements() -> None:
    text = "-- a file\n-- name: one\n-- why\nselect 1;\n\n-- name: two\nselect 2\n"
    assert load_queries(text) == {"one": "-- why\nselect 1", "two": "select 2"}


def test_a_duplicate_name_is_rejected() -> None:
    with pytest.raises(ValueError, match="two queries are named one"):
        load_queries("-- name: one\nselect 1;\n-- name: one\nselect 2;\n")


def test_a_fragment_is_included() -> None:
    text = (
        "-- part: both\n-- why\na, b\n\n-- name: one\nselect {both} from x;\n-- name: two\nselect {both}, c from y;\n"
    )
    assert load_queries(text) == {"one": "select a, b from x", "two": "select a, b, c from y"}


def test_an_unknown_fragment_is_named() -> None:
    with pytest.raises(KeyError, match="missing"):
        load_queries("-- name: one\nselect {missing};\n")


def test_every_query_is_used_and_every_use_exists() -> None:
    sources = [path.read_text() for path in Path(pos_server.__file__).parent.rglob("*.py")]
    mentioned = {name for source in sources for name in re.findall(r'"(\w+)"', source)}
    checks = {f"audit_{name}" for name in mentioned}
    assert set(QUERIES) - mentioned - checks == set()
    assert {name for source in sources for name in re.findall(r'QUERIES\["(\w+)"\]', source)} <= set(QUERIES)
