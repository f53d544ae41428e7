"""Files of commands: a file with other content is never replaced."""

from pathlib import Path

import pytest

from pos_server.cli.output_files import FolderUnusable, write_files
from pos_server.core.accounting.settlement import csv_text


def test_a_settlement_file_of_another_ledger_stays(tmp_path: Path) -> None:
    name, content = "settlement-2026-11-23", csv_text("2026-11-23", [])
    (tmp_path / f"{name}.json").write_text("of another ledger")
    with pytest.raises(FolderUnusable, match="exists with other content"):
        write_files(tmp_path, name, {"csv": content, "json": "{}"})
    assert [path.read_text() for path in tmp_path.iterdir()] == ["of another ledger"]
    (tmp_path / f"{name}.json").write_text("{}")
    written = write_files(tmp_path, name, {"csv": content, "json": "{}"})
    assert [path.suffix for path in written] == [".csv", ".json"]
    assert written[1].read_text() == "{}"
