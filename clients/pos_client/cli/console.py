"""Output shared by all commands: exit codes, plain lines, one-line errors, and banners."""

import os
import shlex
import shutil
import sys
import textwrap
import time
from enum import IntEnum

from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.programs import pasteable, program

_BANNER_COLUMNS_MIN = 24
_BANNER_COLUMNS_MAX = 64


class ExitCode(IntEnum):
    """Exit codes of the commands, as documented in `--help`."""

    OK = 0
    DECLINED = 1
    USAGE = 2
    UNKNOWN = 3
    NOT_DONE = 4
    INTERRUPTED = 130


class UsageError(Exception):
    """An argument or an input is invalid; the text says what to enter instead."""


def printable(text: str) -> str:
    """Return foreign text without control characters, since names and messages could contain escape sequences."""
    return "".join(character if character.isprintable() else "?" for character in text)


def print_line(text: str = "") -> None:
    """Write one or more lines to the standard output and flush it."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def print_error(text: str) -> None:
    """Write one line to the standard error."""
    sys.stderr.write(f"{printable(pasteable(text))}\n")
    sys.stderr.flush()


def command_line(kind: DeviceKind, device: str, words: str) -> str:
    """Return a command for the device that --device named: `words`, an action with its options, ready to paste."""
    option = "" if device == kind.value else f" --device {shlex.quote(device)}"
    return f"{program(f'pos-{kind.value}')} {words}{option}"


def clock_time(unix_ms: int) -> str:
    """Return the local time of day, such as 12:30:05."""
    return time.strftime("%H:%M:%S", time.localtime(unix_ms / 1000))


def group_digits(digits: str) -> str:
    """Return a code in groups of four digits, for reading and typing."""
    return " ".join(digits[i : i + 4] for i in range(0, len(digits), 4))


class Tone(IntEnum):
    """Background colors of a banner, as numbers in the 256-color cube. White text is readable on each."""

    GOOD = 22
    BAD = 88
    OPEN = 94


def banner(title: str, lines: list[str], tone: Tone) -> str:
    """Format a result that can be read from a distance: a colored block on a terminal, framed text elsewhere."""
    width = max(_BANNER_COLUMNS_MIN, min(shutil.get_terminal_size().columns, _BANNER_COLUMNS_MAX))
    texts = [wrapped for line in lines for wrapped in textwrap.wrap(printable(line), width - 4)]
    spaced_title = " ".join(title)
    rows = ["", spaced_title if len(spaced_title) <= width - 4 else title, "", *texts, ""]
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        return "\n".join(f"\x1b[1;38;5;231;48;5;{tone.value}m{row.center(width)}\x1b[0m" for row in rows)
    return "\n".join(["=" * width, title, *texts, "=" * width])
