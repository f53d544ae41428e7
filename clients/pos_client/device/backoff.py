"""How long to wait before the next try: exponential backoff with full jitter.

The delay is uniform between zero and a bound that doubles, so that a thousand tills that lost one server do not come
back in step (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
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
    """Delays in seconds. Chance (`chance()` in [0, 1)) and `sleep` can be replaced, for tests."""

    base_s: float = BASE_S
    cap_s: float = CAP_S
    chance: Callable[[], float] = random.random
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep

    def delay_s(self, attempt: int) -> float:
        """The delay after failed attempt number `attempt`, counted from 0."""
        return self.chance() * min(self.cap_s, math.ldexp(self.base_s, min(attempt, _DOUBLINGS_MAX)))
