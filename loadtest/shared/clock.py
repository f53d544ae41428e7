"""Sleep until the intended time of a payment."""

import asyncio
import time

# uvloop's timers have whole milliseconds and fire up to one early.
_TICK_S = 0.001


async def sleep_until(when_s: float) -> None:
    """Sleep until this time.monotonic(), or up to one tick later, but never less. Always yields to the event loop."""
    await asyncio.sleep(max(0.0, when_s - time.monotonic()))
    while time.monotonic() < when_s:  # noqa: ASYNC110 - there is no event to wait for but the time
        await asyncio.sleep(_TICK_S)
