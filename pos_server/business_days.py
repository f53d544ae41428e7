"""Business days: the one place that reckons which day an instant belongs to, and when a day starts and ends.

A day starts when the clocks of its time zone show the cut-off, and ends when the next day starts. If they show it twice
(daylight saving ends), the first time counts; if they skip it, the day starts as late after the gap as the cut-off lies
in it (PEP 495, fold=0). A day can therefore have 23 or 25 hours, or none where a zone skipped a date.
"""

from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_DAY = timedelta(days=1)
MIDNIGHT = time()


def is_time_zone(name: str) -> bool:
    """Return whether this machine knows an IANA time zone of that name."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def day_start(day: date, zone: tzinfo, cut_off: time = MIDNIGHT) -> datetime:
    """Return the instant in UTC at which a business day starts, and the previous one ends."""
    return datetime.combine(day, cut_off, zone).astimezone(UTC)


def day_of(instant: datetime, zone: tzinfo, cut_off: time = MIDNIGHT) -> date:
    """Return the business day that contains an aware instant: the last one that has started by then."""
    local = instant.astimezone(zone).replace(tzinfo=None)
    day = (local - timedelta(hours=cut_off.hour, minutes=cut_off.minute, seconds=cut_off.second)).date() + _DAY
    while day_start(day, zone, cut_off) > instant:
        day -= _DAY
    return day


def joined_day(day: date, zone: tzinfo, cut_off: time, previous_end: datetime | None) -> tuple[datetime, datetime]:
    """Return start and end of a day that follows another one without gap and overlap, in UTC.

    It starts at `previous_end`, also if zone or cut-off have changed since. If the day would end before that, it is
    empty.
    """
    start = previous_end or day_start(day, zone, cut_off)
    return start, max(start, day_start(day + _DAY, zone, cut_off))


class CurrentDay:
    """The business day of the present, from midnight to midnight. It is cached, because every batch needs it."""

    def __init__(self, time_zone: str) -> None:
        self._zone = ZoneInfo(time_zone)
        self._start_ms = 0
        self._end_ms = 0

    def start_ms(self, now_ms: int) -> int:
        """Return the start of the day that contains `now_ms`, both in Unix ms."""
        if not self._start_ms <= now_ms < self._end_ms:
            day = day_of(datetime.fromtimestamp(now_ms / 1000, UTC), self._zone)
            start, end = joined_day(day, self._zone, MIDNIGHT, None)
            self._start_ms, self._end_ms = int(start.timestamp() * 1000), int(end.timestamp() * 1000)
        return self._start_ms
