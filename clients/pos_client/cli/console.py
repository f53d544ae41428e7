"""What the commands share in talking to people and scripts: exit codes, plain lines, and errors that are one line."""

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
    """What a script can tell from a command's end; `--help` says the same."""

    OK = 0
    DECLINED = 1
    USAGE = 2
    UNKNOWN = 3
    NOT_DONE = 4
    INTERRUPTED = 130


class UsageError(Exception):
    """The command was called with something it cannot use; the text says what to write instead."""


def printable(text: str) -> str:
    """Text of others, made harmless for a terminal: names and messages could hold escape sequences."""
    return "".join(character if character.isprintable() else "?" for character in text)


def say(text: str = "") -> None:
    """One line, or several, on the standard output, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """One line on the standard error."""
    sys.stderr.write(f"{printable(pasteable(text))}\n")
    sys.stderr.flush()


def command_line(kind: DeviceKind, device: str, words: str) -> str:
    """Return a command for the device that --device named: `words`, an action with its options, ready to paste."""
    option = "" if device == kind.value else f" --device {shlex.quote(device)}"
    return f"{program(f'pos-{kind.value}')} {words}{option}"


def clock_time(unix_ms: int) -> str:
    """A time of day as it is here, such as 12:30:05."""
    return time.strftime("%H:%M:%S", time.localtime(unix_ms / 1000))


def group_digits(digits: str) -> str:
    """A code in groups of four, as people read and type it."""
    return " ".join(digits[i : i + 4] for i in range(0, len(digits), 4))


class Tone(IntEnum):
    """Background colors of a banner, by their number in the 256-color cube: white text is readable on each."""

    GOOD = 22
    BAD = 88
    OPEN = 94


def banner(title: str, lines: list[str], tone: Tone) -> str:
    """A result that can be read from a distance: a colored block on a terminal, framed text elsewhere."""
    width = max(_BANNER_COLUMNS_MIN, min(shutil.get_terminal_size().columns, _BANNER_COLUMNS_MAX))
    texts = [wrapped for line in lines for wrapped in textwrap.wrap(printable(line), width - 4)]
    spaced = " ".join(title)
    rows = ["", spaced if len(spaced) <= width - 4 else title, "", *texts, ""]
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        return "\n".join(f"\x1b[1;38;5;231;48;5;{tone.value}m{row.center(width)}\x1b[0m" for row in rows)
    return "\n".join(["=" * width, title, *texts, "=" * width])
