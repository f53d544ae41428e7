"""The type of a command, and the exit statuses of commands."""

import argparse
from collections.abc import Callable
from typing import Protocol

from ..settings import Settings

EXIT_FINDINGS = 1
EXIT_ERROR = 3
# Runs a command and returns its exit status.
Run = Callable[[argparse.Namespace, Settings], int]


class AddCommand(Protocol):
    """Adds a command to the parser and returns the parser of its arguments."""

    def __call__(self, name: str, run: Run, text: str) -> argparse.ArgumentParser: ...
