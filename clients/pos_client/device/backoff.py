"""Exponential backoff with full jitter: the delay before the next attempt.

The delay is uniform between zero and a bound that doubles with each attempt, so a thousand tills that lost one server
do not reconnect in step (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
"""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

BASE_S = 0.25
CAP_S = 15.0
_DOUBLINGS_MAX = 16


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays in seconds. Tests replace the random source (`chance()` in [0, 1)) and `sleep`."""

    base_s: float = BASE_S
    cap_s: float = CAP_S
    chance: Callable[[], float] = random.random
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep

    def delay_s(self, attempt: int) -> float:
        """Return the delay in seconds after failed attempt number `attempt`, counted from 0."""
        return self.chance() * min(self.cap_s, math.ldexp(self.base_s, min(attempt, _DOUBLINGS_MAX)))
