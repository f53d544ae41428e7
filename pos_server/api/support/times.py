"""Times as the REST API says and reads them: RFC 3339 in UTC."""

from datetime import UTC, datetime

from ...core.rest.problems import ProblemCode
from .problems import json_pointer, problem


def rfc3339(at: datetime) -> str:
    """An aware time, to the millisecond."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def rfc3339_or_none(at: datetime | None) -> str | None:
    """The same of a time that may not have been."""
    return None if at is None else rfc3339(at)


def rfc3339_of_ms(unix_ms: int) -> str:
    """The same of Unix milliseconds."""
    return rfc3339(datetime.fromtimestamp(unix_ms / 1000, UTC))


def moment_of_query(name: str, text: str | None) -> datetime | None:
    """The aware time that a query's parameter says, if it is given. Raises Problem: there is no such time."""
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        raise problem(ProblemCode.BAD_FIELD, "there is no such time", pointer=json_pointer([name])) from None
