"""The type of a command, and the exit statuses of commands."""

import argparse
from collections.abc import Callable
from typing import Protocol

from ..core.errors import PosError
from ..settings import Settings

EXIT_FINDINGS = 1
EXIT_USAGE = 2
EXIT_ERROR = 3
# Runs a command and returns its exit status.
Run = Callable[[argparse.Namespace, Settings], int]


class WrongUsage(PosError):
    """Options that have no effect together, or that lack another one; the text says which."""


class AddCommand(Protocol):
    """Adds a command to the parser and returns the parser of its arguments."""

    def __call__(self, name: str, run: Run, text: str) -> argparse.ArgumentParser: ...
