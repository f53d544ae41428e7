"""Business days join without gap and overlap, in every zone, with every cut-off, and through changes of both."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pos_server.business_days import CurrentDay, day_of, day_start, joined_day

ZONES = [
    "UTC",
    "America/Havana",
    "America/New_York",
    "America/Sao_Paulo",
    "Africa/Casablanca",
    "Antarctica/Troll",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Pacific/Apia",
    "Pacific/Honolulu",
    "Pacific/Kiritimati",
    "Pacific/Kwajalein",
]
zones = st.sampled_from(ZONES).map(ZoneInfo)
cut_offs = st.builds(time, st.integers(0, 23), st.integers(0, 59))
instants = st.datetimes(datetime(1990, 1, 1), datetime(2037, 1, 1), timezones=st.just(UTC))
days = st.dates(date(1990, 1, 1), date(2037, 1, 1))


@pytest.mark.parametrize(
    ("zone", "day", "cut_off", "start"),
    [
        ("UTC", "2026-11-23", "00:00", "2026-11-23T00:00"),
        ("Asia/Shanghai", "2026-11-23", "04:00", "2026-11-22T20:00"),
        # Clocks go from 02:00 to 03:00, at 01:00 UTC.
        ("Europe/Berlin", "2026-03-29", "01:59", "2026-03-29T00:59"),
        ("Europe/Berlin", "2026-03-29", "02:30", "2026-03-29T01:30"),
        ("Europe/Berlin", "2026-03-29", "03:00", "2026-03-29T01:00"),
        # Clocks go from 03:00 back to 02:00, at 01:00 UTC: the first 02:30 counts.
        ("Europe/Berlin", "2026-10-25", "02:30", "2026-10-25T00:30"),
        # Clocks go from 01:00 back to 00:00, so midnight comes twice.
        ("America/Havana", "2026-11-01", "00:00", "2026-11-01T04:00"),
        # Clocks go from 00:00 to 01:00.
        ("America/Havana", "2026-03-08", "00:00", "2026-03-08T05:00"),
        # There was no 30 December.
        ("Pacific/Apia", "2011-12-30", "00:00", "2011-12-30T10:00"),
        ("Pacific/Apia", "2011-12-31", "00:00", "2011-12-30T10:00"),
        ("UTC", "2028-02-29", "00:00", "2028-02-29T00:00"),
    ],
)
def test_a_day_starts_when_clocks_show_its_cut_off(zone: str, day: str, cut_off: str, start: str) -> None:
    found = day_start(date.fromisoformat(day), ZoneInfo(zone), time.fromisoformat(cut_off))
    assert found == datetime.fromisoformat(f"{start}:00+00:00")


@given(zones, cut_offs, days)
def test_a_day_never_ends_before_it_starts(zone: ZoneInfo, cut_off: time, day: date) -> None:
    start, end = joined_day(day, zone, cut_off, None)
    assert timedelta() <= end - start <= timedelta(hours=26)


@given(zones, cut_offs, instants)
def test_an_instant_belongs_to_the_day_that_contains_it(zone: ZoneInfo, cut_off: time, instant: datetime) -> None:
    day = day_of(instant, zone, cut_off)
    start, end = joined_day(day, zone, cut_off, None)
    assert start <= instant < end


@given(instants, st.lists(st.tuples(zones, cut_offs), min_size=1, max_size=30))
@example(
    datetime(2026, 11, 20, tzinfo=UTC),
    [(ZoneInfo("Pacific/Honolulu"), time(23)), *[(ZoneInfo("Pacific/Kiritimati"), time())] * 3],
)
def test_days_join_whatever_becomes_of_zone_and_cut_off(first: datetime, terms: list[tuple[ZoneInfo, time]]) -> None:
    day = day_of(first, *terms[0])
    end = None
    for zone, cut_off in terms:
        start, day_end = joined_day(day, zone, cut_off, end)
        assert end in (None, start)
        assert start <= day_end
        assert day_end >= day_start(day + timedelta(days=1), zone, cut_off)
        end, day = day_end, day + timedelta(days=1)


@given(zones, instants)
def test_the_daily_limit_and_the_statement_have_the_same_day(zone: ZoneInfo, instant: datetime) -> None:
    start = day_start(day_of(instant, zone), zone)
    assert CurrentDay(zone.key).start_ms(int(instant.timestamp() * 1000)) == int(start.timestamp() * 1000)
