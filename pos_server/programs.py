"""Commands in printed texts, so that a person can paste them whatever PATH holds."""

import re
import shlex
import shutil
import sys
from pathlib import Path

_IN_BACKTICKS = re.compile(r"`(pos-(?:server|terminal|wallet)) ")


def program(name: str) -> str:
    """Return one of our programs as a shell finds it: by its name if PATH leads there, otherwise by its path."""
    # Programs of one installation stand in one directory.
    path = Path(sys.argv[0]).resolve().with_name(name)
    on_path = shutil.which(name)
    if not path.exists() or (on_path is not None and Path(on_path).resolve() == path):
        return name
    return shlex.quote(str(path))


def pasteable(text: str) -> str:
    """Return the text with its commands in backticks, such as `pos-server migrate`, as a shell finds them."""
    return _IN_BACKTICKS.sub(lambda match: f"`{program(match[1])} ", text)
