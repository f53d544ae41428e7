"""Payments are sent when they are meant to be, or after: one that is early would look faster than it is."""

import time

import uvloop

from loadtest.shared.clock import sleep_until


def test_nobody_wakes_early() -> None:
    async def early_by_s() -> list[float]:
        early = []
        began_s = time.monotonic()
        for turn in range(60):
            when_s = began_s + 0.0017 * turn
            await sleep_until(when_s)
            early.append(when_s - time.monotonic())
        return early

    assert max(uvloop.run(early_by_s())) <= 0
