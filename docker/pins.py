"""Prints the part of requirements.lock that an image needs: one lock, whatever is built from it.

    python docker/pins.py NAME… [--extra EXTRA] [--without NAME]

`pos-server` stands for the project's own dependencies, `--extra` for those of an extra of it. Each pin comes with its
hashes and with all that it needs, which the lock's `# via` comments say.
"""

import argparse
import re
import tomllib
from pathlib import Path

_PIN = re.compile(r"^([a-z0-9._-]+)==.*\n(?:[ \t].*\n?)*", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def pins(lock: str, wanted: set[str], without: str | None = None) -> str:
    """The pins of `wanted` and of what they need, in the lock's order. LookupError: a name is not in it."""
    # A name may stand in it twice, for different versions of Python.
    found = [(match[1], match[0]) for match in _PIN.finditer(lock)]
    if missing := wanted - {name for name, _ in found}:
        raise LookupError(f"not in requirements.lock: {', '.join(sorted(missing))}. `make lock` resolves it anew")
    needed, before = wanted - {without}, set[str]()
    while needed != before:
        before = needed
        needed = needed | {name for name, pin in found if name != without and needed & _needed_by(pin)}
    return "".join(pin for name, pin in found if name in needed)


def _needed_by(pin: str) -> set[str]:
    """Who needs it: `# via NAME`, or a list of names below `# via`."""
    _, _, via = pin.partition("# via")
    return {line.strip(" #") for line in via.splitlines()} - {""}


def _main() -> None:
    parser = argparse.ArgumentParser(description="Print the part of requirements.lock that an image needs.")
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--extra")
    parser.add_argument("--without")
    arguments = parser.parse_args()
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    wanted = set(arguments.names)
    if project["name"] in wanted:
        requirements = project["dependencies"] + project["optional-dependencies"].get(arguments.extra, [])
        wanted = wanted - {project["name"]} | {_NAME.match(each)[0] for each in requirements}  # type: ignore[index]
    print(pins(Path("requirements.lock").read_text(), wanted, arguments.without), end="")  # noqa: T201


if __name__ == "__main__":
    _main()
