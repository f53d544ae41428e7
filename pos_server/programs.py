"""Commands in printed texts, in a form that can be pasted with any PATH."""

import re
import shlex
import shutil
import sys
from pathlib import Path

_IN_BACKTICKS = re.compile(r"`(pos-(?:server|terminal|wallet)) ")


def program(name: str) -> str:
    """Return how a shell finds one of our programs: its name if PATH leads to it, otherwise its path."""
    # The programs of an installation are in one directory.
    path = Path(sys.argv[0]).resolve().with_name(name)
    on_path = shutil.which(name)
    if not path.exists() or (on_path is not None and Path(on_path).resolve() == path):
        return name
    return shlex.quote(str(path))


def pasteable(text: str) -> str:
    """Return the text with each command in backticks, such as `pos-server migrate`, in the form that a shell finds."""
    return _IN_BACKTICKS.sub(lambda match: f"`{program(match[1])} ", text)
