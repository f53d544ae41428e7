"""Print the part of requirements.lock that an installation needs, such as a till or an image.

    python3 scripts/pins.py NAME… [--extra EXTRA]…

`pos-server` stands for the project's own dependencies; `--extra` adds those of an extra. Each pin is printed with its
hashes and with the pins that it needs, according to the lock's `# via` comments.
"""

import argparse
import re
import tomllib
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_PIN = re.compile(r"^([a-z0-9._-]+)==.*\n(?:[ \t].*\n?)*", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def pins(lock: str, wanted: set[str]) -> str:
    """Return the pins of `wanted` and of their dependencies, in the lock's order. Raises LookupError."""
    # A name can occur twice, for different versions of Python.
    all_pins = [(match[1], match[0]) for match in _PIN.finditer(lock)]
    if missing := wanted - {name for name, _ in all_pins}:
        raise LookupError(f"not in requirements.lock: {', '.join(sorted(missing))}. Run `make lock`")
    needed, before = wanted, set[str]()
    while needed != before:
        before = needed
        needed = needed | {name for name, pin in all_pins if needed & _needed_by(pin)}
    return "".join(pin for name, pin in all_pins if name in needed)


def _needed_by(pin: str) -> set[str]:
    """Return the packages that need a pin: `# via NAME`, or the names listed below `# via`."""
    _, _, via = pin.partition("# via")
    return {line.strip(" #") for line in via.splitlines()} - {""}


def _main() -> None:
    parser = argparse.ArgumentParser(description="Print the part of requirements.lock that an installation needs.")
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--extra", action="append", default=[], dest="extras")
    arguments = parser.parse_args()
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    wanted = set(arguments.names)
    if project["name"] in wanted:
        extras = [project["optional-dependencies"][extra] for extra in arguments.extras]
        requirements = sum(extras, project["dependencies"])
        wanted = wanted - {project["name"]} | {_NAME.match(each)[0] for each in requirements}  # type: ignore[index]
    print(pins((_ROOT / "requirements.lock").read_text(), wanted), end="")  # noqa: T201


if __name__ == "__main__":
    _main()
