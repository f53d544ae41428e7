"""Hidden keyboard input for programs whose event loop must not block."""

import asyncio
import os
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_TYPED_BYTES_MAX = 1024


@contextmanager
def hidden_lines(on_line: Callable[[str], None]) -> Iterator[None]:
    """Call `on_line` with each typed line. Echo is off, because a line may be a PIN."""
    loop = asyncio.get_running_loop()
    keyboard = sys.stdin.fileno()

    def read_line() -> None:
        text = os.read(keyboard, _TYPED_BYTES_MAX)
        if not text:
            loop.remove_reader(keyboard)
        on_line(text.decode(errors="replace"))

    if not os.isatty(keyboard):
        yield
        return
    attributes = termios.tcgetattr(keyboard)
    hidden_attributes = [*attributes]
    hidden_attributes[3] &= ~termios.ECHO
    termios.tcsetattr(keyboard, termios.TCSADRAIN, hidden_attributes)
    loop.add_reader(keyboard, read_line)
    try:
        yield
    finally:
        loop.remove_reader(keyboard)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, attributes)


async def hidden_line(prompt: str) -> str:
    """Prompt on the standard error and return one typed line without echo. Raises EOFError at the end of input."""
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
