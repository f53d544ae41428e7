"""Modified copies of records. Dataclasses and msgspec structs each have their own function for it."""

import dataclasses
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def replace(record: T, **changes: Any) -> T:
    """Return a copy of a record with some fields changed. Raises TypeError for an unknown field."""
    if isinstance(record, msgspec.Struct):
        return msgspec.structs.replace(record, **changes)
    copy: T = dataclasses.replace(record, **changes)  # type: ignore[type-var]
    return copy
