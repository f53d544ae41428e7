"""The curl that blocks of documents are run with. Nothing here is a test."""

import sys
from pathlib import Path

from tests.docs.documents import DOCS


def put_tiny_curl(directory: Path) -> None:
    """Put tests/docs/tiny_curl.py into a directory of the PATH, as `curl`."""
    path = directory / "curl"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{DOCS.parent}/tests/docs/tiny_curl.py" "$@"\n')
    path.chmod(0o755)
