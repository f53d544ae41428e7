"""What a command is to the parser, and the exit statuses that commands share."""

import argparse
from collections.abc import Callable
from typing import Protocol

from ..settings import Settings

EXIT_FINDINGS = 1
EXIT_ERROR = 3
# Runs a command; returns its exit status.
Run = Callable[[argparse.Namespace, Settings], int]


class AddCommand(Protocol):
    """Adds a command to the parser, and returns the parser of its arguments."""

    def __call__(self, name: str, run: Run, text: str) -> argparse.ArgumentParser: ...
