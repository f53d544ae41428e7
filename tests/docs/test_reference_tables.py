"""The generated tables of docs/ are up to date."""

from scripts.reference_tables import current_pages


def test_generated_tables_are_current() -> None:
    for path, text in current_pages():
        assert path.read_text("utf-8") == text, f"{path.name} is out of date: run `make generate`"
