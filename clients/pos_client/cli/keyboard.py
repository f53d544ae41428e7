"""Lines from a keyboard that are not shown, for programs whose event loop must go on meanwhile."""

import asyncio
import os
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_TYPED_BYTES_MAX = 1024


@contextmanager
def hidden_lines(on_line: Callable[[str], None]) -> Iterator[None]:
    """Call this with each line that is typed; none is shown, because it may be a PIN."""
    loop = asyncio.get_running_loop()
    keyboard = sys.stdin.fileno()

    def typed() -> None:
        text = os.read(keyboard, _TYPED_BYTES_MAX)
        if not text:
            loop.remove_reader(keyboard)
        on_line(text.decode(errors="replace"))

    if not os.isatty(keyboard):
        yield
        return
    before = termios.tcgetattr(keyboard)
    hidden = [*before]
    hidden[3] &= ~termios.ECHO
    termios.tcsetattr(keyboard, termios.TCSADRAIN, hidden)
    loop.add_reader(keyboard, typed)
    try:
        yield
    finally:
        loop.remove_reader(keyboard)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


async def hidden_line(prompt: str) -> str:
    """Ask for one line, on the standard error, without showing what is typed. Raises EOFError when there is none."""
    line: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def on_line(text: str) -> None:
        if not line.done():
            line.set_result(text)

    sys.stderr.write(prompt)
    sys.stderr.flush()
    with hidden_lines(on_line):
        text = await line
    sys.stderr.write("\n")
    if not text:
        raise EOFError
    return text.strip()
