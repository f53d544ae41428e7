"""Pages of lists. A cursor is the position of the previous page's last item."""

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
_TIME_AND_ID = re.compile(r"([0-9]{1,16})\.([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


def page(
    kind: type[Page[ItemT]], items: Sequence[ItemT], paging: Paging, cursor_of: Callable[[ItemT], str]
) -> Page[ItemT]:
    """Return a page of `items`, which contain one item more than the limit if the list continues."""
    page_items = tuple(items[: paging.limit])
    return kind(items=page_items, next_cursor=cursor_of(page_items[-1]) if len(items) > paging.limit else None)


def page_by_cursor(kind: type[Page[ItemT]], items: Sequence[tuple[ItemT, PageCursor]], paging: Paging) -> Page[ItemT]:
    """Return a page of `items`, as `page` does, of a list that is ordered by time and id."""
    page_items = items[: paging.limit]
    cursor = _format_cursor(page_items[-1][1]) if len(items) > paging.limit else None
    return kind(items=tuple(item for item, _ in page_items), next_cursor=cursor)


def after_id(paging: Paging) -> int:
    """Return the last id of the previous page, 0 for the first page, of a list ordered by id. Raises Problem."""
    if paging.cursor is None:
        return 0
    if not paging.cursor.isascii() or not paging.cursor.isdigit() or len(paging.cursor) > 15:
        raise bad_cursor()
    return int(paging.cursor)


def after_cursor(paging: Paging) -> PageCursor | None:
    """Return the position of the previous page's last item in a list ordered by time and id.

    Returns None for the first page. Raises Problem.
    """
    if paging.cursor is None:
        return None
    parts = _TIME_AND_ID.fullmatch(paging.cursor)
    if parts is None:
        raise bad_cursor()
    return PageCursor(_EPOCH + int(parts[1]) * _MICROSECOND, UUID(parts[2]))


def before_id(paging: Paging) -> int | None:
    """Return the last id of the previous page, None for the first page, of a list in descending order of ids.

    Raises Problem.
    """
    return None if paging.cursor is None else after_id(paging)


def bad_cursor() -> Exception:
    """Return the problem for a cursor that does not belong to the list."""
    text = "The cursor does not belong to this list. Use `next_cursor` of its previous page."
    return problem(ProblemCode.BAD_FIELD, text, pointer="/cursor")


def _format_cursor(cursor: PageCursor) -> str:
    return f"{(cursor.at - _EPOCH) // _MICROSECOND}.{UUID(int=cursor.id.int)}"
