"""Prompts for a cashier with a scanner, which types like a keyboard: a scan for something else is never an answer.

A scanner may read a code twice, and may end it with CR and LF. On a terminal, a question whose answer matters therefore
discards what arrives before it and in the first SCANNER_PAUSE_S.
"""

import re
import sys
import termios
import time
from collections.abc import Collection

from .console import print_line

SCANNER_PAUSE_S = 0.3
_CODE = re.compile(r"[^\d]{0,4}(\d\s*){16,}[^\d]{0,2}")


def ask(prompt: str) -> str:
    """Prompt, and return one typed line without surrounding blanks. Raises EOFError."""
    return input(prompt).strip()


def ask_one_of(prompt: str, answers: Collection[str]) -> str:
    """Prompt until one of these answers is typed; `""` is Enter alone. Raises EOFError."""
    _discard_typed_ahead()
    while (line := ask(prompt)) not in answers:
        refuse(line)
        _discard_typed_ahead()
    return line


def wait_for_enter() -> None:
    """Wait until Enter alone is pressed. Raises EOFError."""
    ask_one_of("Press Enter to continue. ", [""])


def is_code(line: str) -> bool:
    """Return whether a line looks like a scanned payment code, and not like an amount, a PIN or an answer."""
    return _CODE.fullmatch(line) is not None


def refuse(line: str) -> None:
    """Print that a line was not used. The line itself is not printed, since it may be a code or a PIN."""
    what = "A code was scanned" if is_code(line) else "That is no answer"
    print_line(f"{what}. Nothing was done with it.")


def _discard_typed_ahead() -> None:
    """Discard input that arrived before a prompt, on a terminal. Elsewhere, all lines come from a script."""
    if not sys.stdin.isatty():
        return
    time.sleep(SCANNER_PAUSE_S)
    termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
