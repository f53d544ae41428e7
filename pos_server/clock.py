"""The current time, and the start of the business day: midnight in the time zone of the shops."""

import time as system
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


def now_ms() -> int:
    """Return the server's time in Unix milliseconds."""
    return int(system.time() * 1000)


def is_time_zone(name: str) -> bool:
    """Return whether this machine knows an IANA time zone of that name."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


class BusinessDays:
    """Business days of one time zone. The current day is cached, because every batch needs it."""

    def __init__(self, time_zone: str) -> None:
        self._zone = ZoneInfo(time_zone)
        self._start_ms = 0
        self._end_ms = 0

    def start_ms(self, now_ms: int) -> int:
        """Return the start of the day that contains `now_ms`, both in Unix ms. A day can have 23 or 25 hours."""
        if not self._start_ms <= now_ms < self._end_ms:
            day = datetime.fromtimestamp(now_ms / 1000, self._zone).date()
            self._start_ms, self._end_ms = (
                int(datetime.combine(date, time.min, self._zone).timestamp() * 1000)
                for date in (day, day + timedelta(days=1))
            )
        return self._start_ms
