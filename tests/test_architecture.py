"""Rules for the rooms: imports point one way, the core is pure, SQL stays in the ledger."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import grimp

from scripts.rooms import PAGE, rooms_page

ROOT = Path(__file__).parents[1]
# The rooms of pos_server that a till's machine has without the extra `server`.
CLIENT_MAY_IMPORT = {"core", "programs"}
# Calls that start something which runs beside its caller. `asyncio.to_thread` is not among them: it is awaited.
STARTS = {
    "create_task",
    "ensure_future",
    "run_coroutine_threadsafe",
    "run_in_executor",
    "Thread",
    "Timer",
    "ThreadPoolExecutor",
    "ProcessPoolExecutor",
    "TaskGroup",
    "call_later",
    "call_at",
}
# All that is not started by the supervisor, with the reason why nothing stays dead or goes unseen if it fails.
STARTED_BESIDE_THE_SUPERVISOR = {
    ("pos_server/supervision.py", "create_task"): "the supervisor itself",
    ("pos_server/server.py", "create_task"): "uvicorn: its end stops the process; latecomers: ends with the shutdown",
    ("pos_server/server.py", "call_later"): "a request's deadline: it closes a socket",
    (
        "pos_server/delivery/connections.py",
        "create_task",
    ): "one connection's writer: a failure closes it",
    ("pos_server/gateway/conversation.py", "create_task"): "one request: a failure closes its connection",
    ("pos_server/gateway/catch_up.py", "create_task"): "one device's replay: a failure closes its connection",
    ("pos_server/gateway/pin_hasher.py", "ThreadPoolExecutor"): "a failure of a check is raised to its caller",
    ("pos_server/gateway/pin_hasher.py", "run_in_executor"): "a failure of a check is raised to its caller",
    ("pos_server/telemetry/traces.py", "create_task"): "the flush at shutdown, which is awaited",
    ("pos_server/postgres/embedded.py", "Thread"): "waits for the end of Postgres; its only statement is the wait",
    ("pos_server/demo/__init__.py", "ensure_future"): "the demo's day and its stop, which are awaited",
    ("pos_server/demo/day.py", "TaskGroup"): "the demo's tills, which are awaited",
    ("pos_server/demo/day.py", "create_task"): "the demo's tills and notices, which are awaited",
    ("pos_server/demo/pin_cancel_refund.py", "create_task"): "a scan of the demo, which is awaited",
    ("clients/pos_client/device/connection.py", "create_task"): "a failure is logged and ends the session or the link",
    ("clients/pos_client/device/requests.py", "create_task"): "one request: a failure is raised to its caller",
    ("clients/pos_client/terminal/client.py", "create_task"): "the outcome is raised by `recovered`",
    ("clients/pos_client/terminal/recovery.py", "create_task"): "a failure is raised to the caller, or logged",
    ("clients/pos_client/cli/pin_dialog.py", "create_task"): "a dialog of the command, which shows its failure",
    ("clients/pos_client/cli/till_session.py", "Thread"): "the command's event loop; it ends with the process",
    ("clients/pos_client/cli/till_session.py", "run_coroutine_threadsafe"): "a failure is raised to its caller",
    ("clients/pos_client/cli/wallet_commands.py", "create_task"): "a command's work, which is awaited",
}


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


def test_long_lived_tasks_are_started_by_the_supervisor() -> None:
    """A task that ends by a failure must be seen and started again, or end what it serves."""
    found = Counter[tuple[str, str]]()
    for folder in (ROOT / "pos_server", ROOT / "clients"):
        for path in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                    # A task group's tasks are named by the group.
                    if name in STARTS and not (name == "create_task" and ast.unparse(node.func).startswith("group.")):
                        found[str(path.relative_to(ROOT)), name] += 1
    assert set(found) == set(STARTED_BESIDE_THE_SUPERVISOR)
