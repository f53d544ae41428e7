"""What the folders promise: imports point one way, the core is pure."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_imports_point_one_way() -> None:
    """The contracts stand in pyproject.toml, [tool.importlinter]."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    linted = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_only_the_ledger_speaks_sql() -> None:
    for path in (ROOT / "pos_server").rglob("*.py"):
        if path.parent.name != "ledger":
            text = path.read_text().lower()
            assert "select " not in text.replace("select another", ""), path
            assert "insert into" not in text, path


def test_the_core_has_no_coroutines() -> None:
    for path in (ROOT / "pos_server" / "core").glob("*.py"):
        assert "async def" not in path.read_text(), path
