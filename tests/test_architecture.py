"""Rules for the rooms: imports point one way, the core is pure, SQL stays in the ledger."""

import subprocess
import sys
from pathlib import Path

import grimp

from scripts.rooms import PAGE, rooms_page

ROOT = Path(__file__).parents[1]
# The rooms of pos_server that a till's machine has without the extra `server`.
CLIENT_MAY_IMPORT = {"core", "programs"}


def test_imports_point_one_way() -> None:
    """The layers are contracts in pyproject.toml, [tool.importlinter]."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_client_imports_the_core_only() -> None:
    graph = grimp.build_graph("pos_server", "pos_client")
    for module in graph.find_descendants("pos_client"):
        for imported in graph.find_modules_directly_imported_by(module):
            package, _, rest = imported.partition(".")
            assert package != "pos_server" or rest.split(".")[0] in CLIENT_MAY_IMPORT, (module, imported)


def test_the_table_of_rooms_is_current() -> None:
    page = PAGE.read_text()
    assert rooms_page(page) == page, "run `make generate`"


def test_sql_is_in_the_ledger_only() -> None:
    for path in (ROOT / "pos_server").rglob("*.py"):
        if "ledger" not in path.parts:
            text = path.read_text().lower()
            assert "select " not in text.replace("select another", ""), path
            assert "insert into" not in text, path


def test_the_core_has_no_coroutines() -> None:
    paths = list((ROOT / "pos_server" / "core").rglob("*.py"))
    assert paths
    for path in paths:
        assert "async def" not in path.read_text(), path
