"""Fake time: sleeps that return at once, and a clock that only tests advance."""

import asyncio
from dataclasses import dataclass, field

from pos_client.device.backoff import Backoff


@dataclass
class RecordedSleeps:
    """A sleep that returns at once and records the durations in seconds."""

    seconds: list[float] = field(default_factory=list)

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


@dataclass
class Clock:
    """A clock in Unix milliseconds; sleeping advances it."""

    now_ms: int

    def __call__(self) -> int:
        return self.now_ms

    async def sleep(self, seconds: float) -> None:
        self.now_ms += round(seconds * 1000)


def no_wait(sleeps: RecordedSleeps | None = None) -> Backoff:
    """Return a backoff without jitter whose sleeps return at once."""
    return Backoff(sleep=sleeps or RecordedSleeps(), chance=lambda: 1.0)
