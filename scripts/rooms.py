"""Write the table of rooms in docs/architecture.md: `make generate`.

A room is a folder or a module of pos_server, a folder of its core, or pos_client. Its description is the first sentence
of its docstring; its imports come from the code. The order is that of the layers in pyproject.toml, top first.
"""

import ast
import re
import tomllib
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
_BLOCK = re.compile(r"(<!-- generated: rooms -->\n)(?:.*?\n)?(<!-- end -->)", re.DOTALL)


def rooms_page(text: str) -> str:
    """Return the page with a current table of rooms."""
    return _BLOCK.sub(lambda block: f"{block[1]}\n{rooms_table()}\n\n{block[2]}", text)


def rooms_table() -> str:
    """Return the table of rooms in Markdown."""
    rooms = [*_layers("pos_server"), "pos_client"]
    core = rooms.index("pos_server.core")
    rooms[core + 1 : core + 1] = [room for room in _layers("pos_server.core") if not _path(room).suffix]
    graph = grimp.build_graph("pos_server", "pos_client")
    lines = ["| room | what lives there | imports |", "|---|---|---|"]
    for room in rooms:
        imported = {
            _room_of(other, rooms)
            for module in {room, *graph.find_descendants(room)}
            if _room_of(module, rooms) == room
            for other in graph.find_modules_directly_imported_by(module)
        }
        if not room.startswith("pos_server.core"):
            imported = {"pos_server.core" if name.startswith("pos_server.core.") else name for name in imported}
        names = [f"`{_short(other)}`" for other in rooms if other in imported - {room}]
        lines.append(f"| `{_path(room).relative_to(ROOT)}` | {_description(room)} | {', '.join(names) or 'nothing'} |")
    return "\n".join(lines)


def _layers(container: str) -> list[str]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract.get("containers") == [container]]
    return [f"{container}.{name}" for layer in layers for name in layer.split(" | ")]


def _room_of(module: str, rooms: list[str]) -> str:
    return max((room for room in rooms if f"{module}.".startswith(f"{room}.")), key=len, default="")


def _path(room: str) -> Path:
    path = ROOT / ("clients" if room.startswith("pos_client") else "") / room.replace(".", "/")
    return path if path.is_dir() else path.with_suffix(".py")


def _short(room: str) -> str:
    return room.removeprefix("pos_server.").replace(".", "/")


def _description(room: str) -> str:
    path = _path(room)
    docstring = ast.get_docstring(ast.parse((path / "__init__.py" if path.is_dir() else path).read_text())) or ""
    sentence = re.split(r"(?<=\.)\s", docstring.replace("\n", " "), maxsplit=1)[0]
    return sentence.rstrip(".").replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(rooms_page(PAGE.read_text()))
