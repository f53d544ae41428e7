"""Lists a page at a time: the cursor is where the page before ended."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from ..core.rest.fields import Page, Paging, Resource
from ..core.rest.problems import ProblemCode
from .problems import problem

ItemT = TypeVar("ItemT", bound=Resource)


def page(
    kind: type[Page[ItemT]], items: Sequence[ItemT], asked: Paging, cursor_of: Callable[[ItemT], str]
) -> Page[ItemT]:
    """A page of `items`, of which one more than asked for was read if there are more."""
    shown = tuple(items[: asked.limit])
    return kind(items=shown, next_cursor=cursor_of(shown[-1]) if len(items) > asked.limit else None)


def after_id(asked: Paging) -> int:
    """The id that the page before ended with, of a list that is ordered by ids. Raises Problem."""
    if asked.cursor is None:
        return 0
    if not asked.cursor.isascii() or not asked.cursor.isdigit() or len(asked.cursor) > 15:
        raise bad_cursor()
    return int(asked.cursor)


def before_id(asked: Paging) -> int | None:
    """The same of a list whose largest ids come first; None for the first page. Raises Problem."""
    return None if asked.cursor is None else after_id(asked)


def bad_cursor() -> Exception:
    """For a cursor that no page of ours ended with."""
    return problem(ProblemCode.BAD_FIELD, "that is no cursor of this list", pointer="/cursor")
