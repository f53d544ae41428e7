"""The `curl` for the shell blocks of documents."""

import sys
from pathlib import Path

from tests.docs.documents import DOCS


def put_tiny_curl(directory: Path) -> None:
    """Install tests/docs/tiny_curl.py as `curl` in a directory of the PATH."""
    path = directory / "curl"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{DOCS.parent}/tests/docs/tiny_curl.py" "$@"\n')
    path.chmod(0o755)
