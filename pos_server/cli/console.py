"""Output of the commands: results on standard output, messages to the person at the terminal on stderr."""

import sys

from ..programs import pasteable


def say(text: str) -> None:
    """Print a message to the person at the terminal."""
    print(pasteable(text), file=sys.stderr, flush=True)  # noqa: T201


def print_out(text: str) -> None:
    """Print a line of the command's result."""
    print(text, flush=True)  # noqa: T201
