"""Time that tests move: sleeps that take none, and a clock that stands still."""

import asyncio
from dataclasses import dataclass, field

from pos_client.device.backoff import Backoff


@dataclass
class Naps:
    """A sleep that returns at once and remembers what was asked of it, in seconds."""

    seconds: list[float] = field(default_factory=list)

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


@dataclass
class Clock:
    """A clock in Unix milliseconds; sleeping moves it."""

    now_ms: int

    def __call__(self) -> int:
        return self.now_ms

    async def sleep(self, seconds: float) -> None:
        self.now_ms += round(seconds * 1000)


def no_wait(naps: Naps | None = None) -> Backoff:
    """Backoff without jitter that takes no time."""
    return Backoff(sleep=naps or Naps(), chance=lambda: 1.0)
