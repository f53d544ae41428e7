"""The current time."""

import time


def now_ms() -> int:
    """Return the server's time in Unix milliseconds."""
    return int(time.time() * 1000)
