"""Waiting for the time when a payment is meant to be sent."""

import asyncio
import time

# uvloop's clock has whole milliseconds and rings up to one before the time.
_TICK_S = 0.001


async def sleep_until(when_s: float) -> None:
    """Return at this time of time.monotonic() or at the next tick of the clock, never before it; others get a turn."""
    await asyncio.sleep(max(0.0, when_s - time.monotonic()))
    while time.monotonic() < when_s:  # noqa: ASYNC110 - nothing but time makes it pass
        await asyncio.sleep(_TICK_S)
