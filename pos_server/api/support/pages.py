"""Lists a page at a time: the cursor is where the page before ended."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import UUID

from ...core.rest.fields import Page, Paging, Resource
from ...core.rest.problems import ProblemCode
from ...ledger.reports import PageCursor
from .problems import problem

ItemT = TypeVar("ItemT", bound=Resource)
_EPOCH = datetime.fromtimestamp(0, UTC)
_MICROSECOND = timedelta(microseconds=1)
# 16 digits of microseconds end in 2286.
_PLACE = re.compile(r"([0-9]{1,16})\.([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


def page(
    kind: type[Page[ItemT]], items: Sequence[ItemT], asked: Paging, cursor_of: Callable[[ItemT], str]
) -> Page[ItemT]:
    """A page of `items`, of which one more than asked for was read if there are more."""
    shown = tuple(items[: asked.limit])
    return kind(items=shown, next_cursor=cursor_of(shown[-1]) if len(items) > asked.limit else None)


def page_by_cursor(kind: type[Page[ItemT]], items: Sequence[tuple[ItemT, PageCursor]], asked: Paging) -> Page[ItemT]:
    """The same of a list that is ordered by a time and an id."""
    shown = items[: asked.limit]
    cursor = _cursor(shown[-1][1]) if len(items) > asked.limit else None
    return kind(items=tuple(item for item, _ in shown), next_cursor=cursor)


def after_id(asked: Paging) -> int:
    """The id that the page before ended with, of a list that is ordered by ids. Raises Problem."""
    if asked.cursor is None:
        return 0
    if not asked.cursor.isascii() or not asked.cursor.isdigit() or len(asked.cursor) > 15:
        raise bad_cursor()
    return int(asked.cursor)


def after_cursor(asked: Paging) -> PageCursor | None:
    """Where the page before ended, of a list that is ordered by a time and an id; None at its start. Raises Problem."""
    if asked.cursor is None:
        return None
    parts = _PLACE.fullmatch(asked.cursor)
    if parts is None:
        raise bad_cursor()
    return PageCursor(_EPOCH + int(parts[1]) * _MICROSECOND, UUID(parts[2]))


def before_id(asked: Paging) -> int | None:
    """The same of a list whose largest ids come first; None for the first page. Raises Problem."""
    return None if asked.cursor is None else after_id(asked)


def bad_cursor() -> Exception:
    """For a cursor that no page of ours ended with."""
    return problem(ProblemCode.BAD_FIELD, "that is no cursor of this list", pointer="/cursor")


def _cursor(place: PageCursor) -> str:
    return f"{(place.at - _EPOCH) // _MICROSECOND}.{UUID(int=place.id.int)}"
