"""Copies with changes, of whatever kind of record: dataclasses and msgspec's structs have a function each for it."""

import dataclasses
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def replace(record: T, **changes: Any) -> T:
    """A copy of a record with these fields changed. Raises TypeError for a field that there is not."""
    if isinstance(record, msgspec.Struct):
        return msgspec.structs.replace(record, **changes)
    copy: T = dataclasses.replace(record, **changes)  # type: ignore[type-var]
    return copy
