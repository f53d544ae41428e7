"""An early payment would look faster than it is, so none is sent before its intended time."""

import time

import uvloop

from loadtest.shared.clock import sleep_until


def test_sleep_until_never_returns_early() -> None:
    async def early_by_s() -> list[float]:
        early = []
        began_s = time.monotonic()
        for turn in range(60):
            when_s = began_s + 0.0017 * turn
            await sleep_until(when_s)
            early.append(when_s - time.monotonic())
        return early

    assert max(uvloop.run(early_by_s())) <= 0
