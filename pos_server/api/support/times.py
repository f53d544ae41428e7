"""Conversion of times from and to RFC 3339 in UTC, the format of the REST API."""

from datetime import UTC, datetime

from ...core.rest.problems import ProblemCode
from .problems import json_pointer, problem


def rfc3339(at: datetime) -> str:
    """Return an aware time in RFC 3339, to the millisecond."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def rfc3339_or_none(at: datetime | None) -> str | None:
    """Return a time as `rfc3339` does, or None for None."""
    return None if at is None else rfc3339(at)


def rfc3339_of_ms(unix_ms: int) -> str:
    """Return Unix milliseconds in RFC 3339."""
    return rfc3339(datetime.fromtimestamp(unix_ms / 1000, UTC))


def parse_time(name: str, text: str | None) -> datetime | None:
    """Return the aware time in the query parameter `name`, None for None. Raises Problem for an invalid time."""
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        raise problem(ProblemCode.BAD_FIELD, "This time does not exist.", pointer=json_pointer([name])) from None
